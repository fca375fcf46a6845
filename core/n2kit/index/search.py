"""A search among the items that a condition allows, without near-duplicates, and with some variety."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from n2kit.contract.store import ID, Condition
from n2kit.errors import BadInput
from n2kit.index.facts import Facts
from n2kit.index.folder import Neighbour, StoredIndex
from n2kit.index.in_store import InStore, fields_of
from n2kit.index.where import holds, parse

FEW = 20_000  # allowed items that are all compared: an index could not skip the others
POOL = 5  # candidates a place, from which variety is chosen


@dataclass
class Hit:
    """A neighbour, and the ids of the near-duplicates that are left out for it, best first."""

    id: str
    score: float
    folded: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search.

    where: a condition on columns. diversify: from 0, by likeness alone, to 1, by difference from what stands above alone (MMR).
    distinct: a cosine; an item that is nearer than that to one above it is left out as its near-duplicate.
    """

    where: str | None = None
    diversify: float = 0.0
    distinct: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            BadInput: one is out of its range.
        """
        if not 0 <= self.diversify <= 1:
            raise BadInput(f"diversify {self.diversify} is no share", "from 0 to 1, for example 0.3")
        if self.distinct is not None and not -1 <= self.distinct <= 1:
            raise BadInput(f"distinct {self.distinct} is no cosine", "for example 0.95")


def search(
    stored: StoredIndex,
    vector: np.ndarray,
    k: int,
    options: SearchOptions | None = None,
    *,
    without: Collection[str] = (),
    facts: Facts | None = None,
) -> list[Neighbour]:
    """Find the k items nearest to a unit vector [d] that the options allow; all that are allowed, where those are fewer.

    Args:
        without: ids that are left out. facts: columns for the condition, in place of those that the index remembers.

    Raises:
        BadInput: a condition that is none, or on columns that are not known.
    """
    hits = search_folded(stored, vector, k, options or SearchOptions(), without=without, facts=facts)
    return [Neighbour(hit.id, hit.score) for hit in hits]


def search_folded(
    stored: StoredIndex,
    vector: np.ndarray,
    k: int,
    options: SearchOptions,
    *,
    without: Collection[str] = (),
    facts: Facts | None = None,
) -> list[Hit]:
    """Find what `search` finds, each with the near-duplicates that are left out for it."""
    allowed, condition = np.ones(len(stored.ids), bool), None
    if options.where is not None:
        known = known_facts(stored, facts)
        asked = parse(options.where, known.columns, known.fields)
        if isinstance(stored.index, InStore) and facts is None and ID not in fields_of(asked):
            condition = asked
        else:
            allowed &= holds(asked, known.columns)
    allowed[[stored.position[i] for i in without if i in stored.position]] = False
    most = k * POOL if options.diversify else k
    found = _nearest(stored, vector, allowed, most, condition)
    twins: dict[int, list[int]] = {}
    if options.distinct is not None:
        chosen, twins = _distinct(stored, found, most, options.distinct)
    else:
        chosen = [one for one, _ in zip(found, range(most), strict=False)]
    if options.diversify:
        chosen = _varied(stored, chosen, k, options.diversify)
    return [Hit(stored.ids[row], score, [stored.ids[twin] for twin in twins.get(row, ())]) for row, score in chosen]


def match(stored: StoredIndex, words: str, k: int, condition: str | None = None) -> list[Neighbour]:
    """Find the k items whose titles hold some of these words, best first, among those that a condition allows.

    Raises:
        BadInput: the index finds no words, or remembers no titles; a condition that is none.
    """
    from n2kit.index.store_folder import TITLE

    if not isinstance(stored.index, InStore) or not stored.index.finds_words:
        raise BadInput(
            f"index {stored.made_by.component} finds no words", "n2kit index --type lancedb makes one that does"
        )
    if stored.titles is None:
        raise BadInput("the index remembers no titles, in which words are looked for", "n2kit index --items FILE")
    if not words.strip():
        raise BadInput("--words has no words", "for example --words 'red chair'")
    known = None if condition is None else known_facts(stored, None)
    parsed = None if condition is None or known is None else parse(condition, known.columns, known.fields)
    return [Neighbour(*found) for found in stored.index.match(words, k, TITLE, parsed)]


def mean_vector(stored: StoredIndex, ids: Sequence[str]) -> np.ndarray:
    """Return the middle of the vectors of items, of unit length: [d].

    Raises:
        BadInput: one is not in the index; they cancel each other out.
    """
    return middle_of(np.stack([stored.vector_of(item_id) for item_id in ids]))


def middle_of(vectors: np.ndarray) -> np.ndarray:
    """Return the middle of unit vectors [n, d], of unit length: [d]; of one vector, itself.

    Raises:
        BadInput: they cancel each other out.
    """
    if len(vectors) == 1:
        return vectors[0]  # type: ignore[no-any-return]
    middle = vectors.mean(axis=0)
    length = float(np.linalg.norm(middle))
    if length < 1e-6:
        raise BadInput("these items point in opposite directions: nothing is between them", "give fewer of them")
    unit: np.ndarray = middle / length
    return unit


def known_facts(stored: StoredIndex, facts: Facts | None) -> Facts:
    """Return the columns that a condition may be on, in the order of the index: of the items, and their ids as `id`.

    Raises:
        BadInput: none are known.
    """
    known = facts or stored.facts
    if known is None:
        raise BadInput(
            "--where needs the items' columns, which this index does not remember",
            "--items FILE, here or of n2kit index",
        )
    return Facts(stored.ids, {**known.of(stored.ids), ID: stored.id_column}, known.fields)


def _nearest(
    stored: StoredIndex, vector: np.ndarray, allowed: np.ndarray, most: int, condition: Condition | None
) -> Iterator[tuple[int, float]]:
    """Yield the allowed rows with their scores, best first; about `most` are wanted.

    condition: of a store, which leaves out the others itself.
    """
    count = int(allowed.sum())
    if count <= FEW and count < len(allowed) // 2:
        rows = np.nonzero(allowed)[0]
        scores = stored.index.vectors(rows) @ vector if count else np.zeros(0)
        for n in np.lexsort((rows, -scores)):
            yield int(rows[n]), float(scores[n])
        return
    reach, given = (
        most + int((~allowed).sum()),
        set[int](),
    )  # an approximate index may find others when it is asked for more
    reach = min(reach, 4 * most + 64)
    while True:
        reach = min(len(allowed), reach)
        found_scores, found = _searched(stored, vector, reach, condition)
        for row, score in zip(found[0].tolist(), found_scores[0].tolist(), strict=True):
            if row >= 0 and allowed[row] and row not in given:
                given.add(row)
                yield row, score
        if reach == len(allowed) or (condition is not None and (found < 0).any()):
            return
        reach *= 4


def _searched(
    stored: StoredIndex, vector: np.ndarray, reach: int, condition: Condition | None
) -> tuple[np.ndarray, np.ndarray]:
    if condition is not None and isinstance(stored.index, InStore):
        return stored.index.search(vector[None], reach, condition)
    return stored.index.search(vector[None], reach)


def _distinct(
    stored: StoredIndex, found: Iterator[tuple[int, float]], most: int, limit: float
) -> tuple[list[tuple[int, float]], dict[int, list[int]]]:
    """Take rows that are no near-duplicates of better ones; each with those that are its own, as far as they stand above the next."""
    chosen: list[tuple[int, float]] = []
    twins: dict[int, list[int]] = {}
    vectors = np.empty((min(most, len(stored.ids)), stored.width), np.float32)
    for row, score in found:
        own = stored.index.vector(row)
        alike = vectors[: len(chosen)] @ own
        if len(chosen) and float(alike.max()) > limit:
            twins.setdefault(chosen[int(alike.argmax())][0], []).append(row)
        elif len(chosen) == most:
            break
        else:
            vectors[len(chosen)] = own
            chosen.append((row, score))
    return chosen, twins


def _varied(stored: StoredIndex, pool: list[tuple[int, float]], k: int, weight: float) -> list[tuple[int, float]]:
    """Choose k rows one after the other: like the query, and unlike those that are chosen (maximal marginal relevance)."""
    if not pool:
        return []
    vectors = stored.index.vectors(np.array([row for row, _ in pool]))
    likeness = np.array([score for _, score in pool])
    nearest, left, chosen = np.full(len(pool), -1.0), np.ones(len(pool), bool), list[int]()
    while left.any() and len(chosen) < k:
        value = (1 - weight) * likeness - weight * (nearest if chosen else 0 * nearest)
        best = int(np.where(left, value, -np.inf).argmax())
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return [pool[n] for n in chosen]
