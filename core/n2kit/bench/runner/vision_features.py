"""Frozen vision features of a whole matrix, computed once an encoder, before the trainings that read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from n2kit.bench.events import Note, Progress
from n2kit.builder import load_backbone
from n2kit.contract.interfaces import LoadSpec, VisionEncoder
from n2kit.data.items import Item
from n2kit.inputs.feature_cache import FeatureCache, feature_cache
from n2kit.inputs.reader import iter_pixels
from n2kit.modeling import trainable as tuners
from n2kit.planning.planner import component_of
from n2kit.recipe.tuning import Tune
from n2kit.train.engine import steps_of
from n2kit.utils.device import pick_device, pick_precision

if TYPE_CHECKING:
    from n2kit.bench.matrix.cell import Cell
    from n2kit.bench.runner.context import BenchContext

DECODE_BATCH = 64  # images decoded at a time


def compute(bench: BenchContext, cells: Sequence[Cell]) -> None:
    """Compute the features of the cells' images by their frozen encoder into the user's cache folder, where they are missing.

    An image that cannot be read is left to the cells, which have a policy for it.
    """
    data, vision = bench.data, frozen_encoder(bench, cells[0])
    cache = store_of(bench, cells[0], vision)
    if cache is None or data.images is None:
        return
    shown = list({item.image: item for item in needed(bench, cells) if item.image}.values())
    for start in range(0, len(shown), DECODE_BATCH):
        some = shown[start : start + DECODE_BATCH]
        pixels = dict(iter_pixels(some, vision, data.images, cache, "skip"))
        known = [item.image for item in some if item.image in pixels or item.image in cache]
        if known:
            cache.rows(known, pixels)
        bench.emit(Progress("features", start + len(known), len(shown)))
    if cache.store is not None and cache.store.problem:
        bench.emit(Note(f"features are not kept on disk: {cache.store.problem}"))


def frozen_encoder(bench: BenchContext, cell: Cell) -> VisionEncoder:
    """Load the cell's frozen vision encoder alone, in the precision that training computes with."""
    assert cell.recipe is not None
    device = pick_device(bench.device)
    if cell.recipe.mllm is not None:
        whole = component_of(cell.recipe, "mllm")
        vision: VisionEncoder = whole.create(LoadSpec(whole.config(), whole.weights.locate())).vision
    else:
        vision = load_backbone(component_of(cell.recipe, "vision"))
    tuners.apply(vision, "vision", Tune.parse("frozen"), 0)
    vision.prepare_for(_dtype(bench, cell))  # widened weights have a place of their own in the store
    return vision.to(device)


def store_of(bench: BenchContext, cell: Cell, vision: VisionEncoder) -> FeatureCache | None:
    """Open the cache of the encoder's output on disk; None where none is kept."""
    assert cell.recipe is not None
    gigabytes = cell.recipe.train.feature_cache_gb
    return feature_cache(vision, gigabytes, bench.data.images, _dtype(bench, cell), memory=False)


def _dtype(bench: BenchContext, cell: Cell) -> torch.dtype:
    assert cell.recipe is not None
    return pick_precision(cell.recipe.train.precision, pick_device(bench.device))[0]


def needed(bench: BenchContext, cells: Sequence[Cell]) -> list[Item]:
    """List the items whose images are certain to be encoded: the embedded ones, and those of trainings that see all pairs."""
    data = bench.data
    ends = [i for pair in data.val_pairs or () for i in pair]
    for cell in cells:
        assert cell.recipe is not None
        train = cell.recipe.train
        if cell.baseline is not None or (
            cell.trained and steps_of(train, len(data.pairs)) * train.batch_size >= len(data.pairs)
        ):
            ends += [i for pair in data.pairs for i in pair]
            break
    return [*data.evaluated_items, *(data.items[i] for i in dict.fromkeys(ends))]
