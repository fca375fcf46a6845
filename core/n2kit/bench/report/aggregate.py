"""Cells → arms: averages over seeds with intervals, and which arms can be told apart from the best.

Two things move a figure: which queries were asked, and which seed the model was trained with. They are kept apart:

- **The interval is over queries.** Each query's value is averaged over the seeds first; the percentile bootstrap then draws queries.
  It answers: where would the mean of *these* trained models lie on other queries? Averaging first keeps a query's seeds together,
  which are far from independent; drawing (query, seed) pairs as if they were would make the interval too narrow.
- **Seeds are shown, not drawn.** With three seeds a bootstrap over seeds knows ten different draws and understates their variance by a
  third. The values of the seeds stand beside the interval, with their range.
- **Against the best.** A paired bootstrap over queries, on the same averages, gives the difference of each arm from the best one;
  p-values are corrected for the number of arms (Holm 1979). The best was itself picked on these queries, which makes it look a little
  better than it is: what is "not separable" is so in spite of that. A difference that holds over queries is still marked where the
  two arms' ranges over seeds overlap, since another seed might turn it round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from n2kit.bench.cell_row import DONE, Axes, CellRow
from n2kit.bench.report.read import Ranking, Results, read_ranking
from n2kit.errors import BadInput
from n2kit.evaluate import bootstrap, metrics
from n2kit.evaluate.plugged_metrics import OWN, REGISTRY, per_query_of_plugins
from n2kit.plugins.registries import registered

ALPHA = 0.05
RESAMPLES = 2000
RESAMPLES_PER_ARM = (
    100  # resamples of the comparison for each arm, if that is more: so that the smallest p survives the correction
)
Verdict = Literal["best", "not separable", "seeds overlap", "separable", "other queries"]


@dataclass(frozen=True)
class MeanInterval:
    """A mean over seeds and queries, its 95 % interval over queries, and each seed's own mean, by seed."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds; None of one seed."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else None


@dataclass(frozen=True)
class Difference:
    """An arm's difference from another one: paired interval over queries, p-value, and p after the correction."""

    value: float
    low: float
    high: float
    p: float
    corrected: float

    @property
    def separable(self) -> bool:
        return self.corrected < ALPHA


@dataclass
class ArmResult:
    """All finished seeds of an arm. `values` [Q, M]: each query's metrics, averaged over the seeds."""

    label: str
    axes: Axes
    rows: list[CellRow]
    ranking: Ranking  # of its first seed
    values: np.ndarray
    figures: dict[str, MeanInterval]
    difference: Difference | None = None
    verdict: Verdict = "other queries"

    @property
    def seeds(self) -> list[int]:
        return [row.seed for row in self.rows]

    @property
    def queries(self) -> int:
        return len(self.values)

    @property
    def baseline(self) -> bool:
        return self.axes.baseline is not None

    @property
    def trained(self) -> bool:
        """True for a joined model that was trained."""
        return self.axes.trained and not self.baseline

    @cached_property
    def costs(self) -> dict[str, float]:
        """The costs that were measured, each averaged over the seeds."""
        names = {name: None for row in self.rows for name in row.costs}
        measured = {n: [c for row in self.rows if (c := row.costs.get(n)) is not None] for n in names}
        return {name: float(np.mean(values)) for name, values in measured.items() if values}


@dataclass
class Leaderboard:
    """The arms of a matrix, best first by `metric`; those on other queries last."""

    results: Results
    metric: str
    metrics: list[str]
    arms: list[ArmResult]
    resamples: int
    planned: int | None = None
    absent: Sequence[str] = ()  # metrics that all rows have, of plug-ins that are not here
    by_label: dict[str, ArmResult] = field(init=False)

    def __post_init__(self) -> None:
        self.by_label = {arm.label: arm for arm in self.arms}

    @property
    def best(self) -> ArmResult | None:
        return self.arms[0] if self.arms else None

    @property
    def comparable(self) -> list[ArmResult]:
        return [arm for arm in self.arms if arm.verdict != "other queries"]

    @property
    def most_seeds(self) -> int:
        return max((len(arm.rows) for arm in self.arms if arm.trained), default=0)


def aggregate(results: Results, metric: str | None = None, *, seed: int = 0, planned: int | None = None) -> Leaderboard:
    """Average the finished cells over their seeds and compare every arm with the best.

    Args:
        metric: by which arms are ordered and compared; default recall at the middle cut-off.
        seed: of the bootstrap.
        planned: how many cells the matrix has, where more are to come.

    Raises:
        BadInput: ranks that cannot be read; a metric that was not measured.
    """
    done = results.of(DONE)
    ks = cutoffs(done)
    further, absent = further_metrics(done)
    names = [*metrics.names(ks), *further]
    metric = metric or main_metric(ks)
    if done and metric not in names:
        raise BadInput(f"no metric {metric!r}", f"there are: {', '.join(names)}")
    by_arm: dict[str, list[CellRow]] = {}
    for row in done:
        by_arm.setdefault(row.arm, []).append(row)
    resamples = max(RESAMPLES, RESAMPLES_PER_ARM * len(by_arm))
    arms = [_arm(label, rows, ks, names, further, seed) for label, rows in by_arm.items()]
    if arms:
        arms = _judge(arms, names.index(metric), _better(metric), resamples, seed)
    return Leaderboard(results, metric, names, arms, resamples, planned, absent)


