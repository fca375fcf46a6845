"""Neighbours of a query: filtered, folded, diversified, and explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from n2kit.index import Neighbour
from n2kit.serve.catalogue import Catalogue

DEEP = 200  # neighbours of a view that are counted to explain one
FOLDED_FROM, DIVERSE_FROM = 4, 5  # as many times k are looked at


@dataclass(frozen=True)
class Wanted:
    """The neighbours that are wanted.

    fold: cosine from which an item is a near-duplicate of a better one, and folded into it. diversify: 0 goes by score alone, 1 by
    difference alone (maximal marginal relevance).
    """

    k: int = 10
    categories: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    fold: float | None = None
    diversify: float = 0.0


@dataclass
class Hit:
    """A neighbour: its score, the near-duplicates folded into it, and what brought it."""

    id: str
    score: float
    folded: list[str] = field(default_factory=list)
    why: dict[str, dict[str, float | int | None]] | None = None


def mean_of(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Join several triggers to one query: the unit vector [d] of their mean."""
    mean = np.mean(vectors, axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)


def neighbours(catalogue: Catalogue, query: np.ndarray, wanted: Wanted) -> list[Hit]:
    """Find the neighbours of a unit vector [d], best first."""

    def keep(item_id: str) -> bool:
        if item_id in wanted.exclude:
            return False
        return not wanted.categories or catalogue.item(item_id).category in wanted.categories

    deep = wanted.k * max(FOLDED_FROM if wanted.fold is not None else 1, DIVERSE_FROM if wanted.diversify else 1)
    hits = [Hit(n.id, n.score) for n in catalogue.near(query, deep, keep)]
    if wanted.fold is not None or wanted.diversify:
        vectors = (
            np.stack([catalogue.vector(hit.id) for hit in hits]) if hits else np.empty((0, len(query)), np.float32)
        )
        if wanted.fold is not None:
            hits, vectors = _folded(hits, vectors, wanted.fold)
        if wanted.diversify:
            hits = _diverse(hits, vectors, wanted.k, wanted.diversify)
    return hits[: wanted.k]


def _folded(hits: list[Hit], vectors: np.ndarray, limit: float) -> tuple[list[Hit], np.ndarray]:
    """Fold each hit into the best one that it is a near-duplicate of."""
    kept: list[int] = []
    for n, hit in enumerate(hits):
        alike = vectors[kept] @ vectors[n] if kept else np.empty(0)
        if len(alike) and float(alike.max()) >= limit:
            hits[kept[int(alike.argmax())]].folded.append(hit.id)
        else:
            kept.append(n)
    return [hits[n] for n in kept], vectors[kept]


def _diverse(hits: list[Hit], vectors: np.ndarray, k: int, weight: float) -> list[Hit]:
    """Choose k hits one by one: each by its score, less its likeness to those that are chosen."""
    scores, like = np.array([hit.score for hit in hits]), np.full(len(hits), -1.0)
    left, chosen = list(range(len(hits))), list[int]()
    while left and len(chosen) < k:
        gains = (1 - weight) * scores[left] - (weight * like[left] if chosen else 0)
        best = left.pop(int(np.argmax(gains)))
        chosen.append(best)
        like = np.maximum(like, vectors @ vectors[best])
    return [hits[n] for n in chosen]


def explain(catalogue: Catalogue, hits: list[Hit], views: dict[str, np.ndarray], exclude: frozenset[str]) -> None:
    """Say of each hit how each view of the query alone scores it, and at which rank it would stand; None beyond the first DEEP."""
    ranks: dict[str, dict[str, int]] = {}
    for view, vector in views.items():
        near: list[Neighbour] = catalogue.near(vector, DEEP, lambda i: i not in exclude)
        ranks[view] = {n.id: place for place, n in enumerate(near, 1)}
    for hit in hits:
        own = catalogue.vector(hit.id)
        hit.why = {
            view: {"score": round(float(own @ vector), 6), "rank": ranks[view].get(hit.id)}
            for view, vector in views.items()
        }
