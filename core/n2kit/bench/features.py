"""Frozen vision features of a whole matrix, once a tower, before the trainings that read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from n2kit import tuners
from n2kit.assemble import load_backbone
from n2kit.data.features import feature_cache
from n2kit.data.images import UnreadableImage, open_image
from n2kit.data.items import Item
from n2kit.device import pick_device, pick_precision
from n2kit.parts import Origin, VisionEncoder
from n2kit.plan import Plan, make_plan
from n2kit.train.engine import steps_of
from n2kit.tuning import Tune

if TYPE_CHECKING:
    from n2kit.bench.cells import Cell
    from n2kit.bench.context import Bench

TOGETHER = 64  # pictures decoded at a time


def compute(bench: Bench, cells: Sequence[Cell]) -> None:
    """Put into the user's cache folder what the cells' frozen encoder says of their pictures, as far as it is not there yet.

    A picture that cannot be read is left to the cells, which have a policy for it.
    """
    recipe, data = cells[0].recipe, bench.data
    assert recipe is not None
    device = pick_device(bench.device)
    dtype, _ = pick_precision(recipe.train.precision, device)
    vision = _encoder(make_plan(recipe, given=cells[0].given)).to(device)
    tuners.apply(vision, "vision", Tune.parse("frozen"), 0)
    if str(dtype) == "torch.float32":
        vision.float()  # as training does: another precision has another place in the store
    cache = feature_cache(vision, recipe.train.feature_cache_gb, data.images, dtype, memory=False)
    if cache is None or data.images is None:
        return
    shown = list({item.image: item for item in _needed(bench, cells) if item.image}.values())
    for start in range(0, len(shown), TOGETHER):
        pixels = {}
        known = []
        for item in shown[start : start + TOGETHER]:
            if item.image not in cache:
                try:
                    pixels[item.image] = vision.transform(open_image(item, data.images))
                except UnreadableImage:
                    continue
            known.append(item.image)
        if known:
            cache.rows(known, pixels)
        bench.say({"event": "progress", "phase": "features", "done": start + len(known), "total": len(shown)})
    if cache.store is not None and cache.store.problem:
        bench.say({"event": "note", "text": f"features are not kept on disk: {cache.store.problem}"})


def _encoder(plan: Plan) -> VisionEncoder:
    if "mllm" in plan.components:
        whole = plan.components["mllm"]
        vision: VisionEncoder = whole.cls().create(Origin(whole.config(), whole.weights.locate())).vision
        return vision
    encoder: VisionEncoder = load_backbone(plan.components["vision"])
    return encoder


def _needed(bench: Bench, cells: Sequence[Cell]) -> list[Item]:
    """Items whose pictures are certain to be seen: those that are embedded, and those of trainings that see them all."""
    data = bench.data
    ends = [i for pair in data.val_pairs or () for i in pair]
    for cell in cells:
        assert cell.recipe is not None
        train = cell.recipe.train
        if cell.trained and steps_of(train, len(data.pairs)) * train.batch_size >= len(data.pairs):
            ends += [i for pair in data.pairs for i in pair]
            break
    return [*data.wanted, *(data.items[i] for i in dict.fromkeys(ends))]
