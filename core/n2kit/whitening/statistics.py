"""Means, scales and covariances of one half of the items, in blocks: a million pairs take no more memory than a few thousand.

Within-pair covariance is relevant component analysis (Bar-Hillel et al. 2005); in speaker recognition, within-class covariance
normalisation (Hatch et al. 2006).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from n2kit.inputs.halves import Half

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.data.pairs import Pairs

BLOCK = 8192  # rows at a time
FLAT = 1e-6  # of the largest value: a dimension with a smaller deviation carries no information, and gives 0


@dataclass(frozen=True)
class PairRows:
    """Pairs as rows of a catalogue: `left` and `right` [P], and their `weight` [P]."""

    left: np.ndarray
    right: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.left)

    def at(self, chosen: np.ndarray) -> PairRows:
        """Select pairs, by number or by mask."""
        return PairRows(self.left[chosen], self.right[chosen], self.weight[chosen])

    def positive(self) -> PairRows:
        """Select the pairs that belong together: those of a weight above zero."""
        return self.at(self.weight > 0)

    def items(self) -> np.ndarray:
        """List the rows of their items, each once."""
        return np.unique(np.concatenate([self.left, self.right]))


def pair_rows(pairs: Pairs | None, items: Items, skipped: Container[str] = ()) -> PairRows:
    """Turn pairs into rows of the catalogue [P], their grades into weights, without those of an item that was skipped."""
    kept = [pair for pair in pairs or () if pair[0] not in skipped and pair[1] not in skipped]
    grades = [pairs.grade(pair) for pair in kept] if pairs is not None else []
    left, right = (np.array([items.position[pair[side]] for pair in kept], np.int64) for side in (0, 1))
    return PairRows(left, right, np.array(grades, np.float64))


def with_half(half: Half, pairs: PairRows) -> PairRows:
    """Select the pairs whose items both have this half."""
    return pairs.at(half.present[pairs.left] & half.present[pairs.right])


def rows_to_fit(half: Half, pairs: PairRows) -> np.ndarray:
    """List the rows that a half is fitted by: those of the pairs' items; where no pair has it on both sides, all."""
    return pairs.items() if len(with_half(half, pairs)) else np.arange(len(half.values))


class Standard(NamedTuple):
    """The mean [d] and the inverse deviation [d] (0 of a flat dimension) of a half, float64."""

    mean: np.ndarray
    scale: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Standardise rows [n, d], float64."""
        out: np.ndarray = (values - self.mean) * self.scale
        return out


class Spectrum(NamedTuple):
    """A covariance as its eigenvalues [d] and eigenvectors [d, d]; `level` is their mean, to which λ is relative."""

    values: np.ndarray
    vectors: np.ndarray
    level: float


def standard(half: Half, rows: np.ndarray) -> Standard:
    """Compute mean and scale of the items at `rows` that have this half."""
    rows = rows[half.present[rows]]
    width = half.values.shape[1]
    if not len(rows):
        return Standard(np.zeros(width), np.zeros(width))
    mean = np.sum([block.sum(0) for block in _blocks(half.values, rows)], 0) / len(rows)
    square, largest = np.zeros(width), 0.0
    for block in _blocks(half.values, rows):
        square += ((block - mean) ** 2).sum(0)
        largest = max(largest, float(np.abs(block).max()))
    deviation = np.sqrt(square / len(rows))
    flat = deviation <= FLAT * max(1.0, largest)
    return Standard(mean, np.where(flat, 0.0, 1 / np.where(flat, 1.0, deviation)))


def pair_spectrum(half: Half, standardise: Standard, pairs: PairRows) -> Spectrum:
    """Decompose the within-pair covariance Σ g (x_a − x_b)(x_a − x_b)ᵀ / 2 Σ g of standardised x, over pairs that both have this half."""
    pairs = with_half(half, pairs)
    width = half.values.shape[1]
    scatter, total = np.zeros((width, width)), 2 * float(pairs.weight.sum())
    for start in range(0, len(pairs), BLOCK):
        some = pairs.at(np.arange(start, min(start + BLOCK, len(pairs))))
        difference = (half.values[some.left].astype(np.float64) - half.values[some.right]) * standardise.scale
        scatter += difference.T @ (difference * some.weight[:, None])
    return _decomposed(scatter / total if total else scatter)


def total_spectrum(half: Half, standardise: Standard, rows: np.ndarray) -> Spectrum:
    """Decompose the covariance of the standardised items at `rows` that have this half."""
    rows = rows[half.present[rows]]
    width = half.values.shape[1]
    scatter = np.zeros((width, width))
    for block in _blocks(half.values, rows):
        x = standardise(block)
        scatter += x.T @ x
    return _decomposed(scatter / max(1, len(rows)))


def spectrum_to_fit(half: Half, standardise: Standard, pairs: PairRows) -> Spectrum:
    """Decompose the covariance that a half is whitened by: within the pairs; where none has it on both sides, of all items."""
    if len(with_half(half, pairs)):
        return pair_spectrum(half, standardise, pairs)
    return total_spectrum(half, standardise, rows_to_fit(half, pairs))


def whitener(spectrum: Spectrum, strength: float) -> np.ndarray:
    """Compute A = (S + λ · tr(S)/d · I)^(−1/2) [d, d]; where S is zero, the identity."""
    if spectrum.level <= 0:
        return np.eye(len(spectrum.values))
    out: np.ndarray = (spectrum.vectors * rescaling(spectrum, strength)) @ spectrum.vectors.T
    return out


def rescaling(spectrum: Spectrum, strength: float) -> np.ndarray:
    """Compute the factors [d] by which A scales along the eigenvectors."""
    if spectrum.level <= 0:
        return np.ones(len(spectrum.values))
    out: np.ndarray = 1 / np.sqrt(spectrum.values + strength * spectrum.level)
    return out


def _decomposed(covariance: np.ndarray) -> Spectrum:
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return Spectrum(np.maximum(values, 0.0), vectors, float(np.trace(covariance)) / len(values))


def _blocks(values: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BLOCK):
        yield values[rows[start : start + BLOCK]].astype(np.float64)
