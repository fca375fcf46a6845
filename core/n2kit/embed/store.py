"""Embedding of a catalogue into a vectors file, in shards so that an interrupted run goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from n2kit.data.image_digests import OF_SIZES, images_digest, is_of_sizes
from n2kit.embed.encode import Progress, encode
from n2kit.embed.shards import Shards
from n2kit.embed.vectors_file import Vectors, read_vectors, stored_run, write_table
from n2kit.errors import BadInput
from n2kit.utils.files import ensure_writable_file, sync
from n2kit.utils.folders import ensure_outside_bundles
from n2kit.utils.locks import output_lock

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.inputs.feature_cache import FeatureCache
    from n2kit.inputs.reader import OnBadImage
    from n2kit.modeling.model import Model
    from n2kit.utils.device import Precision

LOG = logging.getLogger("n2kit")
SHARD = 1024  # items; what an interrupted run loses at most


def embed(
    model: Model,
    fingerprint: str,
    items: Items,
    out: Path,
    *,
    images: Path | None = None,
    visual: bool = False,
    batch_size: int | None = None,
    on_bad_image: OnBadImage = "error",
    precision: Precision = "auto",
    force: bool = False,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
    notify: Callable[[str], None] = LOG.warning,
) -> Vectors:
    """Embed a catalogue into `out`. The same call after an interruption computes only what is missing.

    Args:
        cache: features of a frozen vision encoder; by default those that training keeps on disk, of the recipe's size.
        notify: called with a line for people; by default they are logged.

    Raises:
        BadInput: `out` holds something else, or another process writes it; `visual` from a variant without one; what `encode` raises.
    """
    from n2kit.inputs.feature_cache import feature_cache
    from n2kit.inputs.state_cache import state_cache
    from n2kit.utils.device import pick_precision

    if visual and not model.variant.micl:
        raise BadInput(
            f"variant {model.recipe.variant} has no visual vector", "leave out --visual, or use micl or notellm2"
        )
    run: dict[str, object] = {
        "fingerprint": fingerprint,
        "items": items.digest(),
        "images": images_digest(items, images) if model.variant.image else None,
        "visual": visual,
        "on_bad_image": on_bad_image,
        "precision": precision,
        "shard": SHARD,
    }
    ensure_writable_file(out)
    ensure_outside_bundles(out)
    with output_lock(out):
        if _finished(out, run, force):
            return replace(read_vectors(out), done_before=True)
        dtype, _ = pick_precision(precision, model.device)
        states = state_cache(model.llm, model.recipe.train.feature_cache_gb, dtype, memory=False)
        if cache is None:
            cache = feature_cache(model.vision, model.recipe.train.feature_cache_gb, images, dtype, memory=False)
        shards = Shards.of(out, run | {"computed in": str(dtype)})  # `auto` may choose otherwise the next time
        parts = [items.items[start : start + SHARD] for start in range(0, len(items), SHARD)]
        wanted = [[item.id for item in part] for part in parts]
        for number, part in enumerate(parts):
            if shards.read(number, wanted[number]) is not None:
                if progress:
                    progress(min((number + 1) * SHARD, len(items)), len(items))
                continue
            if shards.left(number):
                notify(f"{shards.file(number)} is not whole, or not of these items: it is computed again")
            encoded = encode(
                model, part, images=images, batch_size=batch_size, on_bad_image=on_bad_image, precision=precision,
                cache=cache, states=states, progress=_shifted(progress, number * SHARD, len(items)),
            )  # fmt: skip
            shards.write(number, encoded)
        write_table(shards.whole(wanted), out, run)
        vectors = read_vectors(out)  # before the shards go
        sync(out.parent)
        shards.remove()
        return vectors


def _finished(out: Path, run: dict[str, object], force: bool) -> bool:
    """Tell whether `out` is the result of this very run.

    Raises:
        BadInput: it holds something else, and may not be replaced.
    """
    if not out.exists():
        return False
    stored = stored_run(out)
    if stored is None:
        raise BadInput(f"{out} exists, and is no vectors file of n2kit", "give another -o, or move it away")
    if is_of_sizes(stored.get("images")) and stored | {"images": run["images"]} == run and not force:
        raise BadInput(f"{out} {OF_SIZES}", "--force embeds again, or give another -o")
    if stored != run and not force:
        raise BadInput(
            f"{out} holds vectors of another model, other items or other images",
            "give another -o, or --force to replace it",
        )
    return not force


def _shifted(progress: Progress | None, start: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(start + done, total)
