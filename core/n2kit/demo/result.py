"""The demo's result: recall for each arm, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.data.items import Items
from n2kit.errors import counted
from n2kit.evaluate.bootstrap import paired

if TYPE_CHECKING:
    from n2kit.demo.photographs import Photographs

KS = (1, 10, 100)
ARMS: dict[str, str] = {  # what the table calls them
    "text": "the text alone, standardised",
    "image": "the picture alone, standardised",
    "linear": "a linear layer on both, trained",
    "whitened": "both whitened, by n2kit fit",
    "notellm2": "notellm2, trained",
}
MAIN = "whitened"  # the one whose bundle and index are kept
DECISIVE = KS.index(10)
RESAMPLES = 10_000


@dataclass
class DemoArm:
    """Recall of one arm: group → Recall@1, @10, @100; the rank of each query's target."""

    name: str
    recall: dict[str, list[float]]
    ranks: dict[str, int]
    train_s: float = 0.0
    note: str = ""  # how it came about
    fingerprint: str = ""  # of the bundle and the index, for the arm that is kept

    @property
    def title(self) -> str:
        return ARMS[self.name]

    @property
    def training(self) -> str:
        """Name the time of its training."""
        return f"{self.train_s:.0f} s" if self.train_s >= 1 else "under 1 s" if self.train_s else "–"

    @property
    def decisive(self) -> float:
        """Return the recall that the arms are compared by, in %."""
        return 100 * self.recall["all"][DECISIVE]

    def found(self) -> np.ndarray:
        """Mark the queries whose target is found [Q, 1], in the order of their ids."""
        return np.array([[float(rank <= KS[DECISIVE])] for _, rank in sorted(self.ranks.items())])


@dataclass
class Example:
    """A query, the items recommended for it, and its target."""

    query: str
    target: str
    found: list[tuple[str, float]]
    ranks: dict[str, int]


@dataclass
class DemoResult:
    """The demo's result; `table` and `neighbours` are for printing."""

    folder: Path
    seed: int
    steps: int
    pairs: int
    arms: dict[str, DemoArm]
    examples: list[Example]
    items: Items
    queries: int
    pool: int
    groups: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    quick: bool = False  # of a third of the catalogue
    photographs: Photographs | None = None

    @property
    def page(self) -> Path:
        return self.folder / "demo.html"

    def table(self) -> tuple[Sequence[str], list[list[str]]]:
        head = ["arm", *(f"{group} ({count})" for group, count in self.groups.items()), "training"]
        rows = []
        for arm in self.arms.values():
            cells = [" / ".join(f"{100 * v:.1f}" for v in arm.recall[g]) for g in self.groups]
            rows.append([arm.title, *cells, arm.training])
        return head, rows

    def winner(self) -> str:
        """Say in one sentence who won: the arm that is best at 10, if the next one is separably behind."""
        best, second, *_ = self._ordered()
        share = f"the right item is among the first {KS[DECISIVE]} for {best.decisive:.1f} % of {counted(self.queries, 'query')}"
        if self._gap(best, second)[1] > 0:
            return f"“{best.title}” won: {share}."
        return f"Nobody won: “{best.title}” and “{second.title}” are level; {share}, and for {second.decisive:.1f} %."

    def verdict(self) -> str:
        """Say which arm is best at 10, how far the next one is behind, and what each training took; the figures decide."""
        best, second, *others = self._ordered()
        value, low, high = self._gap(best, second)
        behind = (
            f"{value:.1f} points behind (95 % interval {low:.1f} to {high:.1f}{'' if low > 0 else ', not separable'})"
        )
        rest = "; ".join(_figure(arm) for arm in others)
        return (
            f"Best recall@10 from {self.pairs} pairs: {_figure(best)}. Next, {behind}: {_figure(second)}. Then: {rest}."
        )

    def _ordered(self) -> list[DemoArm]:
        return sorted(self.arms.values(), key=lambda arm: -arm.decisive)

    def _gap(self, best: DemoArm, second: DemoArm) -> tuple[float, float, float]:
        """Return by how many points an arm is ahead of another, and the 95 % interval, paired over queries."""
        gain = paired(second.found(), best.found(), RESAMPLES, 0)
        value, low, high = (100 * float(x[0]) for x in (gain.value, gain.low, gain.high))
        return value, low, high

    def neighbours(self) -> list[list[str]]:
        return [
            [
                describe(self.items, e.query),
                *(("✓ " if i == e.target else "") + describe(self.items, i) for i, _ in e.found[:3]),
            ]
            for e in self.examples[:6]
        ]

    def to_dict(self) -> dict[str, Any]:
        return {
            "page": str(self.page),
            "seed": self.seed,
            "steps": self.steps,
            "quick": self.quick,
            "pairs": self.pairs,
            "queries": self.queries,
            "pool": self.pool,
            "groups": self.groups,
            "seconds": round(self.seconds, 1),
            "verdict": self.verdict(),
            "training_s": {name: round(arm.train_s, 1) for name, arm in self.arms.items()},
            "recall": {
                n: {g: dict(zip(map(str, KS), v, strict=True)) for g, v in a.recall.items()}
                for n, a in self.arms.items()
            },
            "recommendations": [
                {"query": e.query, "target": e.target, "found": [i for i, _ in e.found]} for e in self.examples
            ],
            "photographs": self.photographs and self.photographs.to_dict(),
        }


def describe(items: Items, item_id: str) -> str:
    """Name an item by its title, or by its topics."""
    item = items[item_id]
    return item.title or ", ".join(item.topics)


def _figure(arm: DemoArm) -> str:
    took = f"training {arm.training}" if arm.train_s else "no training"
    return f"{arm.title}, {arm.decisive:.1f} % ({took})"
