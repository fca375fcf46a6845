"""How a matrix is watched: a bar over all cells and one for each process, or a line for each cell."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from n2kit_cli.output import EVERY_SECONDS, bars_on_stderr, fancy, say

Report = Callable[[dict[str, Any]], None]


@contextmanager
def watching(events: Report | None) -> Iterator[Report]:
    """What is told to whoever watches a bench; `events` takes it as it is."""
    if events is not None:
        yield events
    elif fancy(sys.stderr):
        with _bars() as report:
            yield report
    else:
        yield _Lines()


def remark(event: Mapping[str, Any], name: str) -> str | None:
    """What is said of an event in words; None for those that only move a bar."""
    kind = event["event"]
    if kind == "matrix":
        refused = f", {event['refused']} refused" if event["refused"] else ""
        return f"{event['cells']} cells, {event['open']} to run{refused}"
    if kind == "interrupt":
        return "stopping after this step (again to stop at once)"
    if kind == "note":
        return f"{name}: {event['text']}" if name else f"note: {event['text']}"
    if kind == "warning":
        return f"{name}: plug-in {event['plugin']}: {event['error']}"
    return None


def where(event: Mapping[str, Any]) -> tuple[int, int, str] | None:
    """How far a task is: done, of how many, and a note."""
    if event["event"] == "step":
        loss = f"loss {event['loss']:.3f} · " if "loss" in event else ""
        return event["step"], event["steps"], f"{loss}{event['eta_s']:.0f} s left"
    if event["event"] == "progress":
        return event["done"], event["total"], str(event["phase"])
    return None


class _Lines:
    """A line for each cell that is over, and now and then one for what is running."""

    def __init__(self) -> None:
        self.total = self.over = 0
        self.names: dict[int, str] = {}
        self.last = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        worker = event.get("worker", 0)
        name = self.names.get(worker, "")
        if (text := remark(event, name)) is not None:
            say(text)
        if event["event"] == "matrix":
            self.total = event["open"]
        elif event["event"] == "task":
            self.names[worker] = event["name"]
        elif event["event"] == "row":
            self.over += 1
            self.last = time.monotonic()
            say(f"{self.over}/{self.total} {event['state']}: {event['arm']} #{event['seed']}")
        elif (at := where(event)) is not None and time.monotonic() - self.last >= EVERY_SECONDS:
            self.last = time.monotonic()
            say(f"{self.over}/{self.total} … {name} {at[0]}/{at[1]} {at[2]}")


@contextmanager
def _bars() -> Iterator[Report]:
    with bars_on_stderr() as bars:
        whole = bars.add_task("cells", total=None, note="")
        workers: dict[int, Any] = {}
        names: dict[int, str] = {}

        def report(event: dict[str, Any]) -> None:
            worker = event.get("worker", 0)
            kind = event["event"]
            if (text := remark(event, names.get(worker, ""))) is not None:
                bars.console.print(text, highlight=False, markup=False)
            if kind == "matrix":
                bars.update(whole, total=event["open"])
            elif kind == "row":
                bars.advance(whole)
            elif kind == "task":
                names[worker] = event["name"]
                if worker not in workers:
                    workers[worker] = bars.add_task("", total=None, note="")
                bars.reset(workers[worker], total=None, description=event["name"], note="", visible=True)
            elif kind == "task_end" and worker in workers:
                bars.update(workers[worker], visible=False)
            elif (at := where(event)) is not None:
                bars.update(workers[worker], completed=at[0], total=at[1], note=at[2])

        yield report
