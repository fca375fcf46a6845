"""The choice among candidates: cross-validation over groups of pairs, by each query's MRR in a pool of the whole catalogue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from n2kit.errors import counted
from n2kit.evaluate.bootstrap import paired
from n2kit.inputs.halves import Half
from n2kit.whitening.candidates import CANDIDATES, FALLBACK, PREFERRED, Candidate, reciprocal_ranks
from n2kit.whitening.folds import folds
from n2kit.whitening.statistics import PairRows, rows_to_fit, spectrum_to_fit, standard, whitener
from n2kit.whitening.whitening import HalfMap, Whitening

PAIRS = 2000  # at most that are ranked; of more, as many are drawn
POOL = 10_000  # likewise; the targets are always in it
RESAMPLES = 1000
Step = Callable[[int, int], None]


@dataclass(frozen=True)
class Scored:
    """A candidate with its cross-validated MRR."""

    candidate: Candidate
    mrr: float


@dataclass(frozen=True)
class Gain:
    """The MRR that the chosen candidate has more than the best of another kind, with its paired 95 % interval over queries."""

    over: Candidate
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Selection:
    """A choice, and the candidates it was made from, the best first. Without a choice, `reason` says why, and there is no table."""

    chosen: Candidate
    reason: str = ""
    table: list[Scored] = field(default_factory=list)
    gains: list[Gain] = field(default_factory=list)
    queries: int = 0
    pool: int = 0

    def best(self, kind: str) -> Scored | None:
        """Return the best candidate of a kind."""
        return next((scored for scored in self.table if scored.candidate.kind == kind), None)

    def sentence(self) -> str:
        """Say in one sentence what was chosen, by how much, and what each half alone gives."""
        if self.reason:
            return f"nothing was chosen ({self.reason}): {self.chosen}"
        alone = {name: self._alone(name) for name in ("text", "image")}
        halves = ", ".join(f"{name} alone {scored.mrr:.3f}" for name, scored in alone.items())
        gains = "; ".join(
            f"{g.value:+.3f} over {g.over} (95 % interval {g.low:+.3f} to {g.high:+.3f})" for g in self.gains[:1]
        )
        best = f"the best of {len(self.table)} by cross-validated MRR {self.table[0].mrr:.3f}"
        measured = f"{best} over {counted(self.queries, 'query')} in a pool of {self.pool:,}"
        return f"chosen: {self.chosen}, {measured}, {gains}; {halves}"

    def _alone(self, half: str) -> Scored:
        return max((s for k in (half, f"{half}-raw") if (s := self.best(k))), key=lambda scored: scored.mrr)


def select(
    text: Half, image: Half, pairs: PairRows, val_pairs: PairRows | None = None, step: Step | None = None
) -> Selection:
    """Choose a candidate: folds of training and validation pairs, the rest of them to fit on, the whole catalogue to find in.

    Args:
        step: called with the folds that are done, and all.
    """
    every = _joined(pairs, val_pairs).positive()
    if not len(every):
        return Selection(FALLBACK, "no pairs")
    numbers = folds(every)
    if isinstance(numbers, str):
        return Selection(FALLBACK, numbers)
    positives = _positives(every)
    asked, fold = _asked(every, numbers)
    pool = _pool(text, image, asked)
    found = np.empty((len(asked), len(CANDIDATES)))
    count = int(numbers.max()) + 1
    for number in range(count):
        mine = np.flatnonzero(fold == number)
        queries = asked.at(mine)
        known = [positives[row] for row in queries.left.tolist()]
        found[mine] = reciprocal_ranks(text, image, every.at(numbers != number), queries, known, pool)
        if step:
            step(number + 1, count)
    return _chosen(_by_query(found, asked), len(pool))


def _by_query(found: np.ndarray, asked: PairRows) -> np.ndarray:
    """Average the reciprocal ranks [P, C] of each query's targets, weighted by grade: [Q, C], as `n2kit eval` counts.

    Else a few queries with many targets would choose for all.
    """
    queries, place = np.unique(asked.left, return_inverse=True)
    sums = np.zeros((len(queries), found.shape[1]))
    np.add.at(sums, place, found * asked.weight[:, None])
    means: np.ndarray = sums / np.bincount(place, weights=asked.weight)[:, None]
    return means


def _chosen(found: np.ndarray, pool: int) -> Selection:
    """Rank the candidates by the mean of their reciprocal ranks [Q, C]; of equal ones, the nearest to the fallback is first."""
    mrr = found.mean(0)
    order = np.lexsort((PREFERRED, -mrr)).tolist()
    table = [Scored(CANDIDATES[n], float(mrr[n])) for n in order]
    best, gains, kinds = order[0], [], {CANDIDATES[order[0]].kind}
    for n in order[1:]:
        if CANDIDATES[n].kind in kinds:
            continue
        kinds.add(CANDIDATES[n].kind)
        by = paired(found[:, [n]], found[:, [best]], RESAMPLES, 0)
        gains.append(Gain(CANDIDATES[n], float(mrr[best] - mrr[n]), float(by.low[0]), float(by.high[0])))
    return Selection(CANDIDATES[best], "", table, gains, len(found), pool)


def fitted(chosen: Candidate, text: Half, image: Half, pairs: PairRows) -> Whitening:
    """Fit a candidate on pairs; a half that no pair has on both sides, on all items, by their total covariance.

    A half that the candidate does not read is fitted all the same: it serves items that have no other.
    """
    pairs = pairs.positive()

    def whitened(half: Half, strength: float) -> HalfMap:
        own = standard(half, rows_to_fit(half, pairs))
        return HalfMap(own.mean, own.scale, whitener(spectrum_to_fit(half, own, pairs), strength))

    def scaled(half: Half) -> HalfMap:
        own, width = standard(half, rows_to_fit(half, pairs)), half.values.shape[1]
        return HalfMap(own.mean, own.scale, np.eye(width) / np.sqrt(width))

    def raw(half: Half) -> HalfMap:
        return HalfMap.identity(half.values.shape[1])

    weight = {"text": 0.0, "text-raw": 0.0, "image": 1.0, "image-raw": 1.0}.get(chosen.kind, 0.5)
    if chosen.kind == "concat-std":
        return Whitening(scaled(text), scaled(image), weight, unit_halves=False)
    if chosen.kind in ("text-raw", "image-raw"):
        return Whitening(raw(text), raw(image), weight)
    defaults = FALLBACK.strengths
    maps = whitened(text, chosen.text_strength or defaults[0]), whitened(image, chosen.image_strength or defaults[1])
    return Whitening(*maps, weight if chosen.image_weight is None else chosen.image_weight)


def _joined(pairs: PairRows, others: PairRows | None) -> PairRows:
    if others is None:
        return pairs
    return PairRows(*(np.concatenate(both) for both in zip(vars(pairs).values(), vars(others).values(), strict=True)))


def _positives(pairs: PairRows) -> dict[int, set[int]]:
    """Map each row to the rows that belong to it, itself included."""
    found: dict[int, set[int]] = defaultdict(set)
    for a, b in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        found[a] |= {a, b}
        found[b] |= {a, b}
    return found


def _asked(pairs: PairRows, fold: np.ndarray) -> tuple[PairRows, np.ndarray]:
    """Ask for every pair in both directions, or for as many as are allowed, drawn; give their folds too."""
    both = PairRows(
        np.concatenate([pairs.left, pairs.right]),
        np.concatenate([pairs.right, pairs.left]),
        np.concatenate([pairs.weight, pairs.weight]),
    )
    drawn = np.random.default_rng(0).permutation(len(both))[:PAIRS]
    drawn.sort()
    return both.at(drawn), np.concatenate([fold, fold])[drawn]


def _pool(text: Half, image: Half, asked: PairRows) -> np.ndarray:
    """List the rows in which targets are looked for: all that have a half, or as many as are allowed, drawn."""
    there = np.flatnonzero(text.present | image.present)
    if len(there) > POOL:
        there = np.random.default_rng(0).choice(there, POOL, replace=False)
    return np.union1d(there, asked.right)
