"""Mining in plain Python, as its definition reads: what the queries are held against."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import combinations, permutations
from typing import NamedTuple

from n2kit.mining import MineSettings

Scores = dict[tuple[str, str], float]


class Event(NamedTuple):
    """An event of a log; `time` in microseconds."""

    user: str
    item: str
    time: int
    type: str = ""
    weight: float = 1.0


def reference(log: list[Event], settings: MineSettings) -> Scores:
    """Score all pairs of a log, and keep the best of each item."""
    used = [*settings.view, *settings.click]
    histories: dict[str, dict[tuple[int, str], list[Event]]] = defaultdict(lambda: defaultdict(list))
    for event in log:
        if not used or event.type in used:
            histories[event.user][event.time, event.item].append(event)
    users = {user: _latest(history, settings) for user, history in histories.items()}
    found = _swing(users, settings) if settings.score == "swing" else _together(users, settings)
    best: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for (a, b), (score, count) in found.items():
        low, high = settings.lower or 0.0, settings.upper if settings.upper is not None else math.inf
        if score > 0 and low <= score <= high and count >= settings.min_users:
            best[a].append((-round(score, 9), b))
    return {(a, b): -score for a, targets in best.items() for score, b in sorted(targets)[: settings.top]}


class _Moment(NamedTuple):
    item: str
    time: int
    weight: float
    view: bool
    click: bool
    place: int


def _latest(history: dict[tuple[int, str], list[Event]], settings: MineSettings) -> list[_Moment]:
    def is_one(events: list[Event], types: tuple[str, ...]) -> bool:
        every = [*settings.view, *settings.click]
        return settings.undirected or not every or any(e.type in (types or every) for e in events)

    moments = sorted(history.items())[-settings.max_events :]
    return [
        _Moment(
            item, time, max(e.weight for e in events), is_one(events, settings.view), is_one(events, settings.click), n
        )
        for n, ((time, item), events) in enumerate(moments)
    ]


def _together(users: dict[str, list[_Moment]], settings: MineSettings) -> dict[tuple[str, str], tuple[float, int]]:
    sums: dict[tuple[str, str], float] = defaultdict(float)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    viewers: dict[str, set[str]] = defaultdict(set)
    clickers: dict[str, set[str]] = defaultdict(set)
    for user, moments in users.items():
        clicked = {m.item for m in moments if m.click}
        for m in moments:
            if m.view:
                viewers[m.item].add(user)
            if m.click:
                clickers[m.item].add(user)
        weights: dict[tuple[str, str], float] = {}
        heaviest = {
            i: max([m.weight for m in moments if m.item == i and m.click], default=0.0)
            for i in {m.item for m in moments}
        }
        for a, b in permutations(moments, 2):
            if a.item == b.item or not (a.view and b.click) or not (settings.undirected or b.time > a.time):
                continue
            between = abs(b.time - a.time)
            if settings.window is not None and between > settings.window * 1e6:
                continue
            if settings.gap is not None and abs(b.place - a.place) > settings.gap:
                continue
            weight = max(a.weight, b.weight) if settings.undirected else b.weight
            if not settings.by_event:
                weight = max(heaviest[a.item], heaviest[b.item]) if settings.undirected else heaviest[b.item]
            if settings.half_life is not None:
                weight *= 0.5 ** (between / (settings.half_life * 1e6))
            pair = (a.item, b.item)
            weights[pair] = max(weight, weights.get(pair, 0.0))
        for pair, weight in weights.items():
            sums[pair] += weight / len(clicked) if settings.score == "paper" else weight
            counts[pair] += 1
    total = len(users)

    def score(a: str, b: str) -> float:
        n, x, y = counts[a, b], len(viewers[a]), len(clickers[b])
        if settings.score == "jaccard":
            return n / (x + y - n)
        if settings.score == "lift":
            return n * total / (x * y)
        if settings.score == "pmi":
            share = (n / total) ** settings.power / (x / total * y / total)
            return math.log(share) if settings.power == 1 else share
        return sums[a, b]

    return {pair: (score(*pair), count) for pair, count in counts.items()}


def _swing(users: dict[str, list[_Moment]], settings: MineSettings) -> dict[tuple[str, str], tuple[float, int]]:
    sets = {user: {m.item for m in moments} for user, moments in users.items()}
    sums: dict[tuple[str, str], float] = defaultdict(float)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    sign = 1 if settings.alink else -1
    for u, v in combinations(sorted(sets), 2):
        shared = sets[u] & sets[v]
        weight = ((5 + len(sets[u])) * (5 + len(sets[v]))) ** (0.35 * sign)
        for pair in permutations(shared, 2):
            sums[pair] += weight / (1 + len(shared))
            counts[pair] += 1
    return {pair: (sums[pair], counts[pair]) for pair in counts}
