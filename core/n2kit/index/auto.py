"""The choice of an index by measurement: an approximate one only where it finds the same, and is faster or smaller."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.index.choice import choose_index
from n2kit.index.store import index_source

if TYPE_CHECKING:
    from n2kit.contract.index import Index
    from n2kit.embed.reading import VectorSource
    from n2kit.index.folder import StoredIndex

AUTO = "auto"
OVERLAP = 0.99  # of the first K with exact search, that an approximate index has to reach
K, QUERIES = 100, 500
CLEARLY = 0.8  # of the exact index's time or size, at most: less is not worth any miss
CANDIDATES: tuple[tuple[str, tuple[dict[str, Any], ...]], ...] = (
    ("sq8", ({},)),
    ("ivf", ({"probes": 16}, {"probes": 64}, {"probes": 128})),
    ("hnsw", ({"depth": 128}, {"depth": 256}, {"depth": 512})),
)


@dataclass(frozen=True)
class Measured:
    """An index that was tried: overlap@k with exact search, milliseconds a query, and megabytes on disk."""

    name: str
    options: dict[str, Any]
    overlap: float
    milliseconds: float
    megabytes: float
    taken: bool = False


def choose_by_measuring(source: VectorSource, where: str) -> tuple[StoredIndex, list[Measured]]:
    """Build the exact index and approximate ones, and return the best with all measurements, the exact one's first.

    The fastest of those that find at least 99 % of the exact index's neighbours, and are clearly faster or smaller; else the exact one.
    """
    exact = index_source(source, choose_index("flat"), where)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(exact.ids), min(QUERIES, len(exact.ids)), replace=False))
    queries = np.stack([exact.index.vector(int(row)) for row in rows])
    k = min(K, len(exact.ids))
    first, truth = _measure("flat", {}, exact.index, queries, k, None)
    best, found = (first, exact), [first]
    for name, variants in CANDIDATES:
        for measured, made in _tried(source, where, name, variants, queries, k, truth):
            found.append(measured)
            fits = measured.overlap >= OVERLAP
            gains = min(measured.milliseconds / first.milliseconds, measured.megabytes / first.megabytes) <= CLEARLY
            if fits and gains and (best[0] is first or measured.milliseconds < best[0].milliseconds):
                best = (measured, made)
            if fits:
                break  # more would only be slower
    taken = Measured(**{**vars(best[0]), "taken": True})
    return best[1], [taken if one is best[0] else one for one in found]


def _tried(
    source: VectorSource,
    where: str,
    name: str,
    variants: tuple[dict[str, Any], ...],
    queries: np.ndarray,
    k: int,
    truth: np.ndarray,
) -> Iterator[tuple[Measured, StoredIndex]]:
    for options in variants:
        made = index_source(source, choose_index(name, options), where)
        yield _measure(name, options, made.index, queries, k, truth)[0], made


def _measure(
    name: str, options: dict[str, Any], index: Index, queries: np.ndarray, k: int, truth: np.ndarray | None
) -> tuple[Measured, np.ndarray]:
    begun = time.perf_counter()
    _, rows = index.search(queries, k)
    milliseconds = 1000 * (time.perf_counter() - begun) / len(queries)
    same = [len(np.intersect1d(a, b)) for a, b in zip(rows, rows if truth is None else truth, strict=True)]
    with tempfile.TemporaryDirectory(prefix="n2kit-") as folder:
        index.save(Path(folder))
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    return Measured(name, options, float(np.mean(same)) / k, milliseconds, size), rows
