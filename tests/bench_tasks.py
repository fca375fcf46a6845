"""Tasks that end badly; in a module of their own, for the processes that run them import it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from n2kit.bench.runner.context import BenchContext, StopError
from n2kit.bench.runner.tasks import Task


@dataclass(frozen=True)
class Killed(Task):
    """As by the kernel when memory is short."""

    def perform(self, bench: BenchContext) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Broken(Task):
    """Raises an error that cells do not handle."""

    def perform(self, bench: BenchContext) -> None:
        raise RuntimeError("nobody saw that coming")


@dataclass(frozen=True)
class Full(Task):
    """Finds the disk full."""

    def perform(self, bench: BenchContext) -> None:
        raise StopError("No space left on device", "free some space; the same command goes on")


@dataclass(frozen=True)
class Works(Task):
    """Writes rows as a cell does."""

    def perform(self, bench: BenchContext) -> None:
        for cell in self.cells:
            bench.write(bench.store.new_row(cell).updated(state="done"))
