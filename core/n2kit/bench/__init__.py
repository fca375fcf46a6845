"""A matrix of combinations, trained and evaluated on the same data: `n2kit bench` as a call.

    result = n2kit.bench.run("matrix.yaml", "bench/mine", jobs=2)

Importing this package imports nothing heavy: the names below come when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n2kit.bench.api import BenchResult as BenchResult
    from n2kit.bench.api import PreparedBench as PreparedBench
    from n2kit.bench.api import prepare as prepare
    from n2kit.bench.api import run as run

__all__ = ["BenchResult", "PreparedBench", "prepare", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'n2kit.bench' has no attribute {name!r}")
    return getattr(importlib.import_module("n2kit.bench.api"), name)
