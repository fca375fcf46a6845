"""The output of n2kit bench: the cells of a matrix before they are run, and their rows afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.errors import counted
from n2kit_cli.output import event, say, table

if TYPE_CHECKING:
    from n2kit.bench import BenchResult
    from n2kit.bench.cell_row import CellRow
    from n2kit.bench.runner.scheduler import Preview


def show_preview(seen: Preview) -> None:
    """Show each arm with the state of its seeds, why it is refused, and what cells share."""
    arms: dict[tuple[str, str], list[int]] = {}
    for cell, state in zip(seen.cells, seen.states, strict=True):
        same = f" (= {', '.join(cell.also)})" if cell.also else ""
        arms.setdefault((cell.arm + same, state), []).append(cell.seed)
    said = {"open": "to run", "kept": "to measure (its vectors are kept)"}
    rows = [(arm, ", ".join(map(str, seeds)), said.get(state, state)) for (arm, state), seeds in arms.items()]
    table(("arm", "seeds", "state"), rows)
    for arm, refusal in {cell.arm: cell.refusal for cell in seen.cells if cell.refusal is not None}.items():
        say(f"refused: {arm}: {refusal[0]} ({refusal[1]})")
    shared = f"{counted(seen.states.count('open'), 'cell')} to run, with {counted(seen.trainings, 'training')}"
    say(shared + (f"; features are computed once for {', '.join(seen.encoders)}" if seen.encoders else ""))
    if seen.note is not None:
        say(f"note: {seen.note}")


def preview_document(seen: Preview, seconds: float | None) -> dict[str, Any]:
    """Write a preview as `--json` has it."""
    listed = [
        {"arm": c.arm, "seed": c.seed, "key": c.key, "run_key": c.run_key, "state": state}
        | ({"reason": c.refusal[0], "hint": c.refusal[1]} if c.refusal else {})
        for c, state in zip(seen.cells, seen.states, strict=True)
    ]
    notes = [*([seen.note] if seen.note else []), *(seen.estimate.notes if seen.estimate else [])]
    shared = {"trainings": seen.trainings, "towers": seen.encoders}
    return {"cells": listed} | shared | {"seconds": seconds, "notes": notes}


def show_result(result: BenchResult, read: dict[str, Any] | None) -> None:
    """Show the rows; or under `--json` the last event, with what the items file has."""
    from n2kit.bench.events import Finished

    if result.report_problem is not None:
        say(result.report_problem)
    files = [str(file) for file in result.report]
    if read is not None:
        event(Finished(str(result.out), **result.counts, files=files).to_json() | {"read": read})
    else:
        _show_rows(result.rows, result.out)
    if result.skipped is not None:
        say(f"items and rows that could not be used are in {result.skipped}")
    counts = ", ".join(f"{count} {state}" for state, count in result.counts.items() if count)
    say(f"{counts}: {', '.join(files) or result.out}")


def _show_rows(rows: Sequence[CellRow], out: Path) -> None:
    """Show the arms that are done, best first, with a summary; then the cells that are not done, and why."""
    if any(row.state == "done" for row in rows):
        from n2kit.bench.report import aggregate, read_results, summary, warning
        from n2kit.bench.report import table as columns_and_rows

        board = aggregate(read_results(out))
        table(*columns_and_rows(board))
        say(" ".join(summary(board)))
        if alert := warning(board):
            say(alert)
    seeds_of: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        if row.state in ("failed", "refused"):
            seeds_of.setdefault((row.state, row.arm, row.reason, row.hint), []).append(str(row.seed))
    for (state, arm, reason, hint), seeds in seeds_of.items():
        say(f"{state}: {arm}, seed {', '.join(seeds)}: {reason}" + (f" ({hint})" if hint else ""))
