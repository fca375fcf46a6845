"""Items in, unit vectors out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.data.given import as_items
from n2kit.embed.encoded import Encoded as Encoded
from n2kit.embed.encoded import Progress as Progress
from n2kit.errors import Failed, counted

if TYPE_CHECKING:
    import torch

    from n2kit.data.given import Given
    from n2kit.data.items import Item
    from n2kit.inputs.feature_cache import FeatureCache
    from n2kit.inputs.reader import OnBadImage, Reader
    from n2kit.inputs.state_cache import StateCache
    from n2kit.modeling.model import Model
    from n2kit.modeling.prompts import TokenizedPrompt
    from n2kit.utils.device import Precision


def encode(
    model: Model,
    items: Given,
    *,
    images: str | Path | None = None,
    batch_size: int | None = None,
    on_bad_image: OnBadImage = "error",
    precision: Precision = "auto",
    cache: FeatureCache | None = None,
    states: StateCache | None = None,
    prompts: Mapping[int, TokenizedPrompt] | None = None,
    progress: Progress | None = None,
) -> Encoded:
    """Encode items to unit vectors.

    Args:
        items: texts, dicts with any of id, image, title, topics, content, category (or usual synonyms), `Item`s; one or many. An image
            is a path, a `Path`, bytes, a data URI, an image of Pillow, or an array [H, W, 3] of 8 bits.
        images: the folder that image paths are relative to; needed as soon as an item names one as a text.
        batch_size: items at a time; None: 32, and on a GPU as many as 16,384 tokens hold.
        on_bad_image: `error`; `skip` leaves the item out; `text-only` embeds its text.
        cache: a frozen vision encoder's features to read from and add to. states: likewise, a frozen LLM's states.
        prompts: of `Item`s, built already as if all images could be read: identity of the item → prompt.
        progress: called with (done, total).

    Raises:
        BadInput: an unknown key of a dict; under `error`, an unreadable image, or an item with nothing that the variant reads.
    """
    from n2kit.embed.batches import WINDOW, laid_out
    from n2kit.inputs.images_ahead import BATCHES, images_ahead, threads_for
    from n2kit.inputs.reader import Reader  # torch, which whoever reads vectors alone does without
    from n2kit.utils.contexts import eval_mode
    from n2kit.utils.device import keep_freed_memory, pick_precision

    wanted = as_items(items)
    folder = Path(images) if images is not None else None
    reader = Reader(model.prompt_builder, model.vision, folder, on_bad_image, cache, states=states)
    rows: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
    keep_freed_memory()
    dtype, _ = pick_precision(precision, model.device)
    model.prepare_for(dtype)
    if progress:
        progress(0, len(wanted))  # the time begins now, and not when the model began to load
    vision, done = model.vision if model.variant.image else None, 0
    with eval_mode(model), images_ahead(vision, folder, cache, threads_for(model.device)) as ahead:
        reader.load = None if ahead is None else ahead.load
        for window in range(0, len(wanted), WINDOW):
            some = wanted[window : window + WINDOW]
            reader.laid_out = laid_out(reader.prompt_builder, some) if prompts is None else prompts
            batches = _batches(reader, some, window, batch_size, model.device.type)
            for number, numbers in enumerate(batches):
                some = [wanted[n] for n in numbers]
                if ahead is not None:
                    ahead.start([wanted[n] for later in batches[number : number + 1 + BATCHES] for n in later])
                batch, kept = reader(some)
                if ahead is not None:
                    ahead.drop(some)
                if batch is not None:
                    vectors, visual = _forward(model, batch.to(model.device), dtype)
                    for row, position in enumerate(kept):
                        rows[numbers[position]] = (vectors[row], None if visual is None else visual[row])
                done += len(numbers)
                if progress:
                    progress(done, len(wanted))
    if broken := [wanted[n].id for n, (vector, _) in rows.items() if not np.isfinite(vector).all()]:
        raise Failed(
            f"the vector of item {broken[0]!r} is not finite ({counted(len(broken), 'such item')})",
            "the model is damaged: train it again",
        )
    return _encoded(model, wanted, rows, reader.bad)


def _batches(reader: Reader, items: list[Item], first: int, batch_size: int | None, device: str) -> list[list[int]]:
    """Divide items, of which the first one has this number, into batches of like length."""
    from n2kit.embed.batches import batches_of

    prompts = reader.laid_out
    image = reader.prompt_builder.variant.image
    lengths = [(image and bool(item.image), len(prompts[id(item)].ids) if id(item) in prompts else 0) for item in items]
    return [[first + n for n in batch] for batch in batches_of(lengths, batch_size, device)]


def _encoded(
    model: Model, wanted: list[Item], rows: dict[int, tuple[np.ndarray, np.ndarray | None]], bad: dict[str, str]
) -> Encoded:
    kept = sorted(rows)
    vectors = np.stack([rows[n][0] for n in kept]) if kept else np.empty((0, model.width), np.float32)
    views = [view for n in kept if (view := rows[n][1]) is not None]
    return Encoded([wanted[n].id for n in kept], vectors, np.stack(views) if views else None, bad)


def _forward(model: Model, batch: Any, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray | None]:
    import torch
    from torch.nn import functional as F

    from n2kit.utils.contexts import autocast

    with torch.no_grad(), autocast(model.device, dtype):
        out = model(batch)
    vectors = F.normalize(out.views["multimodal"].float(), dim=-1).cpu().numpy()
    if "visual" not in out.views:
        return vectors, None
    visual = F.normalize(out.views["visual"].float(), dim=-1)
    return vectors, visual.masked_fill(~out.present["visual"][:, None], float("nan")).cpu().numpy()
