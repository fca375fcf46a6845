"""Features of items by frozen backbones alone: computed once, shared by the baselines of a matrix, and kept on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from n2kit.builder import from_plan, load_backbone
from n2kit.data.images import UnreadableImage, open_image
from n2kit.errors import BadInput
from n2kit.inputs.feature_cache import FeatureCache, feature_cache
from n2kit.inputs.reader import iter_pixels
from n2kit.inputs.state_cache import StateCache, state_cache
from n2kit.modeling.vision import encode_images
from n2kit.planning.planner import make_plan, with_options
from n2kit.plugins.catalogue import default_catalogue
from n2kit.recipe.settings import Recipe
from n2kit.utils.contexts import autocast
from n2kit.utils.device import pick_device, pick_precision

if TYPE_CHECKING:
    from n2kit.contract.interfaces import VisionEncoder, VisionOut
    from n2kit.data.items import Item, Items
    from n2kit.inputs.reader import OnBadImage
    from n2kit.modeling.prompts import TokenizedPrompt

DECODE_BATCH = 64  # images decoded before they are encoded
TEXTS_PER_SAVE = 512  # texts encoded before their states are written to disk
TIMED_ITEMS = 16  # items that are encoded without a cache, to measure the cost of one


@dataclass(frozen=True)
class Features:
    """The features of a catalogue by one backbone.

    `values` [n, d] float32 in the order of the items, rows of zeros where `present` [n] is False; `unreadable`: item id → reason.
    `ms_item`: milliseconds for one item, from its text or its image file; `parameters`: of the backbone.
    """

    values: np.ndarray
    present: np.ndarray
    ms_item: float
    parameters: int
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class FrozenFeatures:
    """Frozen features, shared by the baselines of one matrix; `problem` says why nothing can be kept on disk, if so.

    On disk they are in the caches that trainings use, within `train.feature_cache_gb`: a joined model that was trained before
    has computed them already. There an entry is named by the weights, what is read (tokens, or an image's content and its
    transform), and the precision.
    """

    known: dict[str, Features] = field(default_factory=dict)
    problem: str | None = None

    def text(self, recipe: Recipe, items: Items, device: str | None = None) -> Features:
        """Compute the LLM's embedding of each item's text prompt: unit vectors [n, Dh]; an item without a text has zeros.

        Raises:
            BadInput, Mismatch, Unavailable: the language model cannot be built.
        """
        about = (recipe.llm.model_dump(), recipe.prompt.model_dump(), recipe.train.precision, device, items.digest())
        return self._memoized(_hash("text", *about), lambda: self._text(recipe, items, device))

    def image(
        self, recipe: Recipe, items: Items, images: Path | None, on_bad_image: OnBadImage, device: str | None = None
    ) -> Features:
        """Compute the pooled vector of each item's image: [n, Dp]; of an encoder without one, the mean of its tokens.

        Raises:
            UnreadableImage: under policy `error`. BadInput, Mismatch, Unavailable: the vision encoder cannot be loaded.
        """
        about = (recipe.vision.model_dump(), recipe.train.precision, device, items.digest(), str(images), on_bad_image)
        return self._memoized(_hash("image", *about), lambda: self._image(recipe, items, images, on_bad_image, device))

    def _memoized(self, key: str, compute: Callable[[], Features]) -> Features:
        if key not in self.known:
            self.known[key] = compute()
        return self.known[key]

    def _text(self, recipe: Recipe, items: Items, device: str | None) -> Features:
        model = from_plan(make_plan(_text_alone(recipe))).to(pick_device(device)).eval()
        dtype, _ = pick_precision(recipe.train.precision, model.device)
        if dtype == torch.float32:
            model.to_float32()
        gigabytes = recipe.train.feature_cache_gb
        cache = state_cache(model.llm, gigabytes, dtype, memory=False) or StateCache(model.llm, 0, dtype)
        present = np.array([item.has_text for item in items])
        rows = [model.prompt_builder(item, image=False) for item in items if item.has_text]
        values = np.zeros((len(items), model.width), np.float32)
        if rows:
            values[present] = _states(cache, rows)
        self.problem = self.problem or (cache.store.problem if cache.store is not None else None)
        cost = _cost(lambda: _states(StateCache(model.llm, 0, dtype), rows[:TIMED_ITEMS]), len(rows[:TIMED_ITEMS]))
        return Features(values, present, cost, sum(p.numel() for p in model.llm.parameters()))

    def _image(
        self, recipe: Recipe, items: Items, images: Path | None, on_bad_image: OnBadImage, device: str | None
    ) -> Features:
        shown = [item for item in items if item.image]
        if shown and images is None:
            raise BadInput(f"item {shown[0].id!r} has an image, but no images folder is given", "--images DIR")
        folder = images or Path()
        vision = _encoder(recipe).to(pick_device(device))
        dtype, _ = pick_precision(recipe.train.precision, next(vision.parameters()).device)
        cache = feature_cache(vision, recipe.train.feature_cache_gb, folder, dtype, memory=False)
        cache = cache or FeatureCache(vision, 0, images=folder, dtype=dtype)
        values, present = self._pooled(cache, items, folder, on_bad_image)
        self.problem = self.problem or (cache.store.problem if cache.store is not None else None)
        readable = list({i.image: i for i, seen in zip(items, present, strict=True) if seen}.values())[:TIMED_ITEMS]
        absent = [item for item, seen in zip(items, present, strict=True) if item.image and not seen]
        return Features(
            values,
            present,
            _cost(lambda: _encode_uncached(cache, readable, folder), len(readable)),
            sum(p.numel() for p in vision.parameters()),
            _reasons(absent, folder, on_bad_image),
            () if vision.card.pooled_width else (f"{recipe.vision.name} has no pooled vector: the mean of its tokens",),
        )

    def _pooled(
        self, cache: FeatureCache, items: Items, folder: Path, on_bad_image: OnBadImage
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute `values` and `present`, kept on disk as one table: the tokens of all images may exceed the cache's bound."""
        assert cache.contents is not None
        key = _hash("pooled", [cache.contents.digest(item.image) if item.image else "" for item in items])
        found = cache.store.read(key) if cache.store is not None else None
        if found is not None and {"values", "there"} <= found.keys():
            return found["values"].numpy(), found["there"].numpy()
        values, present = _encode_all(cache, items, folder, on_bad_image)
        if cache.store is not None:
            cache.store.write(key, {"values": torch.from_numpy(values), "there": torch.from_numpy(present)})
        return values, present


