"""Events of a training: a class each, and the JSON that `events.jsonl` and `--json` show of them.

`EventHandler` takes that JSON, since events also come from other processes and out of files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

EventHandler = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Event:
    """Something that happened in a training; `kind` is the `event` of its JSON."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return the event's fields by name, without those that are None."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "values"}
        known = {name: value for name, value in named.items() if value is not None}
        return {"event": self.kind} | known | getattr(self, "values", {})


@dataclass(frozen=True)
class StartEvent(Event):
    """The training begins, or goes on, after `step` of `steps`."""

    kind: ClassVar[str] = "start"
    step: int
    steps: int
    precision: str  # and why it was chosen
    grad_cache: int | None = None  # items encoded at a time; None: all
    processes: int | None = None  # None: one


@dataclass(frozen=True)
class LogEvent(Event):
    """Numbers as of `step`, each under its own name in the JSON."""

    step: int
    steps: int
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StepEvent(LogEvent):
    """Losses by term since the last such event, learning rate, gradient norm, speed and memory."""

    kind: ClassVar[str] = "step"


@dataclass(frozen=True)
class RecallEvent(LogEvent):
    """Metrics of a validation as `eval_NAME`, and the best step so far."""

    kind: ClassVar[str] = "recall"


@dataclass(frozen=True)
class NoteEvent(Event):
    """A remark for people."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class WarningEvent(Event):
    """The hook of a plug-in failed, which harms nobody's training."""

    kind: ClassVar[str] = "warning"
    plugin: str
    error: str
    author: str | None = None  # where to tell it


@dataclass(frozen=True)
class InterruptEvent(Event):
    """A signal asks the training to stop after this step."""

    kind: ClassVar[str] = "interrupt"
