"""Items that were put in or taken out since an index was loaded, in memory: they are gone when the server stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from n2kit.data.items import Item
from n2kit.index import Neighbour
from n2kit.serve.options import MOST_UPSERTS
from n2kit.serve.problems import Problem


@dataclass(frozen=True)
class Layer:
    """One state of an overlay, which nobody changes: items that were put in, with their vectors [n, d], and ids that hide others."""

    items: Mapping[str, Item] = field(default_factory=dict)
    vectors: np.ndarray | None = None
    hidden: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", {item: n for n, item in enumerate(self.items)})

    def vector(self, item_id: str) -> np.ndarray | None:
        row: int | None = self.rows.get(item_id)  # type: ignore[attr-defined]
        return None if row is None or self.vectors is None else self.vectors[row]

    def near(self, vector: np.ndarray, k: int, keep: Callable[[str], bool]) -> list[Neighbour]:
        """Find the k nearest of the items that were put in, among those to keep."""
        if self.vectors is None or not len(self.vectors):
            return []
        scores = self.vectors @ vector
        found = [Neighbour(i, float(s)) for i, s in zip(self.items, scores, strict=True) if keep(i)]
        return sorted(found, key=lambda n: -n.score)[:k]


class Overlay:
    """The states of an overlay, one after the other; a search keeps the one that it began with."""

    def __init__(self) -> None:
        self.layer = Layer()
        self._lock = threading.Lock()

    def upsert(self, items: Iterable[Item], vectors: np.ndarray) -> None:
        """Put items in, in place of those of the same id.

        Raises:
            Problem: more than a server holds beside its index.
        """
        with self._lock:
            old = self.layer
            kept = {i: (item, old.vector(i)) for i, item in old.items.items()}
            new = {item.id: (item, vector) for item, vector in zip(items, vectors, strict=True)}
            merged = kept | new
            if len(merged) > MOST_UPSERTS:
                raise Problem(
                    507, f"{MOST_UPSERTS:,} items are held beside the index", "embed and index them, and reload"
                )
            stacked = np.stack([vector for _, vector in merged.values() if vector is not None])
            self.layer = Layer({i: item for i, (item, _) in merged.items()}, stacked, old.hidden | new.keys())

    def delete(self, ids: Iterable[str]) -> None:
        """Take items out, of the index or put in."""
        gone = set(ids)
        with self._lock:
            old = self.layer
            rows = [n for n, i in enumerate(old.items) if i not in gone]
            items = {i: item for i, item in old.items.items() if i not in gone}
            self.layer = Layer(items, None if old.vectors is None else old.vectors[rows], old.hidden | gone)
