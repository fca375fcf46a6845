"""stdout is n2kit's data alone: what plug-ins and libraries print while a command runs, from C too, goes to stderr."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from n2kit_cli.floods import CappedStderr, capped_warnings
from n2kit_cli.output import data_streams


@contextlib.contextmanager
def stdout_for_data() -> Iterator[None]:
    """Give stdout, and file descriptor 1, to stderr inside the `with` block; `data()` alone is what they were."""
    ours = sys.stdout
    with contextlib.suppress(OSError, ValueError):
        ours.flush()
    kept = _moved_aside()
    stream = _reopened(kept, ours) if kept is not None and _number(ours) == 1 else ours
    data_streams.append(stream)
    failed = True
    try:
        with contextlib.redirect_stdout(CappedStderr()), capped_warnings():
            yield
        failed = False
    finally:
        data_streams.pop()
        try:
            with contextlib.suppress(*[OSError] * failed):  # its own error is to be seen
                stream.flush()
        finally:
            if kept is not None:
                os.dup2(kept, 1)
                with contextlib.suppress(OSError):  # a reader that has gone, once more
                    stream.close() if stream is not ours else os.close(kept)


def keep_stdout(command: Any) -> None:
    """Let a command, and those below it, run with `stdout_for_data`."""
    for below in getattr(command, "commands", {}).values():
        keep_stdout(below)
    if not hasattr(command, "commands") and command.callback is not None:
        command.callback = _with_own_stdout(command.callback)


def _with_own_stdout(callback: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(callback)
    def call(*args: Any, **kwargs: Any) -> Any:
        with stdout_for_data():
            return callback(*args, **kwargs)

    return call


def _moved_aside() -> int | None:
    """Let file descriptor 1 be that of stderr; return what it was, None where it was closed."""
    try:
        kept = os.dup(1)
    except OSError:
        return None
    try:
        os.dup2(2, 1)
    except OSError:  # no stderr either
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    return kept


def _reopened(number: int, like: TextIO) -> TextIO:
    buffering = 1 if like.isatty() else -1
    return open(number, "w", encoding=like.encoding, errors=like.errors, buffering=buffering)


def _number(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):  # in memory, or closed
        return None
