"""What frozen backbones alone say of items: computed once, shared by the baselines of a matrix, and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from n2kit.assemble import from_plan, load_backbone
from n2kit.data.features import FeatureCache, feature_cache, look
from n2kit.data.images import UnreadableImage, open_image
from n2kit.device import pick_device, pick_precision
from n2kit.embed import encode
from n2kit.errors import BadInput
from n2kit.plan import make_plan, with_options
from n2kit.registry import registry
from n2kit.train.watch import frozen_fingerprint
from n2kit.weights import cache_folder

if TYPE_CHECKING:
    from n2kit.data.batch import OnBadImage
    from n2kit.data.items import Item, Items
    from n2kit.parts import VisionEncoder, VisionOut
    from n2kit.recipe import Recipe

TOGETHER = 64  # pictures decoded before they are encoded
PROBE = 16  # pictures that tell what one costs


@dataclass(frozen=True)
class Features:
    """One backbone's view of a catalogue.

    `values` [n, d] float32 in the order of the items, rows of zeros where `there` [n] is False; `unreadable`: item id → reason.
    `ms_item`: what one item costs, from its text or its image file on; `parameters`: of the backbone.
    """

    values: np.ndarray
    there: np.ndarray
    ms_item: float
    parameters: int
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Computed(NamedTuple):
    """What is kept on disk of `Features`."""

    values: np.ndarray
    there: np.ndarray
    ms_item: float


@dataclass
class Frozen:
    """Frozen features, remembered in memory and, where `train.feature_cache_gb` allows it, in the user's cache folder.

    An entry on disk is named by all that decides it: the backbone's weights, what it reads of each item (token ids, or the
    content of the image file and the transform), and the precision. `problem` says why nothing can be written, if so.
    """

    known: dict[str, Features] = field(default_factory=dict)
    problem: str | None = None

    def text(self, recipe: Recipe, items: Items, device: str | None = None) -> Features:
        """The LLM's compressed word of each item's text prompt, a unit vector; an item without a text has none.

        Raises:
            BadInput, Mismatch, Unavailable: the language model cannot be built.
        """
        about = (recipe.llm.model_dump(), recipe.prompt.model_dump(), recipe.train.precision, device, items.digest())
        return self._once(_hash("text", *about), lambda: self._text(recipe, items, device))

    def image(
        self, recipe: Recipe, items: Items, images: Path | None, on_bad_image: OnBadImage, device: str | None = None
    ) -> Features:
        """The vision encoder's pooled vector of each item's picture (where it has none, the mean of its tokens).

        Raises:
            UnreadableImage: under policy `error`. BadInput, Mismatch, Unavailable: the vision encoder cannot be loaded.
        """
        about = (recipe.vision.model_dump(), recipe.train.precision, device, items.digest(), str(images), on_bad_image)
        return self._once(_hash("image", *about), lambda: self._image(recipe, items, images, on_bad_image, device))

    def _once(self, key: str, compute: Callable[[], Features]) -> Features:
        if key not in self.known:
            self.known[key] = compute()
        return self.known[key]

    def _text(self, recipe: Recipe, items: Items, device: str | None) -> Features:
        model = from_plan(make_plan(_text_alone(recipe))).to(pick_device(device))
        dtype, _ = pick_precision(recipe.train.precision, model.device)
        written = [item for item in items if item.has_text]
        read = [model.prompter(item, image=False).ids for item in written]

        def compute() -> Computed:
            there = np.array([item.has_text for item in items])
            values = np.zeros((len(items), model.width), np.float32)
            start = time.perf_counter()
            if written:
                values[there] = encode(model, written, precision=recipe.train.precision).vectors
            return Computed(values, there, 1000 * (time.perf_counter() - start) / max(1, len(written)))

        made = model.provenance.parts["llm"]
        weights = _hash(
            frozen_fingerprint(model.llm), made["component"], made["version"], recipe.llm.options, str(dtype)
        )
        folder = cache_folder() / "features" / f"llm-{weights}"
        asked = [item.has_text for item in items]
        kept = self._kept(folder / f"{_hash(asked, read)}.safetensors", recipe, compute)
        return Features(*kept, parameters=sum(p.numel() for p in model.llm.parameters()))

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
        store = cache.store.folder() if cache is not None and cache.store is not None else None
        cache = cache or FeatureCache(vision, 0, images=folder, dtype=dtype)
        assert cache.contents is not None
        contents = [cache.contents.digest(item.image) if item.image else None for item in items]
        file = store / f"pooled-{_hash(contents)}.safetensors" if store is not None else None
        kept = self._kept(file, recipe, lambda: _pooled(cache, items, folder, on_bad_image))
        absent = [item for item, there in zip(items, kept.there, strict=True) if item.image and not there]
        return Features(
            *kept,
            parameters=sum(p.numel() for p in vision.parameters()),
            unreadable=_reasons(absent, folder, on_bad_image),
            notes=()
            if vision.card.pooled_width
            else (f"{recipe.vision.name} has no pooled vector: mean of its tokens",),
        )

    def _kept(self, file: Path | None, recipe: Recipe, compute: Callable[[], Computed]) -> Computed:
        """What `file` holds, else what `compute` gives, written there if the cache's bound allows it."""
        most = int(recipe.train.feature_cache_gb * 1e9)
        if file is None or not most:
            return compute()
        try:
            found = load_file(file)
            os.utime(file)
            return Computed(found["values"], found["there"], float(found["ms_item"]))
        except (OSError, SafetensorError, KeyError):
            computed = compute()
        if computed.values.nbytes <= most:
            aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                save_file({name: np.asarray(value) for name, value in computed._asdict().items()}, aside)
                aside.replace(file)
            except (OSError, SafetensorError) as error:
                self.problem = f"features are not kept on disk: {file.parent}: {error}"
        return computed


