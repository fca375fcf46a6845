"""A store as an index: its rows are numbered in the order in which it gives its ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Never, Self

import numpy as np

from n2kit.contract.index import Index
from n2kit.contract.store import ID, VECTOR, AllOf, AnyOf, Comparison, Condition, Negation, Store
from n2kit.errors import BadInput
from n2kit.index.where import holds

AT_ONCE = 4096  # ids whose vectors are asked for together


class InStore(Index):
    """The rows of a store as they were when it was opened: what came since is not seen.

    fields: of the store, with their types. columns: the field of each column that conditions name.
    """

    def __init__(
        self, store: Store, ids: Sequence[str], width: int, fields: Mapping[str, type], columns: Mapping[str, str]
    ) -> None:
        self.store, self.ids, self._width, self.fields = store, ids, width, fields
        self.columns = {**columns, ID: ID}
        self.position = {item_id: row for row, item_id in enumerate(ids)}

    @classmethod
    def build(cls, vectors: np.ndarray, config: Any) -> Never:
        raise in_its_folder("a store")

    def updated(self, rows: np.ndarray, vectors: np.ndarray, config: Any) -> Never:
        raise in_its_folder("a store")

    def save(self, folder: Path) -> Never:
        raise in_its_folder("a store")

    @classmethod
    def load(cls, folder: Path) -> Self:
        raise in_its_folder("a store")

    @property
    def rows(self) -> int:
        return len(self.ids)

    @property
    def width(self) -> int:
        return self._width

    def vector(self, row: int) -> np.ndarray:
        found: np.ndarray = self.store.vectors([self.ids[row]])[0]
        return found

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self._width), np.float32)
        for start in range(0, len(rows), AT_ONCE):
            some = rows[start : start + AT_ONCE]
            found[start : start + len(some)] = self.store.vectors([self.ids[row] for row in some])
        return found

    def search(self, queries: np.ndarray, k: int, condition: Condition | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest of the rows that satisfy a condition on columns, as `Index.search` does."""
        wanted = None if condition is None else named(condition, self.columns)
        most, queries = min(k, len(self.ids)), np.ascontiguousarray(queries, np.float32)
        within = self.store.MOST is None or most <= self.store.MOST
        found = self.store.search(queries, most, wanted) if within else self._compared(queries, most, wanted)
        scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        for n, (ids, own) in enumerate(found):
            known = [
                (self.position[i], score) for i, score in zip(ids, own.tolist(), strict=True) if i in self.position
            ]
            for place, (row, score) in enumerate(known[:k]):
                rows[n, place], scores[n, place] = row, score
        return scores, rows

    @property
    def finds_words(self) -> bool:
        return type(self.store).match is not Store.match

    def match(self, words: str, k: int, field: str, condition: Condition | None) -> list[tuple[str, float]]:
        """Find the k rows whose texts in a field hold some of these words, best first: ids and scores."""
        found = self.store.match(words, k, field, None if condition is None else named(condition, self.columns))
        return [(item_id, score) for item_id, score in found if item_id in self.position]

    def _compared(
        self, queries: np.ndarray, k: int, wanted: Condition | None
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """Compare the queries with every vector: more neighbours are wanted than the store's own search gives."""
        ids, scores = list[str](), list[np.ndarray]()
        fields = {} if wanted is None else {name: self.fields[name] for name in sorted(fields_of(wanted))}
        for piece in self.store.scan(fields, vectors=True):
            keep = np.ones(len(piece[ID]), bool) if wanted is None else holds(wanted, piece)
            ids += piece[ID][keep].tolist()
            scores.append(queries @ piece[VECTOR][keep].T)
        for own in np.concatenate(scores, axis=1):
            best = np.argsort(-own, kind="stable")[:k]
            yield [ids[n] for n in best], own[best]


def named(condition: Condition, columns: Mapping[str, str]) -> Condition:
    """Put the store's fields in place of the columns that a condition names."""
    return _mapped(condition, lambda one: Comparison(columns[one.field], one.sign, one.value))


def fields_of(condition: Condition) -> set[str]:
    """List the fields that a condition is on."""
    match condition:
        case Negation(of):
            return fields_of(of)
        case AllOf(several) | AnyOf(several):
            return set[str]().union(*map(fields_of, several))
    return {condition.field}


def _mapped(condition: Condition, change: Callable[[Comparison], Comparison]) -> Condition:
    def each(some: Iterable[Condition]) -> tuple[Condition, ...]:
        return tuple(_mapped(one, change) for one in some)

    match condition:
        case Negation(of):
            return Negation(_mapped(of, change))
        case AllOf(several):
            return AllOf(each(several))
        case AnyOf(several):
            return AnyOf(each(several))
    return change(condition)


def in_its_folder(what: str) -> BadInput:
    """Make the error that says how a store is built."""
    return BadInput(
        f"{what} is built and changed in its own folder, and not in memory", "n2kit index VECTORS -o FOLDER --type NAME"
    )
