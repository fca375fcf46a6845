"""The context that all tasks of a matrix share; it is sent to other processes."""

from __future__ import annotations

from dataclasses import dataclass

from n2kit.bench.cell_row import FAILED, CellRow
from n2kit.bench.events import Emit, RowWritten, ignore
from n2kit.bench.matrix.cell import Cell
from n2kit.bench.matrix.commands import commands
from n2kit.bench.matrix.data import BenchData
from n2kit.bench.matrix.spec import MatrixSpec
from n2kit.bench.runner.store import Store
from n2kit.errors import N2kitError, Unavailable
from n2kit.utils.files import is_disk_full


class StopError(Unavailable):
    """An error that stops the whole bench and fails no cell: a full disk, a node that does not see the folder."""


def disk_full(store: Store) -> StopError:
    """Return the error of a full disk."""
    return StopError(f"{store.root}: no space left", "free some space; the same command goes on")


def one_line(problem: BaseException) -> str:
    """Write an error in one line; of one of n2kit's that lists things, the first of them."""
    if not isinstance(problem, N2kitError):
        return f"{type(problem).__name__}: {problem}".splitlines()[0]
    head, *listed = problem.message.splitlines()
    return f"{head}: {listed[0].strip()}" + " …" * (len(listed) > 1) if listed else head


@dataclass(frozen=True)
class BenchContext:
    """The matrix, its data, its folder, and the options that all cells share."""

    matrix: MatrixSpec
    data: BenchData
    store: Store
    device: str | None = None
    keep_bundles: bool = False
    emit: Emit = ignore

    def write(self, row: CellRow) -> None:
        """Write a cell's row, and emit that it is.

        Raises:
            StopError: the disk is full.
        """
        try:
            self.store.write(row)
        except OSError as problem:
            if is_disk_full(problem):
                raise disk_full(self.store) from problem
            raise
        self.emit_row(row)

    def emit_row(self, row: CellRow) -> None:
        """Emit that a cell is over."""
        self.emit(RowWritten(row.key, row.arm, row.seed, row.state))

    def mark_crashed(self, cell: Cell, reason: str) -> None:
        """Write the row of a cell whose process ended before it wrote one."""
        command = commands(cell, self.matrix, self.store.root)
        row = self.store.new_row(cell).updated(data=self.data.digests, command=command)
        self.write(row.updated(state=FAILED, reason=reason, hint="--retry-failed runs it again"))
