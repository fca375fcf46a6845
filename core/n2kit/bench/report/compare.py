"""A comparison of two matrices: the arms that both have, paired query by query where both ranked the same queries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from n2kit.bench.cell_row import DONE
from n2kit.bench.report import labels
from n2kit.bench.report.aggregate import (
    ALPHA,
    RESAMPLES,
    RESAMPLES_PER_ARM,
    ArmResult,
    Difference,
    Leaderboard,
    aggregate,
    holm,
    same_task,
)
from n2kit.bench.report.read import Results, read_results
from n2kit.errors import BadInput
from n2kit.evaluate import bootstrap

SHOWN = 10  # arms that only one side has, called by name in a remark


@dataclass(frozen=True)
class Change:
    """An arm on both sides. `differences`: metric → B − A, p corrected over the arms; empty where the two ranked other queries."""

    a: ArmResult
    b: ArmResult
    differences: dict[str, Difference]

    @property
    def same_queries(self) -> bool:
        return same_task(self.a.ranking, self.b.ranking)


@dataclass(frozen=True)
class Comparison:
    """A comparison of two result folders. `data`: digest → its two values, where they differ; `versions` likewise."""

    folders: tuple[Path, Path]
    metric: str
    metrics: list[str]
    changes: dict[str, Change]
    only_a: list[str]
    only_b: list[str]
    data: dict[str, tuple[Any, Any]]
    versions: dict[str, tuple[Any, Any]]
    resamples: int

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Make a row for each arm of both: `metric` on either side and the difference."""
        rows = []
        for label, change in self.changes.items():
            sides = [labels.with_interval(arm.figures[self.metric], self.metric) for arm in (change.a, change.b)]
            seeds = " and ".join(dict.fromkeys(str(len(arm.rows)) for arm in (change.a, change.b)))
            rows.append([label, seeds, *sides, *self._difference(change)])
        return ["arm", "seeds", f"{self.metric}, A", "B", "B − A", "95 %", "p", ""], rows

    def _difference(self, change: Change) -> list[str]:
        if (difference := change.differences.get(self.metric)) is None:
            return ["", "", "", "other queries"]
        low, value, high = (labels.signed(x, self.metric) for x in (difference.low, difference.value, difference.high))
        return [
            value,
            f"{low} to {high}",
            f"{difference.corrected:.3g}",
            "" if difference.separable else "not separable",
        ]

    def remarks(self) -> list[str]:
        """List remarks to know before reading the table, the gravest first."""
        said = []
        if self.data:
            said.append(f"the two are about different data ({', '.join(self.data)}): differences may come from that")
        if any(not change.same_queries for change in self.changes.values()):
            said.append("where an arm was asked other queries, or in another pool, there is no paired difference")
        if self.versions:
            said.append("versions differ: " + ", ".join(f"{k} {a} and {b}" for k, (a, b) in self.versions.items()))
        for side, found in (("A", self.only_a), ("B", self.only_b)):
            if found:
                more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
                said.append(f"only in {side}: {', '.join(found[:SHOWN])}{more}")
        said.append(
            f"A {self.folders[0]}, B {self.folders[1]}: paired bootstrap of {self.resamples} over queries, seeds averaged; "
            f"p corrected over {sum(c.same_queries for c in self.changes.values())} arms (Holm), level {ALPHA:g}"
        )
        return said

    def to_dict(self) -> dict[str, Any]:
        def side(arm: ArmResult) -> dict[str, Any]:
            figures = {name: asdict(arm.figures[name]) for name in self.metrics}
            return {"seeds": arm.seeds, "queries": arm.queries, "pool": arm.ranking.pool, "metrics": figures}

        return {
            "a": str(self.folders[0]),
            "b": str(self.folders[1]),
            "metric": self.metric,
            "arms": {
                label: {"a": side(c.a), "b": side(c.b), "same_queries": c.same_queries}
                | {"differences": {name: asdict(difference) for name, difference in c.differences.items()}}
                for label, c in self.changes.items()
            },
            "only_a": self.only_a,
            "only_b": self.only_b,
            "different_data": {name: list(values) for name, values in self.data.items()},
            "different_versions": {name: list(values) for name, values in self.versions.items()},
            "bootstrap": {"resamples": self.resamples, "over": "queries", "correction": "holm over arms"},
        }


def compare(dir1: Path, dir2: Path, metric: str | None = None, *, seed: int = 0) -> Comparison:
    """Compare B (`dir2`) with A (`dir1`), for the arms of the same label that have a finished cell in both.

    Raises:
        BadInput: no results or damaged ones; no common arm; a metric that one side lacks.
    """
    a, b = (aggregate(read_results(folder), metric, seed=seed) for folder in (dir1, dir2))
    common = [label for label in a.by_label if label in b.by_label]
    if not common:
        raise BadInput(f"{dir1} and {dir2} have no finished arm in common", _some(a, b))
    metrics = [name for name in a.metrics if name in b.metrics]
    chosen = metric or (a.metric if a.metric in metrics else metrics[0])
    resamples = max(RESAMPLES, RESAMPLES_PER_ARM * len(common))
    pairs = [(a.by_label[label], b.by_label[label]) for label in common]
    return Comparison(
        (dir1, dir2),
        chosen,
        metrics,
        dict(zip(common, _changes(a, b, pairs, metrics, resamples, seed), strict=True)),
        [label for label in a.by_label if label not in b.by_label],
        [label for label in b.by_label if label not in a.by_label],
        _differing(a.results.data, b.results.data),
        _differing(_versions(a.results), _versions(b.results)),
        resamples,
    )


def _changes(
    a: Leaderboard,
    b: Leaderboard,
    pairs: list[tuple[ArmResult, ArmResult]],
    metrics: list[str],
    resamples: int,
    seed: int,
) -> list[Change]:
    columns = [[board.metrics.index(name) for name in metrics] for board in (a, b)]
    paired = [(left, right) for left, right in pairs if same_task(left.ranking, right.ranking)]
    found = {
        left.label: bootstrap.paired(left.values[:, columns[0]], right.values[:, columns[1]], resamples, seed)
        for left, right in paired
    }
    corrected = {  # metric → arm → p
        name: dict(zip(found, holm([float(d.p[n]) for d in found.values()]), strict=True))
        for n, name in enumerate(metrics)
    }
    differences = {
        label: {name: _corrected_difference(d, n, corrected[name][label]) for n, name in enumerate(metrics)}
        for label, d in found.items()
    }
    return [Change(left, right, differences.get(left.label, {})) for left, right in pairs]


def _corrected_difference(found: bootstrap.PairedDifference, n: int, corrected: float) -> Difference:
    return Difference(float(found.value[n]), float(found.low[n]), float(found.high[n]), float(found.p[n]), corrected)


def _differing(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)}


def _versions(results: Results) -> dict[str, Any]:
    """Collect name → version of the finished cells; several are joined."""
    found: dict[str, dict[str, None]] = {}
    for row in results.of(DONE):
        for name, version in row.versions.items():
            found.setdefault(name, {})[str(version)] = None
    return {name: " / ".join(versions) for name, versions in found.items()}


def _some(a: Leaderboard, b: Leaderboard) -> str:
    sides = [next(iter(board.by_label), "nothing finished") for board in (a, b)]
    return f"arms are matched by name: A has {sides[0]!r} …, B {sides[1]!r} …"
