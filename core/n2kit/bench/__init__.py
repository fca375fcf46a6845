"""A matrix of combinations, trained and evaluated on the same data: `n2kit bench` as a call.

    result = n2kit.bench.run("matrix.yaml", "bench/mine", jobs=2)

Importing this package imports nothing heavy: the names below come when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from n2kit.utils.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from n2kit.bench.api import BenchResult as BenchResult
    from n2kit.bench.api import PreparedBench as PreparedBench
    from n2kit.bench.api import prepare as prepare
    from n2kit.bench.api import run as run

_HOMES = {"n2kit.bench.api": "BenchResult PreparedBench prepare run"}
__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOMES)  # pyright: ignore[reportUnsupportedDunderAll]
