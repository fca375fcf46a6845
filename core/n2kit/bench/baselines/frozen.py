"""Features of items by frozen backbones alone: computed once, shared by the baselines of a matrix, and kept on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from n2kit.builder import from_plan, load_backbone
from n2kit.embed.encode import encode
from n2kit.inputs.feature_cache import FeatureCache, feature_cache
from n2kit.inputs.halves import check_folder, image_half, text_half, unreadable
from n2kit.inputs.reader import iter_pixels
from n2kit.inputs.state_cache import StateCache, state_cache
from n2kit.modeling.vision import encode_images
from n2kit.planning.planner import make_plan, with_options
from n2kit.plugins.catalogue import default_catalogue
from n2kit.recipe.settings import Recipe
from n2kit.utils.contexts import autocast
from n2kit.utils.device import pick_device, pick_precision

if TYPE_CHECKING:
    from n2kit.contract.interfaces import VisionEncoder
    from n2kit.data.items import Item, Items
    from n2kit.inputs.reader import OnBadImage

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
    `progress` is called with (done, total, what).

    On disk they are in the caches that trainings use, within `train.feature_cache_gb`: a joined model that was trained before
    has computed them already. There an entry is named by the weights, what is read (tokens, or an image's content and its
    transform), and the precision.
    """

    known: dict[str, Features] = field(default_factory=dict)
    problem: str | None = None
    progress: Callable[[int, int, str], None] | None = None

    def text(self, recipe: Recipe, items: Items, device: str | None = None) -> Features:
        """Compute the LLM's state at the end of each item's text prompt: [n, Dh]; an item without a text has zeros.

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

    def whole(
        self, recipe: Recipe, items: Items, images: Path | None, on_bad_image: OnBadImage, device: str | None = None
    ) -> Features:
        """Compute a multimodal LLM's own vector of each item, image and text in one prompt: [n, Dh].

        Raises:
            UnreadableImage: under policy `error`. BadInput, Mismatch, Unavailable: the model cannot be built.
        """
        folder = check_folder(items, images)
        model = from_plan(make_plan(_joined_alone(recipe))).to(pick_device(device)).eval()
        readable = [item for item in items if item.has_text or item.image]
        how: dict[str, Any] = {"images": folder, "on_bad_image": on_bad_image, "precision": recipe.train.precision}
        out = encode(model, readable, progress=self._named("items"), **how)
        rows = dict(zip(out.ids, out.vectors, strict=True))
        present = np.array([item.id in rows for item in items], dtype=bool)
        values = np.stack([rows.get(item.id, np.zeros(model.width, np.float32)) for item in items])
        timed = [item for item in readable if item.id in rows and item.id not in out.skipped][:TIMED_ITEMS]
        cost = _cost(lambda: encode(model, timed, **how), len(timed))
        return Features(values, present, cost, sum(p.numel() for p in model.parameters()), dict(out.skipped))

    def _memoized(self, key: str, compute: Callable[[], Features]) -> Features:
        if key not in self.known:
            self.known[key] = compute()
        return self.known[key]

    def _named(self, what: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        return None if progress is None else lambda done, total: progress(done, total, what)

    def _text(self, recipe: Recipe, items: Items, device: str | None) -> Features:
        model = from_plan(make_plan(_text_alone(recipe))).to(pick_device(device)).eval()
        dtype, _ = pick_precision(recipe.train.precision, model.device)
        model.prepare_for(dtype)
        gigabytes = recipe.train.feature_cache_gb
        cache = state_cache(model.llm, gigabytes, dtype, memory=False) or StateCache(model.llm, 0, dtype)
        half = text_half(cache, model.prompt_builder, items, self._named("texts"))
        timed = [model.prompt_builder(item, image=False) for item in items if item.has_text][:TIMED_ITEMS]
        self.problem = self.problem or (cache.store.problem if cache.store is not None else None)
        cost = _cost(lambda: StateCache(model.llm, 0, dtype).rows(timed), len(timed))
        return Features(half.values, half.present, cost, sum(p.numel() for p in model.llm.parameters()))

    def _image(
        self, recipe: Recipe, items: Items, images: Path | None, on_bad_image: OnBadImage, device: str | None
    ) -> Features:
        folder = check_folder(items, images)
        vision = _encoder(recipe).to(pick_device(device))
        dtype, _ = pick_precision(recipe.train.precision, next(vision.parameters()).device)
        vision.prepare_for(dtype)
        cache = feature_cache(vision, recipe.train.feature_cache_gb, folder, dtype, memory=False)
        cache = cache or FeatureCache(vision, 0, images=folder, dtype=dtype)
        half = image_half(cache, items, folder, on_bad_image, self._named("images"))
        self.problem = self.problem or (cache.store.problem if cache.store is not None else None)
        readable = list({i.image: i for i, seen in zip(items, half.present, strict=True) if seen}.values())[
            :TIMED_ITEMS
        ]
        return Features(
            half.values,
            half.present,
            _cost(lambda: _encode_uncached(cache, readable, folder), len(readable)),
            sum(p.numel() for p in vision.parameters()),
            unreadable(items.items, half, folder, on_bad_image),
            () if vision.card.pooled_width else (f"{recipe.vision.name} has no pooled vector: the mean of its tokens",),
        )


def _text_alone(recipe: Recipe) -> Recipe:
    """Return a recipe for the LLM alone: no image, no head, and the same random weights whatever the seed."""
    llm = recipe.llm.model_copy(update={"tune": "frozen"})
    train = recipe.train.model_copy(update={"seed": 0})
    head = recipe.head.model_copy(update={"width": None})
    fresh = {"variant": "text_only", "llm": llm, "mllm": None, "train": train, "head": head, "loss": Recipe().loss}
    return recipe.model_copy(update=fresh)


def _joined_alone(recipe: Recipe) -> Recipe:
    """Return a recipe for a multimodal LLM as it is: image and text in its prompt, no head."""
    train, head = recipe.train.model_copy(update={"seed": 0}), recipe.head.model_copy(update={"width": None})
    return recipe.model_copy(update={"variant": "basic", "train": train, "head": head, "loss": Recipe().loss})


def _encoder(recipe: Recipe) -> VisionEncoder:
    component = with_options(default_catalogue().resolve("vision", recipe.vision.name), recipe.vision.options)
    torch.manual_seed(0)  # of random weights, whatever the seed
    vision: VisionEncoder = load_backbone(component)
    return vision.freeze()


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
