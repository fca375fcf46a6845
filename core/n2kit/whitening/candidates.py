"""The candidates of cross-validation, and the reciprocal ranks that each of them gives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from n2kit.inputs.halves import Half
from n2kit.whitening.statistics import (
    PairRows,
    Spectrum,
    Standard,
    rescaling,
    rows_to_fit,
    spectrum_to_fit,
    standard,
)
from n2kit.whitening.whitening import image_weights, unit

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # λ, of each half
WEIGHTS = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)  # w, of the image
QUERIES = 128  # at a time
TIE = 1e-6  # scores are float32: what is nearer to the target's ties with it, and counts as above it


@dataclass(frozen=True)
class Candidate:
    """A way to fuse: `whitened`, `text`, `image` (one half, whitened), `text-raw`, `image-raw`, `concat-std`, and its numbers."""

    kind: str
    text_strength: float | None = None
    image_strength: float | None = None
    image_weight: float | None = None

    @property
    def strengths(self) -> tuple[float, float]:
        """λ of each half; where it has none, it counts for nothing."""
        return self.text_strength or 0.0, self.image_strength or 0.0

    def __str__(self) -> str:
        facts = (("λ text", self.text_strength), ("λ image", self.image_strength), ("w", self.image_weight))
        return ", ".join([self.kind, *(f"{name} {value:g}" for name, value in facts if value is not None)])


FALLBACK = Candidate("whitened", 0.3, 0.3, 0.5)  # where nothing can be chosen
CANDIDATES = (
    *(Candidate("whitened", a, b, w) for w in WEIGHTS for a in STRENGTHS for b in STRENGTHS),
    *(Candidate("text", a) for a in STRENGTHS),
    *(Candidate("image", image_strength=b) for b in STRENGTHS),
    Candidate("text-raw"),
    Candidate("image-raw"),
    Candidate("concat-std"),
)
_KINDS = list(dict.fromkeys(candidate.kind for candidate in CANDIDATES))


def _distance(candidate: Candidate) -> tuple[float, ...]:
    """Measure how far a candidate is from the fallback: in kind, in λ, in w."""
    strengths = (candidate.text_strength, candidate.image_strength)
    ratios = [abs(math.log(a / b)) for a, b in zip(strengths, FALLBACK.strengths, strict=True) if a]
    return _KINDS.index(candidate.kind), sum(ratios), abs((candidate.image_weight or 0.5) - 0.5)


# Place of each in the order in which equal ones are taken.
PREFERRED = np.argsort(sorted(range(len(CANDIDATES)), key=lambda n: _distance(CANDIDATES[n])))


def reciprocal_ranks(
    text: Half, image: Half, fitted: PairRows, asked: PairRows, known: Sequence[set[int]], pool: np.ndarray
) -> np.ndarray:
    """Compute 1 / rank of each target for its query, under every candidate: [P, C].

    Args:
        fitted: the pairs that maps are fitted on. asked: left → right, which are ranked.
        known: the rows that belong to each query, itself included; all but the target are left out of its ranking.
        pool: the rows that may be found, among them every target, ascending.
    """
    standards = [standard(half, rows_to_fit(half, fitted)) for half in (text, image)]
    spectra = [spectrum_to_fit(h, s, fitted) for h, s in zip((text, image), standards, strict=True)]
    queries, place = np.unique(asked.left, return_inverse=True)
    rows = np.union1d(pool, queries)
    views = [
        _views(half, s, spectrum, rows) for half, s, spectrum in zip((text, image), standards, spectra, strict=True)
    ]
    there = [half.present[rows] for half in (text, image)]
    both = _concatenated([(text, standards[0]), (image, standards[1])], rows)
    columns, targets = np.searchsorted(rows, pool), np.searchsorted(pool, asked.right)
    asked_rows = np.searchsorted(rows, queries)[place]
    out = np.empty((len(asked), len(CANDIDATES)))
    for start in range(0, len(asked), QUERIES):
        some = np.arange(start, min(start + QUERIES, len(asked)))
        hidden = _hidden(known[start : start + QUERIES], pool, targets[some])
        scores = _scores(views, there, both, asked_rows[some], columns)
        for number, score in enumerate(scores):
            out[some, number] = _reciprocal(score, targets[some], hidden)
    return out


def _views(half: Half, standardise: Standard, spectrum: Spectrum, rows: np.ndarray) -> list[np.ndarray]:
    """Compute unit vectors of a half at `rows`: whitened with each λ, and last raw. Rotation changes no score: it is left out."""
    present = half.present[rows, None]
    turned = (standardise(half.values[rows]) @ spectrum.vectors) * present
    whitened = [unit(turned * rescaling(spectrum, a)).astype(np.float32) for a in STRENGTHS]
    return [*whitened, unit(half.values[rows] * present).astype(np.float32)]


def _concatenated(halves: Sequence[tuple[Half, Standard]], rows: np.ndarray) -> np.ndarray:
    """Standardise both halves at `rows`, divide each by the root of its width, and put them side by side, at unit length."""
    blocks = [s(h.values[rows]) * h.present[rows, None] / np.sqrt(h.values.shape[1]) for h, s in halves]
    return unit(np.concatenate(blocks, 1)).astype(np.float32)


def _scores(
    views: Sequence[Sequence[np.ndarray]],
    there: Sequence[np.ndarray],
    both: np.ndarray,
    asked: np.ndarray,
    columns: np.ndarray,
) -> Iterator[np.ndarray]:
    """Yield the scores [Q, pool] of every candidate, in their order."""
    *text, text_raw = [view[asked] @ view[columns].T for view in views[0]]
    *image, image_raw = [view[asked] @ view[columns].T for view in views[1]]
    # An item that lacks the half which is all that counts has the other one, at the fallback's strength.
    text_default, image_default = (STRENGTHS.index(s) for s in FALLBACK.strengths)

    def fused(weight: float, texts: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        w = image_weights(there[0], there[1], weight).astype(np.float32)
        of_text, of_image = (_outer_root(v, asked, columns) for v in (1 - w, w))
        weighed = [score * of_image for score in images]
        for score in texts:
            left = score * of_text
            for right in weighed:
                yield left + right

    for weight in WEIGHTS:
        yield from fused(weight, text, image)
    yield from fused(0.0, text, [image[image_default]])
    yield from fused(1.0, [text[text_default]], image)
    yield from fused(0.0, [text_raw], [image_raw])
    yield from fused(1.0, [text_raw], [image_raw])
    yield both[asked] @ both[columns].T


def _outer_root(weights: np.ndarray, asked: np.ndarray, columns: np.ndarray) -> np.ndarray | np.float32:
    """Compute √(w_q w_c) of the weights [n] of queries and columns; one number, where all are the same."""
    if weights.min() == weights.max():
        return np.float32(weights[0])
    out: np.ndarray = np.sqrt(np.outer(weights[asked], weights[columns]))
    return out


def _hidden(known: Sequence[set[int]], pool: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the places in the pool that do not count, as rows and columns: the query, and its other targets."""
    found = [(n, row) for n, rows in enumerate(known) for row in rows]
    at = np.array([n for n, _ in found], np.int64)
    wanted = np.array([row for _, row in found], np.int64)
    column = np.minimum(np.searchsorted(pool, wanted), len(pool) - 1)
    keep = (pool[column] == wanted) & (column != targets[at])
    return at[keep], column[keep]


def _reciprocal(scores: np.ndarray, targets: np.ndarray, hidden: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Compute 1 / rank of the targets [Q]; what ties with a target counts as above it."""
    own = scores[np.arange(len(scores)), targets][:, None] - TIE
    rows, columns = hidden
    not_counted = np.bincount(rows[scores[rows, columns] >= own[rows, 0]], minlength=len(scores))
    return 1 / (np.count_nonzero(scores >= own, axis=1) - not_counted)  # type: ignore[no-any-return]
