"""Python's collector of cycles, out of the way where it finds nothing: a fourth of the CPU time of a short command."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause it while modules are imported or a model is loaded: what is made stays, and it would look through all of it again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def leave_all_at_exit() -> None:
    """Have the process end without a last look for cycles: everything goes with it."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
