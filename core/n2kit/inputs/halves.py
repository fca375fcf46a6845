"""The two halves of items by frozen backbones alone: the LLM's state of the text, and the image's one vector. No joint is involved."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from n2kit.data.image_source import needs_folder
from n2kit.data.images import UnreadableImage, open_image
from n2kit.errors import BadInput
from n2kit.inputs.reader import iter_pixels

if TYPE_CHECKING:
    from n2kit.contract.interfaces import VisionOut
    from n2kit.data.items import Item, Items
    from n2kit.inputs.feature_cache import FeatureCache
    from n2kit.inputs.reader import OnBadImage
    from n2kit.inputs.state_cache import StateCache
    from n2kit.modeling.prompts import PromptBuilder

DECODE_BATCH = 64  # images decoded before they are encoded
TEXTS_PER_SAVE = 512  # texts encoded before their states are written to disk
IN_MEMORY = 2 * 10**9  # bytes; a larger table lies in a file
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Half:
    """One modality of a catalogue: `values` [n, d] float32 in the order of the items, zeros where `present` [n] is False."""

    values: np.ndarray
    present: np.ndarray


def text_half(cache: StateCache, prompts: PromptBuilder, items: Items, progress: Progress | None = None) -> Half:
    """Compute the LLM's state at the end of each item's text prompt [n, Dh]; what is interrupted loses little."""
    rows = [n for n, item in enumerate(items) if item.has_text]
    values = table(len(items), cache.llm.card.output_width)
    for start in range(0, len(rows), TEXTS_PER_SAVE):
        some = rows[start : start + TEXTS_PER_SAVE]
        states = cache.rows([prompts(items.items[n], image=False) for n in some])
        for place, n in enumerate(some):
            values[n] = states[place].float().numpy()
        if progress:
            progress(start + len(some), len(rows))
    return Half(values, np.isin(np.arange(len(items)), rows))


def image_half(
    cache: FeatureCache,
    items: Items,
    folder: Path,
    on_bad_image: OnBadImage = "error",
    progress: Progress | None = None,
) -> Half:
    """Compute one vector of each item's image: the pooled one [n, Dp], of an encoder without one the mean of its tokens [n, Dv].

    It is kept on disk as one table: the tokens of all images may exceed the cache's bound.

    Raises:
        UnreadableImage: under policy `error`.
    """
    assert cache.contents is not None
    shown = [cache.contents.digest(item.image) if item.image else "" for item in items]
    key = hashlib.sha256(json.dumps(["pooled", shown], sort_keys=True).encode()).hexdigest()[:24]
    found = cache.store.read(key) if cache.store is not None else None
    if found is not None and {"values", "there"} <= found.keys():
        kept = Half(found["values"].numpy(), found["there"].numpy())
        if not _can_be_read_now(items, kept, folder):
            return kept
    half = _encode_all(cache, items, folder, on_bad_image, progress)
    if cache.store is not None:
        cache.store.write(key, {"values": torch.from_numpy(half.values), "there": torch.from_numpy(half.present)})
    return half


def _can_be_read_now(items: Items, half: Half, folder: Path) -> bool:
    """Tell whether an image that could not be read when a half was kept can be: by a decoder that was installed since, for example."""
    for item, present in zip(items, half.present, strict=True):
        if item.image and not present:
            with contextlib.suppress(UnreadableImage):
                open_image(item, folder)
                return True
    return False


def check_folder(items: Items, images: Path | None) -> Path:
    """Return the images' folder, which is needed as soon as an item has an image.

    Raises:
        BadInput: there is none.
    """
    shown = next((item for item in items if needs_folder(item.image)), None)
    if shown is not None and images is None:
        raise BadInput(f"item {shown.id!r} has an image, but no images folder is given", "--images DIR")
    return images or Path()


def unreadable(items: Sequence[Item], half: Half, folder: Path, on_bad_image: OnBadImage) -> dict[str, str]:
    """Collect why the images that `half` lacks cannot be read: item id → reason.

    Raises:
        UnreadableImage: under policy `error`.
    """
    reasons = {}
    for item, present in zip(items, half.present, strict=True):
        if not item.image or present:
            continue
        try:
            open_image(item, folder)
        except UnreadableImage as error:
            if on_bad_image == "error":
                raise
            reasons[item.id] = error.message
    return reasons


def without(half: Half, items: Items, skipped: Container[str]) -> Half:
    """Leave skipped items out of a half [n, d]: they count as those that have none."""
    kept = np.array([item.id not in skipped for item in items], bool)
    return Half(half.values * kept[:, None], half.present & kept)


def table(rows: int, width: int) -> np.ndarray:
    """Make a table of zeros [rows, width] float32: in memory, or in a temporary file where it is large."""
    if 4 * rows * width <= IN_MEMORY:
        return np.zeros((rows, width), np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=(rows, width))


def _encode_all(
    cache: FeatureCache, items: Items, folder: Path, on_bad_image: OnBadImage, progress: Progress | None
) -> Half:
    """Encode each image as one vector. The tokens of all images are never in memory together."""
    card = cache.vision.card
    values, present = table(len(items), card.pooled_width or card.token_width), np.zeros(len(items), bool)
    shown = [n for n, item in enumerate(items) if item.image]
    for start in range(0, len(shown), DECODE_BATCH):
        some = {n: items.items[n] for n in shown[start : start + DECODE_BATCH]}
        pixels = dict(iter_pixels(some.values(), cache.vision, folder, cache, on_bad_image))
        readable = {n: item.image for n, item in some.items() if item.image in pixels or item.image in cache}
        for n, out in zip(readable, cache.rows(list(readable.values()), pixels) if readable else [], strict=True):
            values[n], present[n] = one_vector(out), True
        if progress:
            progress(start + len(some), len(shown))
    return Half(values, present)


def one_vector(out: VisionOut) -> np.ndarray:
    """Reduce an image's output to one vector: the pooled one [Dp], else the mean of its unmasked tokens [Dv]."""
    if out.pooled is not None:
        return out.pooled.float().numpy()
    tokens = out.tokens.float()
    return (tokens if out.mask is None else tokens[out.mask]).mean(0).numpy()