def _text_alone(recipe: Recipe) -> Recipe:
    """Return a recipe for the LLM alone: no image, no head, and the same random weights whatever the seed."""
    llm = recipe.llm.model_copy(update={"tune": "frozen"})
    train = recipe.train.model_copy(update={"seed": 0})
    head = recipe.head.model_copy(update={"width": None})
    fresh = {"variant": "text_only", "llm": llm, "mllm": None, "train": train, "head": head, "loss": Recipe().loss}
    return recipe.model_copy(update=fresh)


def _encoder(recipe: Recipe) -> VisionEncoder:
    component = with_options(default_catalogue().resolve("vision", recipe.vision.name), recipe.vision.options)
    torch.manual_seed(0)  # of random weights, whatever the seed
    vision: VisionEncoder = load_backbone(component)
    return vision.freeze()


def _states(cache: StateCache, rows: list[TokenizedPrompt]) -> np.ndarray:
    """Encode texts as unit vectors [n, Dh], written to disk in parts, so that an interruption loses little."""
    found: list[Tensor] = []
    for start in range(0, len(rows), TEXTS_PER_SAVE):
        some = cache.rows(rows[start : start + TEXTS_PER_SAVE])
        found += [some[n].float() for n in range(len(some))]
    return F.normalize(torch.stack(found), dim=-1).numpy()


def _encode_all(
    cache: FeatureCache, items: Items, folder: Path, on_bad_image: OnBadImage
) -> tuple[np.ndarray, np.ndarray]:
    """Encode each image as one vector: [n, D]. The tokens of all images are never in memory together."""
    rows: dict[int, np.ndarray] = {}
    shown = [n for n, item in enumerate(items) if item.image]
    for start in range(0, len(shown), DECODE_BATCH):
        some = {n: items.items[n] for n in shown[start : start + DECODE_BATCH]}
        pixels = dict(iter_pixels(some.values(), cache.vision, folder, cache, on_bad_image))
        readable = {n: item.image for n, item in some.items() if item.image in pixels or item.image in cache}
        if readable:
            outs = cache.rows(list(readable.values()), pixels)
            rows |= {n: _one_vector(out) for n, out in zip(readable, outs, strict=True)}
    width = cache.vision.card.pooled_width or cache.vision.card.token_width
    values = np.zeros((len(items), width), np.float32)
    for n, row in rows.items():
        values[n] = row
    return values, np.isin(np.arange(len(items)), list(rows))


def _reasons(items: list[Item], folder: Path, on_bad_image: OnBadImage) -> dict[str, str]:
    """Collect why images cannot be read: item id → reason.

    Raises:
        UnreadableImage: under policy `error`.
    """
    reasons = {}
    for item in items:
        try:
            open_image(item, folder)
        except UnreadableImage as error:
            if on_bad_image == "error":
                raise
            reasons[item.id] = error.message
    return reasons


def _one_vector(out: VisionOut) -> np.ndarray:
    """Reduce an image's output to one vector: the pooled one [Dp], else the mean of its unmasked tokens [Dv]."""
    if out.pooled is not None:
        return out.pooled.float().numpy()
    tokens = out.tokens.float()
    return (tokens if out.mask is None else tokens[out.mask]).mean(0).numpy()


def _encode_uncached(cache: FeatureCache, items: list[Item], folder: Path) -> None:
    device = next(cache.vision.parameters()).device
    pixels = torch.stack([pixels for _, pixels in iter_pixels(items, cache.vision, folder)]).to(device)
    with torch.no_grad(), autocast(device, cache.dtype):
        encode_images(cache.vision, pixels).map(Tensor.cpu)


def _cost(compute: Callable[[], object], items: int) -> float:
    """Measure the milliseconds that an item takes."""
    if not items:
        return 0.0
    start = time.perf_counter()
    compute()
    return 1000 * (time.perf_counter() - start) / items


def _hash(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