def cutoffs(rows: Sequence[CellRow]) -> list[int]:
    """Return the k of recall@k that all rows have."""
    found = [{int(n.removeprefix("recall@")) for n in row.metrics if n.startswith("recall@")} for row in rows]
    return sorted(set.intersection(*found)) if found else []


def further_metrics(rows: Sequence[CellRow]) -> tuple[list[str], list[str]]:
    """Return the metrics of plug-ins that all rows have: those that can be computed here, and the others."""
    found = [[name for name in row.metrics if name.partition("@")[0] not in OWN] for row in rows]
    common = [name for name in (found[0] if found else []) if all(name in names for names in found)]
    here = registered(REGISTRY) if common else {}
    return [name for name in common if name in here], [name for name in common if name not in here]


def main_metric(ks: Sequence[int]) -> str:
    return f"recall@{ks[len(ks) // 2]}" if ks else "mrr"


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's step-down method (1979), which bounds the chance of any false rejection by the level."""
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p)[order] * factors))
    return [float(value) for value in out]


def paired_differences(base: np.ndarray, others: Sequence[np.ndarray], resamples: int, seed: int) -> list[Difference]:
    """Compare each of `others` with `base`, all of them values [Q] of the same queries; p is corrected for their number."""
    if not others:
        return []
    found = bootstrap.paired(base[:, None], np.stack(others, 1), resamples, seed)
    return [Difference(*map(float, g)) for g in zip(*found, holm(found.p.tolist()), strict=True)]


def query_values(ranking: Ranking, ks: Sequence[int], further: Sequence[str] = ()) -> np.ndarray:
    """Compute each query's metrics: [Q, M] in the order of `metrics.names(ks)`, then plug-ins', queries in the order of their ids."""
    owner = np.unique([query for query, _ in ranking.pairs], return_inverse=True)[1]
    values = metrics.per_query(ranking.ranks, owner, ks) | per_query_of_plugins(further, ranking.ranks, owner)
    return np.stack([values[name] for name in (*metrics.names(ks), *further)], 1)


def seeds_overlap(a: MeanInterval, b: MeanInterval) -> bool:
    """Tell whether the ranges over seeds overlap."""
    return min(a.seeds) <= max(b.seeds) and min(b.seeds) <= max(a.seeds)


def _arm(
    label: str, rows: list[CellRow], ks: Sequence[int], names: Sequence[str], further: Sequence[str], seed: int
) -> ArmResult:
    ranking = [read_ranking(row) for row in rows]
    for row, ranks in zip(rows, ranking, strict=True):
        if not same_task(ranks, ranking[0]):
            what = f"{row.ranks_file}: other pairs or another pool than {rows[0].ranks_file}"
            raise BadInput(what, "seeds of one arm must be asked the same: remove one of the two cells' folders")
    each = np.stack([query_values(ranks, ks, further) for ranks in ranking])
    values = each.mean(0)
    low, high = bootstrap.interval(values, RESAMPLES, seed)
    of_seeds = each.mean(1)
    figures = {
        name: MeanInterval(float(values[:, n].mean()), float(low[n]), float(high[n]), tuple(map(float, of_seeds[:, n])))
        for n, name in enumerate(names)
    }
    return ArmResult(label, rows[0].axes, rows, ranking[0], values, figures)


def same_task(a: Ranking, b: Ranking) -> bool:
    return (a.pairs, a.pool, a.protocol) == (b.pairs, b.pool, b.protocol)


def _better(metric: str) -> float:
    """Return 1 where more is better, −1 where less is."""
    return -1.0 if metric == "mean_rank" else 1.0


def _judge(arms: list[ArmResult], column: int, sign: float, resamples: int, seed: int) -> list[ArmResult]:
    """Order the arms and give each its verdict against the best."""
    questions = Counter((arm.ranking.pairs, arm.ranking.pool, arm.ranking.protocol) for arm in arms)
    usual = questions.most_common(1)[0][0]
    name = list(arms[0].figures)[column]
    ordered = sorted(arms, key=lambda arm: (-sign * arm.figures[name].value, arm.label))
    same = [arm for arm in ordered if (arm.ranking.pairs, arm.ranking.pool, arm.ranking.protocol) == usual]
    best, *rest = same
    best.verdict = "best"
    found = paired_differences(best.values[:, column], [arm.values[:, column] for arm in rest], resamples, seed)
    for arm, difference in zip(rest, found, strict=True):
        arm.difference = difference
        if not difference.separable:
            arm.verdict = "not separable"
        else:
            overlap = seeds_overlap(arm.figures[name], best.figures[name])
            arm.verdict = "seeds overlap" if overlap else "separable"
    return same + [arm for arm in ordered if arm.verdict == "other queries"]
