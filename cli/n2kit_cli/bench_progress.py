"""A bench on the terminal: a bar over all cells and one for each process, or a line for each cell."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from n2kit.errors import counted
from n2kit_cli.output import fancy, printable, say
from n2kit_cli.progress import EVERY_SECONDS, bars_on_stderr

if TYPE_CHECKING:
    from n2kit.bench.events import BenchEvent, Emit


@contextmanager
def watching(events: Emit | None) -> Iterator[Emit]:
    """Give the callback that takes a bench's events: `events` where there is one, else one that shows them on stderr."""
    if events is not None:
        yield events
    elif fancy(sys.stderr):
        with _bars() as emit:
            yield emit
    else:
        yield _Lines()


def remark(event: BenchEvent, name: str) -> str | None:
    """Put an event of the task `name` into words; None for those that only move a bar."""
    from n2kit.bench.events import Interrupted, MatrixStarted, Note

    if isinstance(event, MatrixStarted):
        refused = f", {event.refused} refused" if event.refused else ""
        return f"{counted(event.cells, 'cell')}, {event.open} to run{refused}"
    if isinstance(event, Interrupted):
        return "stopping after this step (again to stop at once)"
    if isinstance(event, Note):
        return _note(event.text, name)
    return _training_remark(event.to_json(), name)


def _training_remark(values: dict[str, Any], name: str) -> str | None:
    kind = values["event"]
    if kind == "interrupt":
        return "stopping after this step (again to stop at once)"
    if kind == "note":
        return _note(values["text"], name)
    if kind == "warning":
        return f"{name}: plug-in {values['plugin']}: {values['error']}"
    return None


def _note(text: str, name: str) -> str:
    return f"{name}: {text}" if name else f"note: {text}"


def position(event: BenchEvent) -> tuple[int, int, str] | None:
    """Return the progress of a task: done, of how many, and a note; None if the event says nothing of it."""
    values = event.to_json()
    if values["event"] == "step":
        loss = f"loss {values['loss']:.3f} · " if "loss" in values else ""
        return values["step"], values["steps"], f"{loss}{values['eta_s']:.0f} s left"
    if values["event"] == "progress":
        return values["done"], values["total"], str(values["phase"])
    return None


class _Lines:
    """A line for each cell that is over, and now and then one for a task that is running."""

    def __init__(self) -> None:
        self.total = self.over = 0
        self.names: dict[int, str] = {}
        self.last = time.monotonic()

    def __call__(self, event: BenchEvent) -> None:
        from n2kit.bench.events import MatrixStarted, RowWritten, TaskStarted

        worker = event.worker or 0
        name = self.names.get(worker, "")
        if (text := remark(event, name)) is not None:
            say(text)
        if isinstance(event, MatrixStarted):
            self.total = event.open
        elif isinstance(event, TaskStarted):
            self.names[worker] = event.name
        elif isinstance(event, RowWritten):
            self.over += 1
            self.last = time.monotonic()
            say(f"{self.over}/{self.total} {event.state}: {event.arm} #{event.seed}")
        elif (at := position(event)) is not None and time.monotonic() - self.last >= EVERY_SECONDS:
            self.last = time.monotonic()
            say(f"{self.over}/{self.total} … {name} {at[0]}/{at[1]} {at[2]}")


@contextmanager
def _bars() -> Iterator[Emit]:
    from n2kit.bench.events import MatrixStarted, RowWritten, TaskEnded, TaskStarted

    with bars_on_stderr() as bars:
        whole = bars.add_task("cells", total=None, note="")
        workers: dict[int, Any] = {}
        names: dict[int, str] = {}

        def emit(event: BenchEvent) -> None:
            worker = event.worker or 0
            if (text := remark(event, names.get(worker, ""))) is not None:
                bars.console.print(printable(text, keep="\n"), highlight=False, markup=False)
            if isinstance(event, MatrixStarted):
                bars.update(whole, total=event.open)
            elif isinstance(event, RowWritten):
                bars.advance(whole)
            elif isinstance(event, TaskStarted):
                names[worker] = event.name
                if worker not in workers:
                    workers[worker] = bars.add_task("", total=None, note="")
                bars.reset(workers[worker], total=None, description=event.name, note="", visible=True)
            elif isinstance(event, TaskEnded) and worker in workers:
                bars.update(workers[worker], visible=False)
            elif (at := position(event)) is not None:
                bars.update(workers[worker], completed=at[0], total=at[1], note=at[2])

        yield emit
