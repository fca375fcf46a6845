"""A function in a process of its own: Ray's driver and compiled code can end the process that they run in, without a word."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, which a module of `tests` or of n2kit holds, in a new process; what it raises is raised here.

    Raises:
        BrokenProcessPool: the process has ended.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
