"""Progress of a long work: elapsed, done of how many, and the time left, from the first batch on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from n2kit_cli.output import fancy, say

if TYPE_CHECKING:
    from rich.progress import Progress, Task

EVERY_SECONDS = 30.0  # a line of progress this often where stderr is no terminal


class Pace:
    """The speed of a work since it began, not of its last seconds: a batch may take longer than any window.

    Where `done` falls, or the total changes, another work has begun. A call in which nothing was done says where the work starts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.born = self.start = self.last = clock()
        self.base = self.done = 0.0
        self.total: float | None = None

    def update(self, done: float, total: float | None) -> None:
        """Take note of `done` of `total`."""
        now = self.clock()
        if self.total is not None and (total != self.total or done < self.done):
            self.start, self.base = self.last, 0.0
        if done in (0, self.done):
            self.start, self.base = now, done
        self.done, self.total, self.last = done, total, now

    @property
    def left(self) -> float | None:
        """The seconds that are left, at the speed so far; None before anything was done."""
        if self.total is None or self.done <= self.base or self.last <= self.start:
            return None
        waited = self.clock() - self.last
        pace = (self.last - self.start) / (self.done - self.base)
        return max(0.0, pace * (self.total - self.done) - waited)

    def __str__(self) -> str:
        left = self.left
        return duration(self.clock() - self.born) + ("" if left is None else f", {duration(left)} left")


def duration(seconds: float) -> str:
    """Write seconds as `0:07`, `12:30` or `3:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def bars_on_stderr() -> Progress:
    """Make progress bars for a terminal, to be entered as a context; every task has a field `note`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class PaceColumn(ProgressColumn):
        """Elapsed and left: by the task's own pace, or by what the bar has shown so far."""

        paces: dict[int, Pace]

        def render(self, task: Task) -> Text:
            pace = task.fields.get("pace")
            if pace is None:
                pace = self.paces.setdefault(task.id, Pace())
                if (task.completed, task.total) != (pace.done, pace.total):
                    pace.update(task.completed, task.total)
            return Text(str(pace))

    column = PaceColumn()
    column.paces = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), column)
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))


@contextmanager
def progress(what: str) -> Iterator[Any]:
    """Yield a function (done, total, note="") that shows progress: a bar on a terminal, a line now and then elsewhere."""
    pace = Pace()
    if fancy(sys.stderr):
        with bars_on_stderr() as bars:
            task = bars.add_task(what, total=None, note="", pace=pace)

            def draw(done: int, total: int, note: str = "") -> None:
                pace.update(done, total)
                bars.update(task, completed=done, total=total, note=note)

            yield draw
        return
    last = [time.monotonic()]
    first = [True]

    def line(done: int, total: int, note: str = "") -> None:
        pace.update(done, total)
        long = first[0] and (pace.left or 0) > EVERY_SECONDS  # said at once: whoever waits may go and come back
        if done >= total or long or time.monotonic() - last[0] >= EVERY_SECONDS:
            last[0], first[0] = time.monotonic(), False
            say(f"{what}: {done}/{total} ({pace}) {note}".rstrip())

    yield line
