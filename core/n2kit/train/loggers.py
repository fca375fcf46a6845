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
from n2kit.plugins.registries import find
from n2kit.train import distributed

OWN = ("tensorboard", "wandb", "mlflow")


def require_packages(names: Iterable[str]) -> None:
    """Check that there are these loggers, and that their packages are installed.

    Raises:
        BadInput: an unknown name. Unavailable: a package is not installed, with its pip line.
    """
    names = list(names)
    for name in names:
        if name not in OWN:
            find("logger", name, OWN, "train.loggers").load()
    if lacking := [name for name in names if name in OWN and importlib.util.find_spec(name) is None]:
        extra = f"n2kit[{','.join(lacking)}]"
        raise Unavailable(f"train.loggers: not installed: {', '.join(lacking)}", f'pip install "{extra}"')


def loggers(names: Iterable[str], folder: Path, note: Callable[[str], None]) -> list[TrainerCallback]:
    """Make a callback for each logger, in the first process; TensorBoard's writes to `folder`.

    Raises:
        Unavailable: a package is not installed.
    """
    require_packages(names)
    return [Logger(name, folder, note) for name in names] if distributed.is_main() else []


class PluggedLogger:
    """A plug-in's logger in the words of transformers' callbacks."""

    def __init__(self, name: str, folder: Path) -> None:
        self.entry, self.folder = find("logger", name, OWN), folder
        self.inner: Any = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.inner = self.entry.load()(self.folder)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        self.inner.log(state.global_step, dict(logs or {}))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.inner.end()


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
        if name not in OWN:
            self.inner: Any = PluggedLogger(name, folder.parent)
            return
        self.inner = INTEGRATION_TO_CALLBACK[name]()
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
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # an exit, too
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return None
