"""Metrics of a ranking, one value a query: each reported figure is their mean, which is what a bootstrap over queries needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def names(ks: Sequence[int]) -> list[str]:
    """List the metrics, in the order of the table."""
    return [*(f"recall@{k}" for k in ks), "mrr", *(f"ndcg@{k}" for k in ks), "mean_rank"]


def without(ranks: np.ndarray, owner: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Compute ranks [P] after the targets `left_out` [P] are removed from their queries' rankings.

    Args:
        ranks: [P] 1-based, no two of a query equal. owner: [P] each rank's query.
    """
    if not left_out.any():
        return ranks
    order = np.lexsort((ranks, owner))
    gone = np.cumsum(left_out[order])
    starts = np.flatnonzero(np.r_[True, np.diff(owner[order]) != 0])
    before = np.repeat(np.r_[0, gone][starts], np.diff(np.r_[starts, len(order)]))  # of other queries
    closer = ranks.copy()
    closer[order] -= gone - before
    return closer


def per_query(ranks: np.ndarray, owner: np.ndarray, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Compute the values [Q] of every metric for Q queries.

    recall@k: the share of a query's targets among the first k. mrr: 1 ÷ the rank of its best target. ndcg@k: binary gains,
    discount 1 / log2(1 + rank) (Järvelin and Kekäläinen 2002). mean_rank: the mean over its targets.

    Args:
        ranks: [P] 1-based. owner: [P] each rank's query, 0 … Q-1, each there at least once.
    """
    count = np.bincount(owner)
    discount = 1 / np.log2(1.0 + ranks)
    ideal = np.r_[0.0, np.cumsum(1 / np.log2(1.0 + np.arange(1, count.max(initial=0) + 1)))]
    best = np.full(len(count), np.iinfo(np.int64).max)
    np.minimum.at(best, owner, ranks)
    values = {f"recall@{k}": np.bincount(owner, ranks <= k) / count for k in ks}
    values["mrr"] = 1 / best
    for k in ks:
        values[f"ndcg@{k}"] = np.bincount(owner, np.where(ranks <= k, discount, 0.0)) / ideal[np.minimum(count, k)]
    return values | {"mean_rank": np.bincount(owner, ranks) / count}
