"""One training of the matrix and the cells that share it: plan, build, train, embed, evaluate, write."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from n2kit.bench.cell_row import DONE, CellRow
from n2kit.bench.events import Phase, Progress, TrainingEvent
from n2kit.bench.matrix.cell import Cell
from n2kit.bench.matrix.commands import REMOVED_INPUT
from n2kit.bench.runner.context import BenchContext
from n2kit.bench.runner.rows import base_row, evaluate_vectors, failed_row
from n2kit.bench.runner.store import VECTORS
from n2kit.builder import from_plan
from n2kit.bundle import io as bundles
from n2kit.embed import embed, encode
from n2kit.evaluate.neglect import Reading, sample_curves
from n2kit.planning.planner import make_plan
from n2kit.plugins.blame import blaming
from n2kit.train import RunResult, train
from n2kit.train.run import CHECKPOINTS, RESULT
from n2kit.utils.device import pick_device

if TYPE_CHECKING:
    from n2kit.modeling.model import Model

TIMED = 32  # items whose embedding is timed, from files to vectors


@dataclass
class TrainedModel:
    """A model to evaluate, with its costs."""

    model: Model
    fingerprint: str
    costs: dict[str, float | int | None]


def run_cells(bench: BenchContext, cells: Sequence[Cell]) -> None:
    """Run cells that share a training, and write the row of each; a cell with an error is written as failed.

    Raises:
        KeyboardInterrupt: Ctrl-C; a training that was running has saved a checkpoint.
        StopError: the disk is full.
    """
    if cells[0].baseline is not None:
        from n2kit.bench.runner.baseline_run import run_baselines

        run_baselines(bench, cells)
        return
    start = bench.store.start_bundle(cells[0].run_key)
    try:
        with blaming():
            trained = _train_model(bench, cells[0], start)
    except Exception as problem:
        for cell in cells:
            bench.write(failed_row(bench, cell, problem))
        return
    for cell in cells:
        try:
            with blaming():
                row = _evaluate_cell(bench, cell, trained)
        except Exception as problem:
            row = failed_row(bench, cell, problem)
        bench.write(row)
    if not bench.keep_bundles:
        bench.store.drop_weights(cells[0].run_key)


def _train_model(bench: BenchContext, cell: Cell, start: Path) -> TrainedModel:
    assert cell.recipe is not None
    if not cell.trained:
        bench.emit(Phase("build"))
        model = from_plan(make_plan(cell.recipe, requested=cell.given)).to(pick_device(bench.device))
        return TrainedModel(model, f"untrained-{cell.run_key}", _size(model) | {"trained_parameters": 0})
    folder, data = bench.store.run_folder(cell.run_key), bench.data
    if (folder / RESULT).is_file() and not (folder / "bundle" / bundles.MANIFEST).is_file():
        shutil.rmtree(folder)  # its weights were not kept
    begun = time.perf_counter()
    if not (start / bundles.MANIFEST).is_file():  # also of a finished training: the run is identified by it
        bench.emit(Phase("build"))
        shutil.rmtree(start, ignore_errors=True)  # what a killed process left when it removed one
        bundles.save(from_plan(make_plan(cell.recipe, requested=cell.given)), start, force=True, by_reference=True)
    building = time.perf_counter() - begun
    bench.emit(Phase("train"))
    begun, before = time.perf_counter(), time.process_time()
    result = train(
        start, data.items, data.pairs, cell.recipe, folder, images=data.images, val_pairs=data.val_pairs,
        on_bad_image=data.on_bad_image, device=bench.device, report=lambda event: bench.emit(TrainingEvent(event)),
    )  # fmt: skip
    if result.interrupted:
        raise KeyboardInterrupt
    cpu = time.process_time() - before
    model = bundles.load(folder / "bundle").to(pick_device(bench.device))
    whole = building + time.perf_counter() - begun
    peak = _peak_memory_mb(pick_device(bench.device))
    costs = bench.store.training_costs(cell.run_key, lambda: _training_costs(result, whole, cpu, peak))
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    bench.store.drop(start)
    return TrainedModel(model, result.fingerprint, costs | _size(model))


def _training_costs(result: RunResult, whole: float, cpu: float, peak: float | None) -> dict[str, Any]:
    """Return the costs of a training; of a resumed one, those after the last checkpoint, scaled to all of its steps.

    Args:
        whole: seconds with building, saving and loading. cpu: of the training alone. peak: MB.
    """
    here = result.steps - (result.resumed_from or 0)
    scale = result.steps / here if here else None
    costs: dict[str, Any] = {
        "train_s": None if scale is None else round(result.seconds * scale, 2),
        "steps": result.steps,
    }
    if result.done_before:  # by a process that was killed before it had written what it cost
        return costs
    cpu_s = None if scale is None else round(cpu * scale, 2)
    return costs | {"train_cpu_s": cpu_s, "overhead_s": round(whole - result.seconds, 2), "peak_memory_mb": peak}


def _size(model: Model) -> dict[str, Any]:
    weights = list(model.parameters())
    trained = sum(p.numel() for p in weights if p.requires_grad)
    return {"parameters": sum(p.numel() for p in weights), "trained_parameters": trained}


def _evaluate_cell(bench: BenchContext, cell: Cell, trained: TrainedModel) -> CellRow:
    """Embed and evaluate a cell, write its ranks and vectors, and return its row."""
    data, model = bench.data, trained.model
    assert cell.recipe is not None
    folder = bench.store.cell_folder(cell.key)
    folder.mkdir(parents=True, exist_ok=True)
    items = (
        data.evaluated_items
        if cell.inference == "both"
        else data.evaluated_items.without(REMOVED_INPUT[cell.inference])
    )
    precision = cell.recipe.train.precision
    begun = time.perf_counter()
    stored = embed(
        model, trained.fingerprint, items, folder / VECTORS, images=data.images, force=True,
        on_bad_image=data.on_bad_image, precision=precision,
        progress=lambda done, total: bench.emit(Progress("embed", done, total)),
    )  # fmt: skip
    embedded = time.perf_counter() - begun
    embedded_ids = set(stored.ids)
    read = [item for item in items if item.id in embedded_ids]
    timed = ([item for item in read if item.id not in stored.skipped] or read)[:TIMED]
    encode(model, timed[:2], images=data.images, on_bad_image=data.on_bad_image, precision=precision)
    begun = time.perf_counter()
    encode(model, timed, images=data.images, on_bad_image=data.on_bad_image, precision=precision)
    pace = 1000 * (time.perf_counter() - begun) / len(timed)
    costs = trained.costs | {"embed_ms_item": round(pace, 3), "embed_s": round(embedded, 2)}
    found = evaluate_vectors(bench, cell, stored.ids, stored.vectors, stored.skipped)
    found |= _saliency(bench, cell, model, stored.skipped)
    return base_row(bench, cell).updated(**found, state=DONE, costs=costs)


def _saliency(bench: BenchContext, cell: Cell, model: Model, unreadable: Container[str]) -> dict[str, Any]:
    """Measure S_v, S_t and S_o by layer over pairs with both modalities, or say why not; empty where the matrix has no saliency."""
    data, sample = bench.data, bench.matrix.saliency
    if not sample or cell.inference != "both":
        return {}
    bench.emit(Phase("saliency"))
    whole = {item.id for item in data.items if item.image and item.has_text and item.id not in unreadable}
    kept = [pair for pair in data.test_pairs if whole.issuperset(pair)]
    reading = Reading(data.images, on_bad_image=data.on_bad_image)
    curves, reason = sample_curves(model, data.items, kept, data.test_pairs, reading, sample, bench.matrix.bootstrap, 0)
    if curves is None:
        return {"saliency": None, "no_saliency": reason}
    bounds = {"low": curves.low.tolist(), "high": curves.high.tolist(), "share": curves.shares.tolist()}
    return {"saliency": {"layers": curves.mean.tolist(), "items": curves.items} | bounds}


def _peak_memory_mb(device: torch.device) -> float | None:
    """Return the peak memory of this process in MB, of the GPU where it used one; None where the platform does not count it."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
