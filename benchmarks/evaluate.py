"""Ranks by counting (n2kit) against ranks by a full argsort of the pool for every query (the paper's code), on the same vectors.

Both arms run in this process, one after the other and by turns, and must give the same ranks:

    python benchmarks/evaluate.py [--queries 2000] [--pool 100000] [--width 64] [--repeat 3] [--json]

The vectors are small whole numbers, so that float32 scores are exact in both arms, and ties are plenty. One thread for the
matrix products: set OMP_NUM_THREADS=1 to leave other cores alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from bisect import bisect_left

import numpy as np

from n2kit.evaluate.ranks import rank_targets

TOGETHER = 64  # queries of the argsort arm at a time: its order takes eight bytes a score


def data(queries: int, pool: int, width: int) -> np.ndarray:
    """Vectors [queries + pool, width]: row n of the pool is like query n."""
    rng = np.random.default_rng(0)
    left = rng.integers(-200, 201, (queries, width))
    right = rng.integers(-200, 201, (pool, width))
    right[:queries] = left // 4 + right[:queries] // 2
    return np.concatenate([left, right]).astype(np.float32)


def counted(vectors: np.ndarray, queries: int) -> np.ndarray:
    rows = np.arange(queries)
    return rank_targets(vectors, rows, rows + queries, np.arange(queries, len(vectors))).pessimistic


def sorted_out(vectors: np.ndarray, queries: int) -> np.ndarray:
    """Pessimistic ranks from the whole order of each query's pool."""
    pool, ranks = vectors[queries:], np.empty(queries, np.int64)
    for start in range(0, queries, TOGETHER):
        scores = vectors[start : min(start + TOGETHER, queries)] @ pool.T
        order = np.argsort(scores, axis=1)
        for row, (ascending, score) in enumerate(zip(order, scores, strict=True)):
            ranks[start + row] = len(pool) - bisect_left(ascending, score[start + row], key=lambda n, s=score: s[n])
    return ranks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("queries", 2000), ("pool", 100_000), ("width", 64), ("repeat", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.queries > options.pool:
        parser.error("every query has a target in the pool: --queries at most --pool")
    vectors = data(options.queries, options.pool, options.width)
    seconds: dict[str, list[float]] = {"argsort": [], "counting": []}
    for _ in range(options.repeat):
        ranks = {}
        for name, arm in (("argsort", sorted_out), ("counting", counted)):
            start = time.perf_counter()
            ranks[name] = arm(vectors, options.queries)
            seconds[name].append(time.perf_counter() - start)
        assert np.array_equal(ranks["argsort"], ranks["counting"]), "the two arms disagree"
    best = {name: min(values) for name, values in seconds.items()}
    result = {
        "queries": options.queries,
        "pool": options.pool,
        "width": options.width,
        "seconds": seconds,
        "ratio": best["argsort"] / best["counting"],
        "equal_ranks": True,
        "mean_rank": float(ranks["counting"].mean()),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "numpy": np.__version__,
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    print(f"{options.queries} queries, pool of {options.pool}, width {options.width}; best of {options.repeat}")
    for name, value in best.items():
        print(f"{name:<10} {value:8.2f} s")
    print(f"ratio      {result['ratio']:8.1f} x, equal ranks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
