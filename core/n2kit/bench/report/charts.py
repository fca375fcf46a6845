"""The geometry of the page's charts; the templates only draw what is placed here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 360.0, 284.0  # of a scatter plot, in its own units
LEFT, RIGHT, TOP, BOTTOM = 54.0, 14.0, 12.0, 52.0
ZERO = 26.0  # room left of a logarithmic axis for points that cost nothing
SMALL_WIDTH, SMALL_HEIGHT = 240.0, 132.0  # of the curves of one arm
Text = Callable[[float], str]


@dataclass(frozen=True)
class Scale:
    """A scale from values to 0 … 1, with the values of its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low) if high > low else 0.5

    def percent(self, value: float) -> float:
        return 100 * min(1.0, max(0.0, self(value)))


def linear(values: Iterable[float], *, zero: bool = False, most: int = 5) -> Scale:
    """Make a scale a little wider than all values, with at most `most` round ticks inside; with `zero` it reaches 0."""
    found = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(found), max(found)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    if low == high:
        low, high = (low, low + (abs(low) or 1.0)) if zero else (low - 0.1, high + 0.1)
    pad = 0.04 * (high - low)
    low, high = low - pad * (not zero or low < 0), high + pad * (not zero or high > 0)
    step = next(s for s in _steps((high - low) / most) if (high - low) / s <= most)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return Scale(low, high, tuple((first + n) * step for n in range(count)))


def logarithmic(values: Iterable[float], most: int = 5) -> Scale:
    """Make a logarithmic scale around positive values, each tick a 1, 2 or 5; with fewer than two inside, ticks are linear."""
    found = [v for v in values if v > 0 and math.isfinite(v)] or [1.0]
    low, high = min(found) / 1.25, max(found) * 1.25
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(ticks) <= most:
            break
    while len(ticks) > most:
        ticks = ticks[::2]
    if len(ticks) < 2:
        ticks = [t for t in linear((low, high)).ticks if low <= t <= high]
    return Scale(low, high, tuple(ticks), log=True)


def _steps(about: float) -> Iterable[float]:
    power = 10.0 ** math.floor(math.log10(about))
    return (digit * power for digit in (1, 2, 5, 10, 20))


@dataclass(frozen=True)
class Point:
    """A point to place: its cost, its value with bounds, and its look."""

    cost: float
    value: float
    low: float
    high: float
    number: int
    title: str
    colour: int | None


@dataclass(frozen=True)
class PlacedPoint:
    x: float
    y: float
    low: float
    high: float
    point: Point
    front: bool


@dataclass(frozen=True)
class Scatter:
    """A Pareto plot. `line`: the front as SVG points; ticks are (place, text)."""

    points: list[PlacedPoint]
    line: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    zero: float | None  # x of points that cost nothing

    @property
    def front(self) -> list[Point]:
        return [p.point for p in self.points if p.front]


def pareto(candidates: Sequence[Point], sign: float = 1.0) -> list[Point]:
    """Select the Pareto front, cheapest first: points with none as cheap and better; `sign` is −1 where less is better."""
    front: list[Point] = []
    for point in sorted(candidates, key=lambda s: (s.cost, -sign * s.value, s.number)):
        if not front or sign * point.value > sign * front[-1].value:
            front.append(point)
    return front


def scatter(candidates: Sequence[Point], x_text: Text, y_text: Text, sign: float = 1.0) -> Scatter:
    """Place points with their cost on a logarithmic axis; those that cost nothing stand left of it."""
    front = pareto(candidates, sign)
    inside = {point.number for point in front}
    y = linear([v for s in candidates for v in ((s.low, s.high) if s.number in inside else (s.value,))])
    x = logarithmic(s.cost for s in candidates)
    free = any(s.cost <= 0 for s in candidates)
    left = LEFT + (ZERO if free else 0.0)

    def across(cost: float) -> float:
        return left + x(cost) * (WIDTH - RIGHT - left) if cost > 0 else LEFT + ZERO / 2

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - y(value) * (HEIGHT - BOTTOM - TOP)

    points = [
        PlacedPoint(across(s.cost), up(s.value), up(s.low), up(s.high), s, s.number in inside)
        for s in sorted(candidates, key=lambda s: s.number in inside)
    ]
    corners = [(across(s.cost), up(s.value)) for s in front]
    steps = corners[:1] + [c for (_, y0), (x1, y1) in pairwise(corners) for c in ((x1, y0), (x1, y1))]
    if steps:
        steps.append((WIDTH - RIGHT, steps[-1][1]))
    return Scatter(
        points,
        " ".join(f"{a:.1f},{b:.1f}" for a, b in steps),
        [(across(t), x_text(t)) for t in x.ticks],
        [(up(t), y_text(t)) for t in y.ticks],
        across(0) if free else None,
    )


@dataclass(frozen=True)
class Lines:
    """Curves over layers as SVG points, and the first and last layer."""

    curves: list[str]
    layers: int


def lines(shares: Sequence[Sequence[float]]) -> Lines:
    """Place curves [L][C] of values from 0 to 1."""
    last = max(1, len(shares) - 1)
    width, height = SMALL_WIDTH - 34, SMALL_HEIGHT - 26
    return Lines(
        [
            " ".join(f"{28 + n / last * width:.1f},{6 + (1 - row[curve]) * height:.1f}" for n, row in enumerate(shares))
            for curve in range(len(shares[0]))
        ],
        len(shares),
    )
