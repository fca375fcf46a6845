"""Evaluation protocols: the pairs that are ranked, the pool that they are ranked in, and the report.

`notellm2` (NoteLLM-2, section 5.1): pairs one to one, and the pool is every item that is no query. `standard`: every pair counts,
a query may have several targets, and the pool is every item but the query itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from n2kit.errors import BadInput, counted
from n2kit.evaluate import bootstrap, metrics
from n2kit.evaluate.plugged_metrics import check_metrics, per_query_of_plugins
from n2kit.evaluate.ranks import rank_targets

Pair = tuple[str, str]
Protocol = Literal["notellm2", "standard"]
WHY_LEFT_OUT: dict[str, str] = {
    "notellm2": "one of their items is in a pair before them, and this protocol takes an item once",
    "standard": "they are there twice, or of an item and itself",
}
TIES = "pessimistic: an item that scores exactly as high as the target counts as ranked above it"


@dataclass(frozen=True)
class Figure:
    """One metric: its value under the tie policy, its interval (None without a bootstrap), and its value if ties were won."""

    value: float
    low: float | None
    high: float | None
    optimistic: float


@dataclass(frozen=True)
class RankingReport:
    """Ranks of the targets of `pairs` among `pool` items; 1-based.

    ranks: ties count against the target (pessimistic). optimistic: ties count for it.
    left_out: number of the given pairs that the protocol does not rank.
    further: metrics of plug-ins, computed beside `metrics.names`.
    """

    protocol: Protocol
    ks: tuple[int, ...]
    pairs: list[Pair]
    pool: int
    ranks: np.ndarray
    optimistic: np.ndarray
    left_out: int = 0
    further: tuple[str, ...] = ()

    @cached_property
    def owner(self) -> np.ndarray:
        """The number of each pair's query [P], in the order of their ids: the same whatever the order of the pairs."""
        return np.unique([a for a, _ in self.pairs], return_inverse=True)[1]

    @property
    def queries(self) -> int:
        return int(self.owner.max()) + 1

    @property
    def recall(self) -> dict[int, float]:
        return {k: self.at(k) for k in self.ks}

    def at(self, k: int, among: Collection[int] | None = None) -> float:
        """Compute recall@k over all pairs, or over those at the positions `among`; NaN over none."""
        rows = np.arange(len(self.pairs)) if among is None else np.array(sorted(among), np.int64)
        return float(self.values(rows, ks=(k,))[0].mean(0)[0]) if len(rows) else float("nan")

    def names(self, ks: Sequence[int]) -> list[str]:
        """List the metrics at these cut-offs, in the order of the table."""
        return [*metrics.names(ks), *self.further]

    def values(self, rows: np.ndarray | None = None, ks: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Compute values [Q, M] of `names` over the pairs at `rows`: under the tie policy, and if ties were won.

        A query's other targets are right too: where `rows` leave them out, they are left out of the ranking.
        """
        rows = np.arange(len(self.pairs)) if rows is None else rows
        owner = np.unique(self.owner[rows], return_inverse=True)[1]
        wanted, left_out = tuple(ks or self.ks), np.ones(len(self.pairs), bool)
        left_out[rows] = False
        among = [metrics.without(ranks, self.owner, left_out)[rows] for ranks in (self.ranks, self.optimistic)]
        both = [
            metrics.per_query(ranks, owner, wanted) | per_query_of_plugins(self.further, ranks, owner)
            for ranks in among
        ]
        names = self.names(wanted)
        pessimistic, optimistic = (np.stack([v[name] for name in names], 1) for v in both)
        return pessimistic, optimistic

    def figures(self, rows: np.ndarray | None = None, *, resamples: int = 0, seed: int = 0) -> dict[str, Figure]:
        """Compute every metric over the pairs at `rows`, with intervals over `resamples` bootstrap samples of their queries."""
        values, optimistic = self.values(rows)
        means, best = values.mean(0).tolist(), optimistic.mean(0).tolist()
        low, high = ([None] * len(means), [None] * len(means))
        if resamples:
            low, high = (bound.tolist() for bound in bootstrap.interval(values, resamples, seed))
        return {n: Figure(*f) for n, *f in zip(self.names(self.ks), means, low, high, best, strict=True)}

    def facts(self) -> dict[str, Any]:
        """Describe the evaluation behind the figures, for `--json`."""
        return {
            "protocol": self.protocol,
            "queries": self.queries,
            "pairs": len(self.pairs),
            "pairs_left_out": self.left_out,
            "pool": self.pool,
            "ties": TIES,
        }


def greedy_pairs(pairs: Iterable[Pair]) -> list[Pair]:
    """Keep a pair only if neither of its items has appeared in a kept pair, in file order."""
    seen: set[str] = set()
    kept = []
    for left, right in pairs:
        if left not in seen and right not in seen and left != right:
            kept.append((left, right))
            seen.update((left, right))
    return kept


def protocol_of(pairs: Iterable[Pair]) -> Protocol:
    """Choose a protocol by the data: `notellm2` for pairs one to one, `standard` where pairs share items."""
    every = all_pairs(pairs)
    return "notellm2" if len(greedy_pairs(every)) == len(every) else "standard"


def all_pairs(pairs: Iterable[Pair]) -> list[Pair]:
    """Keep every pair once, in file order, without pairs of an item with itself."""
    return list(dict.fromkeys((left, right) for left, right in pairs if left != right))


def ranked_pairs(pairs: Iterable[Pair], protocol: Protocol) -> list[Pair]:
    """Keep the pairs that a protocol ranks, in file order."""
    return greedy_pairs(pairs) if protocol == "notellm2" else all_pairs(pairs)


def evaluate(
    ids: Sequence[str],
    vectors: np.ndarray,
    pairs: Iterable[Pair],
    *,
    ks: Sequence[int] = (1, 10, 100),
    pool: Collection[str] | None = None,
    protocol: Protocol | Literal["auto"] = "notellm2",
    further: Sequence[str] = (),
) -> RankingReport:
    """Rank each target among the pool by dot product with its query.

    Args:
        ids: of the rows of `vectors` [n, d].
        pool: ids that may be found; default all. Targets always are; under `notellm2`, queries never.
        protocol: `auto` goes by the pairs, as `protocol_of` does.
        further: metrics of plug-ins.

    Raises:
        BadInput: an unknown metric, a pair whose item has no vector, no pairs, or a vector that is not finite.
    """
    check_metrics(further)
    position = {item_id: i for i, item_id in enumerate(ids)}
    given = list(pairs)
    if protocol == "auto":
        protocol = protocol_of(given)
    kept = ranked_pairs(given, protocol)
    if missing := [i for pair in kept for i in pair if i not in position]:
        raise BadInput(
            f"no vector for {counted(len(missing), 'id')} of the pairs, the first is {missing[0]!r}",
            "embed all items of the pairs, or --lenient drops such pairs",
        )
    if not kept:
        raise BadInput("no pairs to evaluate", "is this the right pairs file?")
    if not np.isfinite(vectors).all():
        broken = ids[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
        raise BadInput(f"the vector of {broken!r} is not finite", "embed again")
    allowed = set(ids) if pool is None else set(pool) | {right for _, right in kept}
    if protocol == "notellm2":
        allowed -= {left for left, _ in kept}
    pool_rows = np.array([i for i, item_id in enumerate(ids) if item_id in allowed])
    left, right = (np.array([position[pair[side]] for pair in kept]) for side in (0, 1))
    ranks = rank_targets(np.asarray(vectors, np.float32), left, right, pool_rows)
    return RankingReport(
        protocol,
        tuple(ks),
        kept,
        len(pool_rows),
        ranks.pessimistic,
        ranks.optimistic,
        len(given) - len(kept),
        tuple(further),
    )
