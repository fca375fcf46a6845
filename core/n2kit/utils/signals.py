"""Another handler of signals for a while."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def signal_handlers(handler: Callable[..., Any], *numbers: signal.Signals) -> Iterator[None]:
    """Let `handler` have these signals; outside the main thread, where Python allows none, nothing is changed."""
    try:
        before = {number: signal.signal(number, handler) for number in numbers}
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
