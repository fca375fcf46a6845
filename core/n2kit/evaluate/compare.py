"""A comparison of two models on the same items and queries, with the significance of their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from n2kit.errors import BadInput, counted
from n2kit.evaluate import bootstrap
from n2kit.evaluate.protocol import RankingReport

if TYPE_CHECKING:
    from n2kit.embed.vectors_file import Vectors


@dataclass(frozen=True)
class MetricChange:
    """A metric of models a and b, the difference b − a with its interval, and the two-sided p-value of no difference."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float


def compare(a: RankingReport, b: RankingReport, *, resamples: int = 1000, seed: int = 0) -> dict[str, MetricChange]:
    """Compare two reports in every metric, by a paired bootstrap over the queries.

    Raises:
        ValueError: reports on different pairs, pools or cut-offs.
    """
    if (a.pairs, a.pool, a.ks, a.protocol) != (b.pairs, b.pool, b.ks, b.protocol):
        raise ValueError("the two reports are not about the same queries")
    left, right = a.values()[0], b.values()[0]
    difference = bootstrap.paired(left, right, resamples, seed)
    columns: Sequence[np.ndarray] = (left.mean(0), right.mean(0), *difference)
    rows = zip(*(c.tolist() for c in columns), strict=True)
    return {name: MetricChange(*row) for name, row in zip(a.names(a.ks), rows, strict=True)}


def check_same_items(a: Vectors, b: Vectors, names: tuple[str, str]) -> None:
    """Check that two files hold vectors of the same items.

    Raises:
        BadInput: one has items that the other lacks.
    """
    only = [sorted(set(one.ids) - set(other.ids)) for one, other in ((a, b), (b, a))]
    if any(only):
        sides = [
            f"{name} has {counted(len(v.ids), 'item')}"
            + (f", {len(o)} of them alone (the first is {o[0]!r})" if o else "")
            for name, v, o in zip(names, (a, b), only, strict=True)
        ]
        raise BadInput("; ".join(sides), "embed the same items with both models")
