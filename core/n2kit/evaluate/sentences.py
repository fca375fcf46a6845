"""The number that matters of an evaluation, with its interval, in one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from n2kit.errors import counted

if TYPE_CHECKING:
    from n2kit.evaluate.compare import MetricChange
    from n2kit.evaluate.protocol import Figure, RankingReport

USUAL = 10  # items that a person looks at
FEW = 5  # queries, below which an interval says nothing


def decisive_cutoff(ks: Sequence[int], pool: int) -> int | None:
    """Choose the cut-off to speak of: the largest up to 10 that a pool of so many does not make trivial; None if all are."""
    telling = [k for k in ks if k < pool]
    return max((k for k in telling if k <= USUAL), default=min(telling, default=None))


def recall_sentence(report: RankingReport, figures: Mapping[str, Figure]) -> str:
    """Say how often the right item is among the first, and how often it would be by chance."""
    queries, k = counted(report.queries, "query"), decisive_cutoff(report.ks, report.pool)
    if k is None:
        mrr = figures["mrr"]
        return f"The MRR of {queries} is {mrr.value:.3f}{_interval(mrr.low, mrr.high, 1, 3)}, in a pool of {report.pool:,}."
    figure, several = figures[f"recall@{k}"], len(report.pairs) > report.queries
    chance = f"by chance {100 * k / report.pool:.2g} % would be"
    bounds = (figure.low, figure.high) if report.queries >= FEW else (None, None)
    few = "" if report.queries >= FEW else "; so few queries tell little"
    return f"{found_sentence(figure.value, bounds, queries, k, report.pool, several)}; {chance}{few}."


def found_sentence(
    share: float, bounds: tuple[float | None, float | None], queries: str, k: int, pool: int, several: bool = False
) -> str:
    """Say which share of the queries find their item among the first k; without a full stop.

    Args:
        several: some queries have more than one right item.
    """
    value = f"{100 * share:.1f} %{_interval(*bounds, 100, 1)}"
    who = "of the right items are" if several else "of the queries have their right item"
    place = "first" if k == 1 else f"among the first {k}"
    return f"{value} {who} {place} of {pool:,} ({queries})"


def image_sentence(changes: Mapping[str, MetricChange], ks: Sequence[int], pool: int, queries: int) -> str:
    """Say what a model loses without the image, and if that is more than chance.

    Args:
        changes: metric → the change from items as they are to items without their image.
    """
    k = decisive_cutoff(ks, pool)
    name, scale, unit = (f"recall@{k}", 100, " points") if k is not None else ("mrr", 1, "")
    change, digits = changes[name], 1 if k is not None else 3
    moved = "falls" if change.difference <= 0 else "rises"
    bounds = sorted(abs(scale * b) for b in (change.low, change.high)) if change.low * change.high > 0 else None
    by = f"{abs(scale * change.difference):.{digits}f}{unit}"
    if queries < FEW:
        few = counted(queries, "query")
        return f"Without its image {name} {moved} by {by}; {few} tell nothing about the use of the image."
    if bounds is None:
        low, high = (f"{scale * b:+.{digits}f}" for b in (change.low, change.high))
        return (
            f"Without its image {name} {moved} by {by} (95 % interval of the change {low} to {high}): "
            "that can be chance, and nothing shows that the model uses the image."
        )
    verdict = "the model uses the image" if change.difference < 0 else "the image harms this model"
    return f"Without its image {name} {moved} by {by} (95 % interval {bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}): {verdict}."


def wilson(share: float, count: int) -> tuple[float, float]:
    """Compute the 95 % interval of a share of `count` queries (Wilson 1927), which holds at 0 and 1 too."""
    z = 1.959964
    middle, spread = share + z * z / (2 * count), z * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((middle + sign * spread) / (1 + z * z / count) for sign in (-1, 1))
    return max(0.0, float(low)), min(1.0, float(high))


def _interval(low: float | None, high: float | None, scale: float, digits: int) -> str:
    return (
        "" if low is None or high is None else f" (95 % interval {scale * low:.{digits}f} to {scale * high:.{digits}f})"
    )
