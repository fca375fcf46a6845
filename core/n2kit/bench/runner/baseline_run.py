"""The run of baselines: those of one language model together, which share its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from n2kit.bench.baselines.baselines import run_baseline
from n2kit.bench.baselines.frozen import FrozenFeatures
from n2kit.bench.cell_row import DONE
from n2kit.bench.events import Phase
from n2kit.bench.matrix.baseline_names import baseline_of
from n2kit.bench.runner.rows import base_row, evaluate_vectors, failed_row
from n2kit.bench.runner.store import VECTORS
from n2kit.embed.encode import Encoded
from n2kit.embed.vectors_file import write_vectors
from n2kit.errors import Failed
from n2kit.plugins.blame import blaming

if TYPE_CHECKING:
    from n2kit.bench.cell_row import CellRow
    from n2kit.bench.matrix.cell import Cell
    from n2kit.bench.runner.context import BenchContext


def run_baselines(bench: BenchContext, cells: Sequence[Cell]) -> None:
    """Run baselines one after the other, and write the row of each."""
    frozen = FrozenFeatures()
    for cell in cells:
        bench.emit(Phase(f"baseline {cell.baseline}"))
        try:
            with blaming():
                row = _run(bench, cell, frozen)
        except Exception as problem:
            row = failed_row(bench, cell, problem)
        bench.write(row)


def _run(bench: BenchContext, cell: Cell, frozen: FrozenFeatures) -> CellRow:
    data = bench.data
    assert cell.baseline is not None
    taken = {kind: cell.axes[kind] for kind in baseline_of(cell.baseline).takes}
    made = run_baseline(
        cell.baseline, items=data.items, pairs=data.pairs, val_pairs=data.val_pairs, images=data.images, seed=cell.seed,
        settings=bench.matrix.settings, device=bench.device, on_bad_image=data.on_bad_image, frozen=frozen, **taken,
    )  # fmt: skip
    wanted = [n for n, item_id in enumerate(made.ids) if item_id in data.evaluated_items]
    if not wanted:
        raise Failed("no item that could be read", "--on-bad-image text-only")
    ids, vectors = [made.ids[n] for n in wanted], np.ascontiguousarray(made.vectors[wanted])
    folder = bench.store.cell_folder(cell.key)
    folder.mkdir(parents=True, exist_ok=True)
    write_vectors(Encoded(ids, vectors, None, made.skipped), f"baseline-{cell.key}", folder / VECTORS)
    found = evaluate_vectors(bench, cell, ids, vectors, made.skipped)
    return base_row(bench, cell).updated(**found, state=DONE, costs=made.costs, notes=made.notes)
