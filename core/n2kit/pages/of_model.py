"""The neighbours page of a model that has just been made, on the items that it was made with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from n2kit.bundle.io import load
from n2kit.data.items import Items
from n2kit.embed import encode
from n2kit.errors import BadInput, counted
from n2kit.inputs.feature_cache import feature_cache
from n2kit.inputs.state_cache import state_cache
from n2kit.pages.neighbours import draw_examples, write_neighbours
from n2kit.utils.device import pick_device, pick_precision

if TYPE_CHECKING:
    from n2kit.inputs.reader import OnBadImage

MOST = 2000  # items that a page embeds: minutes, and not hours, where the catalogue is large


def write_model_page(
    file: Path,
    bundle: Path,
    items: Items,
    pairs: Iterable[tuple[str, str]],
    *,
    images: Path | None = None,
    on_bad_image: OnBadImage = "error",
    device: str | None = None,
    seed: int = 0,
    sentences: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Embed the items of `pairs` and others that the seed draws, at most MOST, and write their neighbours' page.

    Args:
        pairs: of which the queries are; they say what is right.
        sentences: what stands on top of the page.

    Raises:
        BadInput: fewer than two items can be embedded; what `encode` raises.
    """
    chosen = _draw_items(items, pairs := list(pairs), seed)
    model = load(bundle).to(pick_device(device))
    dtype, _ = pick_precision("auto", model.device)
    gigabytes = model.recipe.train.feature_cache_gb
    encoded = encode(
        model, [items[i] for i in chosen], images=images, on_bad_image=on_bad_image, progress=progress,
        cache=feature_cache(model.vision, gigabytes, images, dtype, memory=False),
        states=state_cache(model.llm, gigabytes, dtype, memory=False),
    )  # fmt: skip
    if len(encoded.ids) < 2:
        raise BadInput("fewer than two items can be embedded", "check --images and --on-bad-image")
    pool = f"Neighbours among {counted(len(encoded.ids), 'item')}"
    pool += f", drawn by the seed out of {len(items):,}." if len(chosen) < len(items) else "."
    examples, farthest = draw_examples(encoded.ids, encoded.vectors, pairs, seed)
    write_neighbours(file, items, images, examples, farthest, sentences=[*sentences, pool], seed=seed)


def _draw_items(items: Items, pairs: Sequence[tuple[str, str]], seed: int) -> list[str]:
    """Draw at most MOST ids: half of the room at most for the items of pairs that are drawn, the rest for any others."""
    rng = np.random.default_rng(seed)
    paired: dict[str, None] = {}
    for n in rng.permutation(len(pairs)).tolist():
        if len(paired) >= MOST // 2:
            break
        paired |= dict.fromkeys(i for i in pairs[n] if i in items)
    others = [item.id for item in items if item.id not in paired]
    drawn = rng.permutation(len(others))[: MOST - len(paired)].tolist()
    return [*paired, *(others[n] for n in drawn)]
