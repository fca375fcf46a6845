"""The interface of a store: a database that keeps vectors and what is known of their items, by ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:
    import numpy as np

ID, VECTOR = "id", "vector"  # fields of every store
FULL_TEXT = "full-text"  # the capability of a store whose `match` finds words
Sign = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True)
class Comparison:
    """A condition on one field, of texts or of numbers; an item without a value does not satisfy it."""

    field: str
    sign: Sign
    value: str | float


@dataclass(frozen=True)
class Negation:
    """A condition that holds where another does not."""

    of: Condition


@dataclass(frozen=True)
class AllOf:
    """A condition that holds where all of some hold."""

    of: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    """A condition that holds where one of some holds."""

    of: tuple[Condition, ...]


Condition = Comparison | Negation | AllOf | AnyOf


class Store(ABC):
    """The interface of a plug-in of kind `index` that keeps items in a database, changed in place.

    A row has `id`, `vector` of unit length, and further fields: texts, "" for none, or numbers, NaN for none. Their names are letters,
    digits and underscores. Scores are dot products, higher is nearer. What a method has done is there for whoever opens the store next.
    """

    MOST: ClassVar[int | None] = None  # neighbours that a search gives at most

    @classmethod
    @abstractmethod
    def create(cls, folder: Path, width: int, fields: Mapping[str, type], config: Any, *, replace: bool) -> Self:
        """Make a store without rows, of vectors [width] and fields, each `str` or `float`.

        Args:
            folder: an empty one for what is kept on this machine. Where the config names another place, nothing is put there.
            config: the pydantic model that the spec names. replace: what is in that place already may be removed.

        Raises:
            BadInput: something is in that place. Unavailable: it cannot be reached.
        """

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, config: Any) -> Self:
        """Open a store that `create` made.

        Raises:
            BadInput: it is not there, or damaged. Unavailable: it cannot be reached.
        """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def add_fields(self, fields: Mapping[str, type]) -> None:
        """Add fields, without values in the rows that are there; one that is there already stays."""

    @abstractmethod
    def upsert(self, ids: Sequence[str], vectors: np.ndarray, fields: Mapping[str, np.ndarray]) -> None:
        """Put rows in, in place of those of the same ids: vectors [n, d], and of each field [n]. No id is there twice."""

    def insert(self, ids: Sequence[str], vectors: np.ndarray, fields: Mapping[str, np.ndarray]) -> None:
        """Put rows in, of which none is there yet."""
        self.upsert(ids, vectors, fields)

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> None:
        """Delete rows by ids; those that are not there are no error."""

    @abstractmethod
    def scan(self, fields: Mapping[str, type], *, vectors: bool = False) -> Iterator[dict[str, np.ndarray]]:
        """Yield all rows in pieces, in an order that stays while nothing is changed: `id` and these fields [n], and `vector` [n, d]."""

    @abstractmethod
    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Return the vectors of ids that are there, in their order: [n, d]."""

    @abstractmethod
    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None
    ) -> list[tuple[list[str], np.ndarray]]:
        """Find the k nearest of the rows that satisfy a condition, for queries [q, d]: for each, ids and scores, best first.

        Fewer only where fewer satisfy it.
        """

    def index_words(self, field: str) -> None:
        """Prepare a field of texts for `match`. With capability `full-text` alone."""
        raise NotImplementedError

    def match(self, words: str, k: int, field: str, condition: Condition | None = None) -> list[tuple[str, float]]:
        """Find the k rows whose texts hold some of these words, best first: ids and scores. With capability `full-text` alone."""
        raise NotImplementedError

    @abstractmethod
    def compact(self) -> None:
        """Put together what many changes left in small pieces, and see that everything is on disk."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections. Twice is no error."""
