"""The demo's result: recall for each arm, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2kit.data.items import Items

KS = (1, 10, 100)
# Arm → variant (or a baseline of `n2kit.bench.baselines.baselines`), trained or not, what the table calls it.
LINEAR = "concat"
ARMS: dict[str, tuple[str, bool, str]] = {
    "before": ("notellm2", False, "notellm2, before training"),
    "text_only": ("text_only", True, "text_only, trained"),
    "image_only": ("image_only", True, "image_only, trained"),
    "linear": (LINEAR, True, "a linear layer on both frozen features"),
    "notellm2": ("notellm2", True, "notellm2, trained"),
}
MAIN = "notellm2"


@dataclass
class DemoArm:
    """Recall of one arm: group → Recall@1, @10, @100; the rank of each query's target."""

    name: str
    recall: dict[str, list[float]]
    ranks: dict[str, int]
    train_s: float = 0.0
    loss: float | None = None
    fingerprint: str = ""  # of the bundle and the index, for the arm that is kept


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
    arms: dict[str, DemoArm]
    examples: list[Example]
    items: Items
    queries: int
    pool: int
    groups: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def page(self) -> Path:
        return self.folder / "demo.html"

    def table(self) -> tuple[Sequence[str], list[list[str]]]:
        head = ["arm", *(f"{group} ({count})" for group, count in self.groups.items()), "training"]
        rows = []
        for name, arm in self.arms.items():
            cells = [" / ".join(f"{100 * v:.1f}" for v in arm.recall[g]) for g in self.groups]
            rows.append([ARMS[name][2], *cells, f"{arm.train_s:.0f} s" if arm.train_s else "–"])
        return head, rows

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
            "queries": self.queries,
            "pool": self.pool,
            "groups": self.groups,
            "seconds": round(self.seconds, 1),
            "recall": {
                n: {g: dict(zip(map(str, KS), v, strict=True)) for g, v in a.recall.items()}
                for n, a in self.arms.items()
            },
            "recommendations": [
                {"query": e.query, "target": e.target, "found": [i for i, _ in e.found]} for e in self.examples
            ],
        }


def describe(items: Items, item_id: str) -> str:
    """Name an item by its title, or by its topics."""
    item = items[item_id]
    return item.title or ", ".join(item.topics)