def _text_alone(recipe: Recipe) -> Recipe:
    """The LLM's own state of the text prompt: no picture, no head, and the same random weights whatever the seed."""
    llm = recipe.llm.model_copy(update={"tune": "frozen"})
    train = recipe.train.model_copy(update={"seed": 0})
    head = recipe.head.model_copy(update={"width": None})
    return recipe.model_copy(update={"variant": "text_only", "llm": llm, "train": train, "head": head})


def _encoder(recipe: Recipe) -> VisionEncoder:
    component = with_options(registry().resolve("vision", recipe.vision.name), recipe.vision.options)
    torch.manual_seed(0)  # of random weights, whatever the seed
    vision: VisionEncoder = load_backbone(component)
    return vision.freeze()


def _pooled(cache: FeatureCache, items: Items, folder: Path, on_bad_image: OnBadImage) -> Computed:
    """One vector a picture; no tokens of all pictures are ever in memory together."""
    rows: dict[int, np.ndarray] = {}
    shown = [n for n, item in enumerate(items) if item.image]
    for start in range(0, len(shown), TOGETHER):
        some = {n: items.items[n] for n in shown[start : start + TOGETHER]}
        pixels = _pixels(cache, list(some.values()), folder, on_bad_image)
        readable = {n: item.image for n, item in some.items() if item.image in pixels or item.image in cache}
        if readable:
            outs = cache.rows(list(readable.values()), pixels)
            rows |= {n: _one_vector(out) for n, out in zip(readable, outs, strict=True)}
    width = cache.vision.card.pooled_width or cache.vision.card.token_width
    values = np.zeros((len(items), width), np.float32)
    for n, row in rows.items():
        values[n] = row
    there = np.isin(np.arange(len(items)), list(rows))
    return Computed(values, there, _cost(cache, [items.items[n] for n in list(rows)[:PROBE]], folder))


def _pixels(cache: FeatureCache, items: list[Item], folder: Path, on_bad_image: OnBadImage) -> dict[str, Tensor]:
    """Image path → pixels [3, H, W] of what is not in the cache and can be read."""
    pixels: dict[str, Tensor] = {}
    for item in items:
        if item.image in pixels or item.image in cache:
            continue
        try:
            pixels[item.image] = cache.vision.transform(open_image(item, folder))
        except UnreadableImage:
            if on_bad_image == "error":
                raise
    return pixels


def _reasons(items: list[Item], folder: Path, on_bad_image: OnBadImage) -> dict[str, str]:
    """Why pictures cannot be read: item id → reason. Raises UnreadableImage under policy `error`."""
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
    """Tokens [N, Dv], pooled [Dp] or None → [Dp], else the mean of the real tokens, [Dv]."""
    if out.pooled is not None:
        return out.pooled.float().numpy()
    tokens = out.tokens.float()
    return (tokens if out.mask is None else tokens[out.mask]).mean(0).numpy()


def _cost(cache: FeatureCache, items: list[Item], folder: Path) -> float:
    """Milliseconds to read, transform and encode a picture; measured, because the cache may have known all of them."""
    if not items:
        return 0.0
    device = next(cache.vision.parameters()).device
    start = time.perf_counter()
    pixels = torch.stack([cache.vision.transform(open_image(item, folder)) for item in items]).to(device)
    cast = torch.autocast(device.type, cache.dtype) if cache.dtype not in (None, torch.float32) else nullcontext()
    with torch.no_grad(), cast:
        look(cache.vision, pixels).map(Tensor.cpu)
    return 1000 * (time.perf_counter() - start) / len(items)


def _hash(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
