"""What all tasks of a matrix share; it travels to other processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from n2kit.bench.matrix.cell import Cell
from n2kit.bench.matrix.commands import commands
from n2kit.bench.matrix.data import BenchData
from n2kit.bench.matrix.spec import MatrixSpec
from n2kit.bench.runner.store import Store
from n2kit.errors import N2kitError, Unavailable
from n2kit.utils.files import no_room


class StopError(Unavailable):
    """Nothing can go on here, and no cell is to blame: a full disk, a node that does not see the folder."""


Emit = Callable[[dict[str, Any]], None]


def disk_full(store: Store) -> StopError:
    """The disk is."""
    return StopError(f"{store.root}: no space left", "free some space; the same command goes on")


def ignore(event: dict[str, Any]) -> None:
    """Takes what is said to no one."""


def one_line(problem: BaseException) -> str:
    """An error in one line."""
    message = problem.message if isinstance(problem, N2kitError) else f"{type(problem).__name__}: {problem}"
    return message.splitlines()[0]


@dataclass(frozen=True)
class BenchContext:
    """What all cells share."""

    matrix: MatrixSpec
    data: BenchData
    store: Store
    device: str | None = None
    keep_bundles: bool = False
    emit: Emit = ignore

    def write(self, row: dict[str, Any]) -> None:
        """Write a cell's row, and tell. Raises StopError if the disk is full."""
        try:
            self.store.write(row)
        except OSError as problem:
            if no_room(problem):
                raise disk_full(self.store) from problem
            raise
        self.emit_row(row)

    def emit_row(self, row: dict[str, Any]) -> None:
        """Say that a cell is over."""
        self.emit({"event": "row", "key": row["key"], "arm": row["arm"], "seed": row["seed"], "state": row["state"]})

    def mark_crashed(self, cell: Cell, reason: str) -> None:
        """A cell whose process is gone."""
        failed = {"state": "failed", "reason": reason, "hint": "--retry-failed runs it again"}
        self.write(
            self.store.new_row(cell)
            | {"data": self.data.digests, "command": commands(cell, self.matrix, self.store.root)}
            | failed
        )
