"""The percentile bootstrap over queries (Efron and Tibshirani 1993, sections 13 and 15): how far a figure would move on other queries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVEL = 0.95
CELLS = 4_000_000  # weights held at a time: 32 MB


class Interval(NamedTuple):
    """Bounds [M] of M figures."""

    low: np.ndarray
    high: np.ndarray


class PairedDifference(NamedTuple):
    """A difference `value` [M] with its interval and two-sided p-value, each [M]."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def resampled(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Compute means [resamples, M] of values [Q, M] over Q queries drawn with replacement."""
    count = len(values)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    together = max(1, CELLS // count)
    for start in range(0, resamples, together):
        rows = min(together, resamples - start)
        drawn = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        means[start : start + rows] = weights @ values / count
    return means


def interval(values: np.ndarray, resamples: int, seed: int) -> Interval:
    """Compute the interval of the mean of values [Q, M]."""
    return _percentiles(resampled(values, resamples, seed))


def paired(a: np.ndarray, b: np.ndarray, resamples: int, seed: int) -> PairedDifference:
    """Compute b − a of two models' values [Q, M] on the same queries; both are resampled together.

    p is twice the share of resamples on the other side of zero, the observed one counted in: never 0, and 1 for equal models.
    """
    difference = b - a
    means = resampled(difference, resamples, seed)
    below, above = (means <= 0).sum(0), (means >= 0).sum(0)
    p = np.minimum(1.0, 2 * (1 + np.minimum(below, above)) / (1 + resamples))
    return PairedDifference(difference.mean(0), *_percentiles(means), p)


def _percentiles(means: np.ndarray) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return Interval(low, high)
