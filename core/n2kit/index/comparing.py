"""Exact neighbours of a sample, by which two sets of vectors of the same items are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from n2kit.embed.reading import VectorSource, cut
from n2kit.embed.vectors_file import Vectors

SAMPLE, K = 500, 10  # items whose neighbours are compared, and how many of each
AMONG = 20_000  # items that the numbers left out by `--dim` are measured on
Piece = tuple[np.ndarray, np.ndarray]  # numbers of items [n], and their vectors [n, d]


class Compared(NamedTuple):
    """items: whose k exact neighbours were looked at; overlap: the mean share of them that is the same."""

    items: int
    k: int
    overlap: float


def kept_by(source: VectorSource, width: int) -> Compared | None:
    """Measure how many neighbours stay when only the first numbers of vectors are kept, on the first 20,000 items.

    Returns:
        None where there are too few items to have neighbours.
    """
    pieces = [batch.vectors for batch in _first(source)]
    if sum(map(len, pieces)) < 2:
        return None
    vectors = np.concatenate(pieces)[:AMONG]
    short = np.concatenate([batch.vectors for batch in _first(cut(source, width))])[:AMONG]
    k = min(K, len(vectors) - 1)
    sample = sample_of(np.arange(len(vectors)))
    before, after = (exact_neighbours(sample, lambda some=some: in_blocks(some), k) for some in (vectors, short))  # type: ignore[misc]
    return Compared(len(sample), k, shared(before, after))


def sample_of(rows: np.ndarray) -> np.ndarray:
    """Draw the items to compare, the same each time."""
    return np.random.default_rng(0).choice(rows, min(SAMPLE, len(rows)), replace=False)


def shared(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean share of neighbours [q, k] that are in both."""
    k = one.shape[1]
    return float(np.mean([len({*a} & {*b}) / k for a, b in zip(one.tolist(), other.tolist(), strict=True)]))


def in_blocks(vectors: np.ndarray, block: int = 8192) -> Iterator[Piece]:
    """Yield vectors in pieces, with their rows."""
    for start in range(0, len(vectors), block):
        some = vectors[start : start + block]
        yield np.arange(start, start + len(some)), some


def exact_neighbours(sample: np.ndarray, pieces: Callable[[], Iterator[Piece]], k: int) -> np.ndarray:
    """Find the k nearest others of the items in `sample` [q], by comparison with every vector: [q, k], best first."""
    own = [(rows[keep], vectors[keep]) for rows, vectors in pieces() for keep in [np.isin(rows, sample)]]
    asked, queries = np.concatenate([rows for rows, _ in own]), np.concatenate([vectors for _, vectors in own])
    best = np.full((len(sample), 0), -1, np.int64)
    scores = np.zeros((len(sample), 0), np.float32)
    for rows, vectors in pieces():
        found = np.where(rows[None] == asked[:, None], -np.inf, queries @ vectors.T).astype(np.float32)
        scores = np.concatenate([scores, found], axis=1)
        best = np.concatenate([best, np.broadcast_to(rows, found.shape)], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, best = np.take_along_axis(scores, order, axis=1), np.take_along_axis(best, order, axis=1)
    place = {row: n for n, row in enumerate(asked.tolist())}
    return best[[place[row] for row in sample.tolist()]]


def _first(source: VectorSource) -> Iterator[Vectors]:
    """Yield the batches of the first items."""
    seen = 0
    for batch in source.batches():
        yield batch
        if (seen := seen + len(batch.ids)) >= AMONG:
            return
