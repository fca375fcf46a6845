"""Exits and threads of plug-ins: `os._exit` is an error of theirs, and a thread that fails, or never ends, is named."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from n2kit_cli.output import say

SECONDS = 2.0  # for a thread to end, before its name is said


@contextlib.contextmanager
def plugins_contained() -> Iterator[None]:
    """Let no plug-in end the process past all that is to be done, and say whose thread has failed.

    `os._exit(0)` in a forward pass would otherwise look like a command that has done its work. In other processes, which a plug-in
    may have forked, it is what it was.
    """
    leave, say_failure, process = os._exit, threading.excepthook, os.getpid()

    def caught(code: int) -> None:
        from n2kit.plugins.blame import running_plugin

        if os.getpid() == process and running_plugin(sys._getframe(1), deep=1) is not None:
            raise SystemExit(f"os._exit({code})")
        leave(code)

    def named(failed: Any) -> None:
        from n2kit.plugins.blame import blame

        if failed.exc_value is not None and (theirs := blame(failed.exc_value)) is not None:
            say(f"warning: in a thread: {theirs.message}; {theirs.hint}")
        else:
            say_failure(failed)

    os._exit, threading.excepthook = caught, named  # type: ignore[assignment]
    try:
        yield
    finally:
        if os._exit is caught:
            os._exit = leave
        if threading.excepthook is named:
            threading.excepthook = say_failure


def name_waiting_threads() -> None:
    """Say which plug-ins' threads keep the process from ending; a thread that is no daemon is to be waited for."""
    others = [t for t in threading.enumerate() if not t.daemon and t is not threading.current_thread()]
    for thread in others:
        thread.join(SECONDS / len(others))
    frames = sys._current_frames() if others else {}
    for thread in filter(threading.Thread.is_alive, others):
        from n2kit.plugins.blame import running_plugin  # only now: no other command pays for it

        if (owner := running_plugin(frames.get(thread.ident or 0))) is not None:
            say(f"note: all is done, but for {thread.name} of {owner}, which is waited for; Ctrl-C ends it")
