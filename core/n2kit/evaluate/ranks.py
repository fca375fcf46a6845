"""Exact ranks by counting: in blocks, without sorting, the same whatever the order of the rows or the size of the blocks.

A matrix product gives each score in float32, and its last bits depend on where in a block the score stands. So the product only
decides what is decided beyond its error bound (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); what is
nearer to the target's score is computed again in float64, in one fixed order. Equal vectors thus tie always.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

QUERIES, POOL = 256, 16384  # rows of a block of scores and its columns: 16 MB
UNIT = 2.0**-24  # the rounding error of float32


class Ranks(NamedTuple):
    """Ranks [P] of P targets, from 1.

    optimistic: what ties with a target stands below it. pessimistic: above it. A query's other targets always keep a place of
    their own, so that a query with three targets on top has the ranks 1, 2 and 3.
    """

    optimistic: np.ndarray
    pessimistic: np.ndarray


def rank_targets(vectors: np.ndarray, queries: np.ndarray, targets: np.ndarray, pool: np.ndarray) -> Ranks:
    """Rank targets [P] among `pool` by dot product with their queries [P]; all three are rows of `vectors` [n, d].

    Every target must be in the pool. A query that is in the pool is left out of its own candidates, by identity.
    """
    own = exact(vectors, queries, targets)
    above, level = _counts(vectors, queries, own, pool)
    inside = np.isin(queries, pool)
    itself = exact(vectors, queries[inside], queries[inside])
    above[inside] -= itself > own[inside]
    level[inside] -= itself == own[inside]
    return _places(queries, own, above, above + level)


def exact(vectors: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Compute the dot products [P], float64, of rows `left` and `right`: products without error, sums in one fixed order."""
    out = np.empty(len(left))
    for start in range(0, len(left), QUERIES):
        rows = slice(start, start + QUERIES)
        out[rows] = (vectors[left[rows]].astype(np.float64) * vectors[right[rows]]).sum(-1)
    return out


def _counts(
    vectors: np.ndarray, queries: np.ndarray, own: np.ndarray, pool: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count the items of the pool that score more than `own` [P], and those that score just as much."""
    distinct, owner = np.unique(queries, return_inverse=True)
    pairs = np.argsort(owner, kind="stable")  # pairs of one query stand together
    bounds = np.searchsorted(owner[pairs], np.arange(0, len(distinct) + QUERIES, QUERIES))
    size = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)).astype(np.float64)
    error = 1.01 * (vectors.shape[1] + 2) * UNIT * size[queries] * size[pool].max(initial=0.0)
    low = np.nextafter((own - error).astype(np.float32), np.float32(-np.inf))
    high = np.nextafter((own + error).astype(np.float32), np.float32(np.inf))
    above, level = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)
    for start in range(0, len(pool), POOL):
        columns = pool[start : start + POOL]
        candidates = np.asarray(vectors[columns], np.float32).T
        for block, first in enumerate(range(0, len(distinct), QUERIES)):
            scores = np.asarray(vectors[distinct[first : first + QUERIES]], np.float32) @ candidates
            for pair in pairs[bounds[block] : bounds[block + 1]]:
                row = scores[owner[pair] - first]
                more, near = int(np.count_nonzero(row > high[pair])), int(np.count_nonzero(row >= low[pair]))
                if near > more:
                    close = columns[(row >= low[pair]) & (row <= high[pair])]
                    again = exact(vectors, np.broadcast_to(queries[pair], close.shape), close)
                    more += int((again > own[pair]).sum())
                    level[pair] += int((again == own[pair]).sum())
                above[pair] += more
    return above, level


def _places(queries: np.ndarray, own: np.ndarray, above: np.ndarray, at_least: np.ndarray) -> Ranks:
    """Compute ranks [P] from counts [P] over the whole pool: each target's place among its query's targets, plus the other items above."""
    order = np.lexsort((-own, queries))
    group, score = queries[order], own[order]
    index = np.arange(len(order))
    starts = np.r_[True, group[1:] != group[:-1]]
    first = np.maximum.accumulate(np.where(starts, index, 0))
    breaks = np.flatnonzero(np.r_[starts | np.r_[True, score[1:] != score[:-1]], True])
    run = np.searchsorted(breaks, index, side="right") - 1
    place = index - first + 1
    own_above, own_at_least = breaks[run] - first, breaks[run + 1] - first
    ranks = Ranks(np.empty_like(above), np.empty_like(above))
    ranks.optimistic[order] = above[order] - own_above + place
    ranks.pessimistic[order] = at_least[order] - own_at_least + place
    return ranks
