"""Who runs the cells: this process, one training after the other."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from n2kit.bench.cells import Cell

if TYPE_CHECKING:
    from n2kit.bench.run import Bench

Say = Callable[[dict[str, Any]], None]


def pending(bench: Bench, cells: Iterable[Cell], *, only: str | None = None, retry: bool = False) -> list[Cell]:
    """The cells that are still to be run; refused ones get their row here."""
    open_ = []
    for cell in cells:
        if cell.refusal is not None:
            bench.store.write(bench.store.row(cell))
            continue
        row = bench.store.read(cell)
        if row is not None and (row["state"] == "done" or (row["state"] == "failed" and not retry)):
            continue
        if only is None or any(fnmatch.fnmatchcase(name, only) for name in (cell.arm, cell.key)):
            open_.append(cell)
    return open_


def together(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells by the training that they share, in their order."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.run_key, []).append(cell)
    return list(groups.values())


def run_here(bench: Bench, cells: Sequence[Cell], say: Say) -> None:
    """Run cells one after the other in this process."""
    from n2kit.bench.run import run_together

    done = 0
    for group in together(cells):
        say({"event": "cell", "arm": group[0].arm, "seed": group[0].seed, "done": done, "total": len(cells)})
        run_together(bench, group, say)
        done += len(group)
    say({"event": "end", "done": done, "total": len(cells)})
