"""Loggers by name, through transformers' integrations; they get every log entry of a training."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from n2kit.errors import Unavailable
from n2kit.train import distributed


def require_packages(names: Iterable[str]) -> None:
    """Check that these loggers' packages are installed.

    Raises:
        Unavailable: one is not, with its pip line.
    """
    if lacking := [name for name in names if importlib.util.find_spec(name) is None]:
        extra = f"n2kit[{','.join(lacking)}]"
        raise Unavailable(f"train.loggers: not installed: {', '.join(lacking)}", f'pip install "{extra}"')


def loggers(names: Iterable[str], folder: Path, note: Callable[[str], None]) -> list[TrainerCallback]:
    """Make a callback for each logger, in the first process; TensorBoard's writes to `folder`.

    Raises:
        Unavailable: a package is not installed.
    """
    require_packages(names)
    return [Logger(name, folder, note) for name in names] if distributed.is_main() else []


class Logger(TrainerCallback):
    """A callback that forwards a training's beginning, every log entry and its end to a logger of transformers.

    One that cannot begin ends the run before its first step; one that fails later (a server that went away) is left out from
    then on, and `note` is called with the reason.

    Raises:
        Unavailable: at the beginning.
    """

    def __init__(self, name: str, folder: Path, note: Callable[[str], None]) -> None:
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        self.name, self.note = name, note
        self.inner: Any = INTEGRATION_TO_CALLBACK[name]()
        if name == "tensorboard":
            self.inner.logging_dir = str(folder)

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if problem := self._forward("on_train_begin", args, state, control, more):
            raise Unavailable(
                f"logger {self.name} cannot begin: {problem}", "leave it out, or set it up as it asks for"
            )

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._or_leave_out("on_log", args, state, control, more)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._or_leave_out("on_train_end", args, state, control, more)

    def _or_leave_out(self, event: str, args: Any, state: Any, control: Any, more: dict[str, Any]) -> None:
        if self.inner is not None and (problem := self._forward(event, args, state, control, more)):
            self.inner = None
            self.note(f"logger {self.name} is left out from step {state.global_step} on: {problem}")

    def _forward(self, event: str, args: Any, state: Any, control: Any, more: dict[str, Any]) -> str | None:
        """Call the logger, whose prints go to stderr; return why it failed, if it did."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                getattr(self.inner, event)(args, state, control, **more)
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return None
