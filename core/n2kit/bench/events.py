"""The events of a bench that runs: what `--json` writes as NDJSON, a line each, and what a callback is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class BenchEvent:
    """One thing that happened. `worker` is the number of the process that it happened in; None for the bench's own."""

    kind: ClassVar[str]
    worker: int | None = field(default=None, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Return the event as a line of NDJSON holds it, its kind under `event`."""
        fields = {name: value for name, value in asdict(self).items() if name != "worker"}
        return {"event": self.kind} | fields | ({} if self.worker is None else {"worker": self.worker})


@dataclass(frozen=True)
class MatrixStarted(BenchEvent):
    """Cells of the matrix: all of them, those to be run, and those that cannot be."""

    kind = "matrix"
    cells: int
    open: int
    refused: int


@dataclass(frozen=True)
class TaskStarted(BenchEvent):
    """A process begins with cells that share a training, or with the features of an encoder."""

    kind = "task"
    name: str


@dataclass(frozen=True)
class TaskEnded(BenchEvent):
    """A process has ended, well or not."""

    kind = "task_end"
    name: str


@dataclass(frozen=True)
class Phase(BenchEvent):
    """A task goes over to its next part: build, train, …"""

    kind = "phase"
    phase: str


@dataclass(frozen=True)
class Progress(BenchEvent):
    """A phase has done some of its items."""

    kind = "progress"
    phase: str
    done: int
    total: int


@dataclass(frozen=True)
class RowWritten(BenchEvent):
    """A cell is over, and its row is written."""

    kind = "row"
    key: str
    arm: str
    seed: int
    state: str


@dataclass(frozen=True)
class Note(BenchEvent):
    """A remark for people."""

    kind = "note"
    text: str


@dataclass(frozen=True)
class Interrupted(BenchEvent):
    """The bench was asked to stop, and lets running tasks come to a good end."""

    kind = "interrupt"


@dataclass(frozen=True)
class TrainingEvent(BenchEvent):
    """An event of the training in a task, as `n2kit.train` reports it."""

    kind = "training"
    values: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return dict(self.values) | ({} if self.worker is None else {"worker": self.worker})


@dataclass(frozen=True)
class Finished(BenchEvent):
    """The matrix is through: how many cells are in which state, and the files of the report."""

    kind = "result"
    out: str
    done: int
    failed: int
    refused: int
    open: int
    files: list[str]


@dataclass(frozen=True)
class Crashed(BenchEvent):
    """A task's last message to its bench, which reports it no further.

    stops: no other task can go on either, as on a full disk.
    """

    kind = "crash"
    reason: str
    hint: str = ""
    stops: bool = False


Emit = Callable[[BenchEvent], None]


def ignore(event: BenchEvent) -> None:
    """Drop an event."""
