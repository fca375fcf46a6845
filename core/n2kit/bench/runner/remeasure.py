"""New measures of finished cells, as after another `--k`: their figures are computed from the kept vectors."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from n2kit.bench.cell_row import DONE
from n2kit.bench.events import Note
from n2kit.bench.runner.rows import base_row, evaluate_vectors, failed_row
from n2kit.bench.runner.store import VECTORS
from n2kit.embed import read_vectors
from n2kit.errors import BadInput

if TYPE_CHECKING:
    from n2kit.bench.cell_row import CellRow
    from n2kit.bench.matrix.cell import Cell
    from n2kit.bench.runner.context import BenchContext

KEPT = ("costs", "notes", "device", "threads", "versions")  # fields that measuring does not change
CURVES = ("saliency", "no_saliency")


def remeasure(bench: BenchContext, cells: Sequence[Cell], kept: Mapping[str, str]) -> list[Cell]:
    """Measure the cells that have vectors, write their rows, and return those that are still to be run.

    Args:
        kept: `Store.kept_vectors()`. Vectors that cannot be read are computed again, with a note.

    Raises:
        StopError: the disk is full.
    """
    left = []
    for cell in cells:
        if (source := cell.source(kept)) is None:
            left.append(cell)
            continue
        try:
            row = _measured(bench, cell, source)
        except BadInput as problem:
            bench.emit(Note(f"{problem.message}; {cell.arm} is run again"))
            left.append(cell)
            continue
        except Exception as problem:
            row = failed_row(bench, cell, problem)
        bench.write(row)
    return left


def _measured(bench: BenchContext, cell: Cell, source: str) -> CellRow:
    """Return the row of a cell, by the vectors and the costs of the cell `source`."""
    before, folder = bench.store.cell_folder(source), bench.store.cell_folder(cell.key)
    vectors = read_vectors(before / VECTORS)
    folder.mkdir(parents=True, exist_ok=True)
    if source != cell.key:  # else its ranks were lost
        shutil.copyfile(before / VECTORS, folder / VECTORS)
    old = bench.store.read_row(source)
    found = evaluate_vectors(bench, cell, vectors.ids, vectors.vectors, vectors.skipped)
    names = KEPT + CURVES * bool(bench.matrix.saliency)
    kept = {name: getattr(old, name) for name in names if name in old.model_fields_set}
    return base_row(bench, cell).updated(**found, **kept, state=DONE)
