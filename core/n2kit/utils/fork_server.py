"""Processes that start in no time, each with a heap of its own: forks of one that has imported what they need, and done nothing with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import TYPE_CHECKING

from n2kit.utils.signals import signal_handlers

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

# Where the platform's own libraries do not bear a fork, a new interpreter.
METHOD = "forkserver" if sys.platform.startswith("linux") else "spawn"
SAFE = "PYTHONSAFEPATH"


def forks_of(preload: Sequence[str]) -> BaseContext:
    """Return multiprocessing's context whose processes are forks of one with these modules; that one is started, unless it runs already."""
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload(list(preload))
        # Inherited: Ctrl-C while it imports is no traceback of its own.
        with signal_handlers(signal.SIG_IGN, signal.SIGINT), _safe_path():
            forkserver.ensure_running()
    return context


@contextmanager
def _safe_path() -> Iterator[None]:
    """Let a new interpreter take no module out of the current folder: what lies there is data."""
    before = os.environ.get(SAFE)
    os.environ[SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE]
        else:
            os.environ[SAFE] = before
