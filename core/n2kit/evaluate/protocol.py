"""The paper's evaluation (NoteLLM-2, section 5.1): one-to-one pairs, the whole catalogue as the pool, Recall@k."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from n2kit.errors import BadInput

CHUNK = 1024  # queries at a time: a [CHUNK, pool] block of scores is all that is held


@dataclass(frozen=True)
class Report:
    """Recall by k over `queries` queries in a pool of `pool` items; `ranks` are 1-based, one a kept pair."""

    recall: dict[int, float]
    queries: int
    pool: int
    pairs: list[tuple[str, str]]
    ranks: np.ndarray

    def at(self, k: int, among: Collection[int] | None = None) -> float:
        """Recall@k over all kept pairs, or over those at the positions given."""
        ranks = self.ranks if among is None else self.ranks[list(among)]
        return float((ranks <= k).mean()) if len(ranks) else float("nan")

    def to_dict(self) -> dict[str, Any]:
        return {
            "recall": {str(k): v for k, v in self.recall.items()},
            "queries": self.queries,
            "pool": self.pool,
            "protocol": "notellm2",
            "ties": "pessimistic: an item that scores as high as the target counts as ranked above it",
        }


def greedy_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Keep a pair only if neither of its items has appeared in a kept pair, in file order."""
    seen: set[str] = set()
    kept = []
    for left, right in pairs:
        if left not in seen and right not in seen and left != right:
            kept.append((left, right))
            seen.update((left, right))
    return kept


def evaluate(
    ids: Sequence[str],
    vectors: np.ndarray,
    pairs: Iterable[tuple[str, str]],
    *,
    ks: Sequence[int] = (1, 10, 100),
    pool: Collection[str] | None = None,
) -> Report:
    """Rank each target among the pool by dot product with its query.

    Args:
        ids: of the rows of `vectors` [n, d].
        pool: ids that may be found; default all. Kept queries are never in it; kept targets always are.

    Raises:
        BadInput: a pair whose item has no vector, or no pairs.
    """
    position = {item_id: i for i, item_id in enumerate(ids)}
    kept = greedy_pairs(pairs)
    if missing := [i for pair in kept for i in pair if i not in position]:
        raise BadInput(
            f"{len(missing)} ids of the pairs have no vector, the first is {missing[0]!r}",
            "embed all items of the pairs, or --lenient drops such pairs",
        )
    if not kept:
        raise BadInput("no pairs to evaluate", "is this the right pairs file?")
    if not np.isfinite(vectors).all():
        broken = ids[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
        raise BadInput(f"the vector of {broken!r} is not finite", "embed again")
    queries = {left for left, _ in kept}
    allowed = set(ids) if pool is None else set(pool) | {right for _, right in kept}
    pool_rows = np.array([i for i, item_id in enumerate(ids) if item_id in allowed and item_id not in queries])
    ranks = _ranks(vectors, [position[a] for a, _ in kept], [position[b] for _, b in kept], pool_rows)
    recall = {k: float((ranks <= k).mean()) for k in ks}
    return Report(recall, len(kept), len(pool_rows), kept, ranks)


def _ranks(vectors: np.ndarray, left: list[int], right: list[int], pool: np.ndarray) -> np.ndarray:
    """1 + the number of other pool items that score at least as high as the target; exact, without sorting."""
    places = np.full(len(vectors), -1)
    places[pool] = np.arange(len(pool))
    candidates = np.ascontiguousarray(vectors[pool], dtype=np.float32)
    ranks = np.empty(len(left), dtype=np.int64)
    for start in range(0, len(left), CHUNK):
        rows = slice(start, start + CHUNK)
        scores = np.asarray(vectors[left[rows]], dtype=np.float32) @ candidates.T
        own = scores[np.arange(len(scores)), places[right[rows]]]
        ranks[rows] = (scores >= own[:, None]).sum(1)
    return ranks
