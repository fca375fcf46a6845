"""Floods: of what a plug-in prints or warns of, the first lines are shown, and then once that there is more."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

from n2kit_cli.output import say

LINES, WARNINGS = 200, 10  # of one plug-in in one command

_shown: Counter[tuple[str, str]] = Counter()


def allowed(what: str, most: int, count: int = 1) -> bool:
    """Tell whether one more thing of the plug-in whose code is running may be shown; say once that no more are."""
    from n2kit.plugins.blame import running_plugin

    owner = running_plugin(sys._getframe(2))
    if owner is None:
        return True
    before = _shown[owner, what]
    _shown[owner, what] += count
    if before < most <= before + count:
        say(f"note: {owner}: {most} {what} are shown, and no more of them")
    return before < most


class CappedStderr:
    """A stdout whose lines go to stderr; of each plug-in, a number of them."""

    def write(self, text: str) -> int:
        if allowed("lines that it prints", LINES, text.count("\n")):
            sys.stderr.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


@contextlib.contextmanager
def capped_warnings() -> Iterator[None]:
    """Show the first warnings of each plug-in alone, those of `warnings` and those that a program without loggers prints."""
    _shown.clear()
    show, last = warnings.showwarning, logging.lastResort

    def capped(*args: Any, **more: Any) -> None:
        if allowed("warnings", WARNINGS):
            show(*args, **more)

    def first(record: logging.LogRecord) -> bool:
        return allowed("warnings", WARNINGS)

    warnings.showwarning = capped
    if last is not None:
        last.addFilter(first)
    try:
        yield
    finally:
        if warnings.showwarning is capped:
            warnings.showwarning = show
        if last is not None:
            last.removeFilter(first)
