"""An index being served, with its items as people see them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from n2kit.data.items import Item
from n2kit.errors import suggest
from n2kit.index import StoredIndex
from n2kit.index.facts import Facts
from n2kit.serve.problems import Problem

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.serve.engine import Engine, Given


class Catalogue:
    """One state of an index and the items that it is of, which nobody changes: a request keeps the one that it began with.

    engine: the model that made the index, where it is served; without it, only items of the catalogue can be asked for.
    """

    def __init__(
        self, name: str, stored: StoredIndex, items: Items | None, images: Path | None, engine: Engine | None
    ) -> None:
        self.name, self.stored, self.engine = name, stored, engine
        self._given = items, images
        self.whole = items is not None  # and not titles alone, as an index remembers them
        remembered = stored.titles
        self.items = items if items is not None else remembered.items if remembered else None
        self.images = images if images is not None else remembered.images if remembered else None

    def with_index(self, stored: StoredIndex) -> Catalogue:
        """Make a catalogue of a newer index."""
        return Catalogue(self.name, stored, *self._given, self.engine)

    @property
    def views(self) -> list[str]:
        """The views of an item that can be asked for: without --items, its text is not known."""
        return self.engine.views if self.engine is not None and self.whole else ["multimodal"]

    def __len__(self) -> int:
        return len(self.stored.ids)

    def knows(self, item_id: str) -> bool:
        """Tell whether more of an item is known than its id."""
        return self._taken(item_id) is not None or (self.items is not None and item_id in self.items)

    def item(self, item_id: str) -> Item:
        """Return an item, as much of it as is known."""
        if (own := self._taken(item_id)) is not None:
            return own
        return self.items[item_id] if self.items is not None and item_id in self.items else Item(item_id)

    def _taken(self, item_id: str) -> Item | None:
        """Return an item that the server took, which no file has; it is newer than a file's."""
        titles = self.stored.titles
        return titles.items[item_id] if titles is not None and item_id in titles.whole else None

    def given(self, item_id: str) -> Given:
        """Return an item for the model to read.

        Raises:
            Problem: it is not in the catalogue, or nothing but its id is known.
        """
        from n2kit.serve.engine import Given

        self.vector(item_id)
        if not self.knows(item_id):
            raise Problem(400, f"of item {item_id!r} nothing but its id is known", "n2kit serve --items FILE")
        return Given(self.item(item_id), self.images)

    def vector(self, item_id: str) -> np.ndarray:
        """Return the vector [d] of an item.

        Raises:
            Problem: it is not in the catalogue.
        """
        if item_id not in self.stored.position:
            raise Problem(404, f"item {item_id!r} is not in {self.name}", suggest(item_id, self.stored.ids), "id")
        return self.stored.vector_of(item_id)

    @cached_property
    def facts(self) -> Facts:
        """The columns that the index remembers, and the category where the items are given; in the order of the index."""
        ids = self.stored.ids
        known = self.stored.facts or Facts([], {})
        columns = known.of(ids)
        if self.whole:
            columns = columns | {"category": np.array([self.item(i).category for i in ids], object)}
        return Facts(ids, columns, known.fields)

    @property
    def category(self) -> str | None:
        """The column of the categories; None where they are not known."""
        return "category" if self.whole else self.facts.column_for("category")

    def columns_of(self, item_id: str) -> dict[str, str | float]:
        """Return what the index remembers of an item beside its fields: its price, for example."""
        if (known := self.stored.facts) is None:
            return {}
        there = {name: c.tolist()[0] for name, c in known.of([item_id]).items() if known.field_of(name) is None}
        return {name: value for name, value in there.items() if value != "" and value == value}

    @cached_property
    def categories(self) -> dict[str, int]:
        """Count the items of each category, the largest first."""
        if self.category is None or (column := self.facts.columns[self.category]).dtype.kind != "O":
            return {}
        names, counts = np.unique(column[column != ""].astype(str), return_counts=True)
        return {str(names[n]): int(counts[n]) for n in np.lexsort((names, -counts))}
