"""An estimate of the time of a matrix: from cells that are done, else from a short probe of each kind of cell."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from n2kit.bench.runner.cells import TIMED
from n2kit.bench.runner.context import one_line
from n2kit.bench.runner.vision_features import frozen_encoder, needed, store_of
from n2kit.builder import from_plan
from n2kit.data.pairs import Pairs
from n2kit.embed import encode
from n2kit.inputs.feature_cache import FeatureCache
from n2kit.inputs.reader import iter_pixels
from n2kit.modeling.vision import encode_images
from n2kit.planning.planner import make_plan
from n2kit.plugins.blame import blaming
from n2kit.train import train_model
from n2kit.train.engine import steps_of
from n2kit.utils.device import pick_device, pick_precision

if TYPE_CHECKING:
    from n2kit.bench.cell_row import CellRow
    from n2kit.bench.matrix.cell import Cell
    from n2kit.bench.runner.context import BenchContext
    from n2kit.modeling.model import Model

FEW_PAIRS = 4  # of a probed step; a whole one is taken to cost in proportion
STEPS = 3  # the first one warms up
FEW_ITEMS = 8  # whose embedding is timed
SAMPLED = 64  # images that say how many have features already
LOADS = 3.0  # a cell builds its model, saves it, and loads it two times: so many times what building alone takes


@dataclass(frozen=True)
class Pace:
    """Seconds of a step, of embedding an item with cached features, and of the fixed part of every cell."""

    step: float
    item: float
    fixed: float


@dataclass(frozen=True)
class TimeEstimate:
    """Seconds of all open cells, one task after the other; `paces` and `features_s` are what they were computed from.

    `notes`: kinds of cells that could not be probed, and are not in the sum.
    """

    seconds: float
    paces: Mapping[str, Pace]  # by Cell.kind
    features_s: Mapping[str, float]  # key → seconds of features that are still to be computed
    notes: Sequence[str] = ()


def estimate(
    bench: BenchContext,
    cells: Sequence[Cell],
    done: Iterable[tuple[Cell, CellRow]],
    threads: int,
    progress: Callable[[int, int], None],
) -> TimeEstimate:
    """Estimate the time of the open `cells`, baselines left out.

    Args:
        done: finished cells with their rows; cells of the same kind are not probed.
        threads: that a task will have.
        progress: called with (probed, to be probed).
    """
    torch.set_num_threads(threads)
    paces = {cell.kind: pace for cell, row in done if (pace := _measured_pace(bench, cell, row)) is not None}
    unknown = {cell.kind: cell for cell in cells if cell.baseline is None and cell.kind not in paces}
    by_encoder: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.vision_key is not None:
            by_encoder.setdefault(cell.vision_key.key, []).append(cell)
    total = len(unknown) + len(by_encoder)
    features: dict[str, float] = {}
    notes: list[str] = []
    for n, (key, own) in enumerate(by_encoder.items()):
        with _note_failure(notes, own[0].arm):
            features[key] = _probe_features(bench, own)
        progress(n + 1, total)
    for n, (kind, cell) in enumerate(unknown.items()):
        with _note_failure(notes, cell.arm):
            paces[kind] = _probe(bench, cell)
        progress(len(by_encoder) + n + 1, total)
    seconds = sum(features.values())
    known = [cell for cell in cells if cell.baseline is None and cell.kind in paces]
    trainings = {cell.run_key: cell for cell in known}
    seconds += sum(_training_seconds(bench, cell, paces[cell.kind]) for cell in trainings.values())
    embedded = len(bench.data.evaluated_items) + TIMED  # each cell embeds some once more, to time them
    seconds += sum(embedded * paces[cell.kind].item for cell in known)
    return TimeEstimate(seconds, paces, features, list(dict.fromkeys(notes)))


@contextmanager
def _note_failure(notes: list[str], arm: str) -> Iterator[None]:
    """Turn an error of a probe into a note: it would fail its own cells alone."""
    try:
        with blaming():
            yield
    except Exception as problem:
        notes.append(f"{arm} could not be probed, and is not in the estimate: {one_line(problem)}")


def _training_seconds(bench: BenchContext, cell: Cell, pace: Pace) -> float:
    assert cell.recipe is not None
    if not cell.trained:
        return pace.fixed
    train, data = cell.recipe.train, bench.data
    steps = steps_of(train, len(data.pairs))
    watched = len({i for pair in data.val_pairs or () for i in pair}) * (1 + steps // train.eval_steps)
    return pace.fixed + steps * pace.step + watched * pace.item


def _measured_pace(bench: BenchContext, cell: Cell, row: CellRow) -> Pace | None:
    """Return the pace of a finished cell by its costs; None where they do not tell it."""
    embed_s, train_s, steps = (row.costs.get(name) for name in ("embed_s", "train_s", "steps"))
    if cell.baseline is not None or embed_s is None:
        return None
    step = 0.0
    if cell.trained:
        if not train_s or not steps:
            return None
        step = train_s / steps
    return Pace(step, embed_s / len(bench.data.evaluated_items), row.costs.get("overhead_s") or 0.0)


def _probe(bench: BenchContext, cell: Cell) -> Pace:
    """Time a few real steps on a few pairs, and a few embeddings; nothing of it is kept."""
    assert cell.recipe is not None
    data = bench.data
    begun = time.perf_counter()
    model = from_plan(make_plan(cell.recipe, requested=cell.given)).to(pick_device(bench.device))
    fixed = LOADS * (time.perf_counter() - begun)
    train = cell.recipe.train
    cache = _memory_cache(bench, model, cell)
    step = 0.0
    if cell.trained:
        few = list(islice(data.pairs, min(FEW_PAIRS, train.batch_size)))
        step = _steps(bench, model, cell, Pairs(few, grades=data.pairs.grades), cache)
        step *= min(train.batch_size, len(data.pairs)) / len(few)
    items = data.evaluated_items.items[:FEW_ITEMS]

    def embed() -> float:
        begun = time.perf_counter()
        encode(model, items, images=data.images, on_bad_image=data.on_bad_image, precision=train.precision, cache=cache)
        return (time.perf_counter() - begun) / len(items)

    embed()
    return Pace(step, embed(), fixed)


class _ProbeDoneError(Exception):
    """The end of a training that has been timed."""


def _steps(bench: BenchContext, model: Model, cell: Cell, pairs: Pairs, cache: FeatureCache | None) -> float:
    """Time a step on `pairs` in seconds, the same pairs in each: from the second one on their features are cached."""
    assert cell.recipe is not None
    ends: list[float] = []

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            ends.append(time.perf_counter())
            if len(ends) == STEPS:
                raise _ProbeDoneError  # before a checkpoint is written

    # Without what is kept of a frozen LLM: the first time, every text is new.
    settings = cell.recipe.train.model_copy(
        update={
            "feature_cache_gb": 0.0,
            "max_steps": STEPS + 1,
            "log_steps": 1,
            "save_steps": STEPS + 1,
            "loggers": [],
            "patience": None,
            "batch_size": max(2, len(pairs)),
        }
    )
    data = bench.data
    with tempfile.TemporaryDirectory(prefix="n2kit-probe-") as folder, suppress(_ProbeDoneError):
        train_model(
            model, data.items, pairs, settings, Path(folder), images=data.images, on_bad_image=data.on_bad_image,
            device=bench.device, cache=cache, report=watch,
        )  # fmt: skip
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def _memory_cache(bench: BenchContext, model: Model, cell: Cell) -> FeatureCache | None:
    """Make a cache of features in memory alone; None where images are not frozen features."""
    if model.vision is None or not model.vision.frozen or bench.data.images is None:
        return None
    assert cell.recipe is not None
    dtype, _ = pick_precision(cell.recipe.train.precision, model.device)
    return FeatureCache(model.vision, int(1e9), images=bench.data.images, dtype=dtype)


def _probe_features(bench: BenchContext, cells: Sequence[Cell]) -> float:
    """Estimate the seconds of the features that are not cached, by a few images and the cached share of a sample."""
    images = bench.data.images
    shown = list({item.image: item for item in needed(bench, cells) if item.image}.values())
    if not shown or images is None:
        return 0.0
    vision = frozen_encoder(bench, cells[0])
    cache = store_of(bench, cells[0], vision)
    sample = shown[:: max(1, len(shown) // SAMPLED)]
    open_ = sum(item.image not in cache for item in sample) / len(sample) if cache is not None else 1.0
    if not open_:
        return 0.0
    count, begun = 0, None
    for _, pixels in iter_pixels(sample[: FEW_ITEMS + 1], vision, images, policy="skip"):
        with torch.no_grad():
            encode_images(vision, pixels[None].to(next(vision.parameters()).device))
        count += 1
        begun = begun or time.perf_counter()  # the first one warms up
    if begun is None or count < 2:
        return 0.0
    return (time.perf_counter() - begun) / (count - 1) * open_ * len(shown)
