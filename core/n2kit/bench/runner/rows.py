"""The rows of cells: their inputs, and their results."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from n2kit.bench.cell_row import FAILED, CellRow
from n2kit.bench.matrix import keys
from n2kit.bench.matrix.cell import Cell
from n2kit.bench.matrix.commands import commands
from n2kit.bench.runner.context import BenchContext, disk_full
from n2kit.errors import SHOWN, Failed, N2kitError
from n2kit.evaluate import RankingReport, buckets, evaluate
from n2kit.evaluate.export import write_ranks
from n2kit.utils.device import pick_device
from n2kit.utils.files import is_disk_full


def base_row(bench: BenchContext, cell: Cell) -> CellRow:
    """Return a cell's row with all that is known before its result: data, versions, device, command."""
    packages = ("n2kit", "torch", "transformers", "timm", "peft")
    return bench.store.new_row(cell).updated(
        data=bench.data.digests,
        versions={"python": platform.python_version()} | {name: keys.installed(name) for name in packages},
        threads=torch.get_num_threads(),
        device=str(pick_device(bench.device)),
        command=commands(cell, bench.matrix, bench.store.root),
    )


def failed_row(bench: BenchContext, cell: Cell, problem: Exception) -> CellRow:
    """Return the row of a cell that ended in an error; an unexpected one leaves a traceback file.

    Raises:
        StopError: the disk is full, which is no cell's fault.
    """
    if is_disk_full(problem):
        raise disk_full(bench.store) from problem
    if isinstance(problem, N2kitError):
        reason, hint = problem.message, problem.hint or ""
        if "--on-bad-image" in hint:
            hint += ", with another -o: the results are then about other data"
    else:
        reason = f"{type(problem).__name__}: {problem}".splitlines()[0]
        file = bench.store.cell_folder(cell.key) / "traceback.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(traceback.format_exception(problem)), "utf8")
        hint = f"{file} shows where"
    return base_row(bench, cell).updated(state=FAILED, reason=reason, hint=hint)


def evaluate_vectors(
    bench: BenchContext, cell: Cell, ids: list[str], vectors: Any, skipped: Mapping[str, str]
) -> dict[str, Any]:
    """Measure vectors [n, D] on the test pairs, write the ranks beside them, and return the fields of the row.

    Args:
        skipped: item id → why it was not read as it is.

    Raises:
        Failed: no test pair is left of whose items both have a vector.
    """
    matrix, data, have = bench.matrix, bench.data, set(ids)
    kept = [pair for pair in data.test_pairs if have.issuperset(pair)]
    if not kept:
        raise Failed("no test pair whose two items could both be read", "--on-bad-image text-only")
    pool = None if data.pool is None else have.intersection(data.pool)
    report = evaluate(ids, vectors, kept, ks=matrix.ks, pool=pool, protocol=matrix.protocol, further=matrix.metrics)
    write_ranks(report, bench.store.cell_folder(cell.key) / "ranks.parquet")
    figures = report.figures(resamples=matrix.bootstrap)
    return {
        "metrics": {name: asdict(figure) for name, figure in figures.items()},
        "buckets": _buckets(report, bench),
        "queries": report.queries,
        "pool": report.pool,
        "pairs_beyond": report.left_out,  # that the protocol has no place for
        "pairs_left_out": len(data.test_pairs) - len(kept),
        "items_skipped": len(skipped),
        "skipped": list(skipped.values())[:SHOWN],  # all are in vectors.parquet
    }


def _buckets(report: RankingReport, bench: BenchContext) -> list[dict[str, Any]]:
    found = []
    for bucket in buckets(report.pairs, bench.data.items, bench.data.pairs):
        figures = report.figures(bucket.rows, resamples=bench.matrix.bootstrap)
        counts = {"pairs": len(bucket.rows), "queries": len(set(report.owner[bucket.rows].tolist()))}
        metrics = {name: asdict(figure) for name, figure in figures.items()}
        found.append({"name": bucket.name, "rule": bucket.rule} | counts | {"metrics": metrics})
    return found
