"""An index being served, with its items as people see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from n2kit.data.items import Item
from n2kit.errors import suggest
from n2kit.index import Neighbour, StoredIndex
from n2kit.serve.overlay import Layer, Overlay
from n2kit.serve.problems import Problem

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.serve.engine import Engine, Given


class Catalogue:
    """One index, the items that it is of, and what was put in or taken out since.

    engine: the model that made the index, where it is served; without it, only items of the catalogue can be asked for.
    """

    def __init__(
        self, name: str, stored: StoredIndex, items: Items | None, images: Path | None, engine: Engine | None,
        overlay: Overlay | None = None,
    ) -> None:  # fmt: skip
        self.name, self.stored, self.engine = name, stored, engine
        self._given = items, images
        self.whole = items is not None  # and not titles alone, as an index remembers them
        remembered = stored.titles
        self.items = items if items is not None else remembered.items if remembered else None
        self.images = images if images is not None else remembered.images if remembered else None
        self.overlay = overlay or Overlay()
        self._counted: tuple[Layer, dict[str, int]] | None = None

    def with_index(self, stored: StoredIndex) -> Catalogue:
        """Make a catalogue of a newer index; what was put in or taken out stays so."""
        return Catalogue(self.name, stored, *self._given, self.engine, self.overlay)

    @property
    def views(self) -> list[str]:
        """The views of an item that can be asked for: without --items, its text is not known."""
        return self.engine.views if self.engine is not None and self.whole else ["multimodal"]

    @property
    def width(self) -> int:
        return len(self.stored.index.vector(0))

    def __len__(self) -> int:
        layer = self.overlay.layer
        return (
            sum(i not in layer.hidden for i in self.stored.ids) + len(layer.items)
            if layer.hidden
            else len(self.stored.ids)
        )

    def __contains__(self, item_id: str) -> bool:
        layer = self.overlay.layer
        return item_id in layer.items or (item_id in self.stored.position and item_id not in layer.hidden)

    def ids(self) -> Iterator[str]:
        """Yield the ids of all items, those that were put in first."""
        layer = self.overlay.layer
        yield from layer.items
        yield from (i for i in self.stored.ids if i not in layer.hidden)

    def item(self, item_id: str) -> Item:
        """Return an item, as much of it as is known."""
        if (own := self.overlay.layer.items.get(item_id)) is not None:
            return own
        return self.items[item_id] if self.items is not None and item_id in self.items else Item(item_id)

    def given(self, item_id: str) -> Given:
        """Return an item for the model to read.

        Raises:
            Problem: it is not in the catalogue, or nothing but its id is known.
        """
        from n2kit.serve.engine import Given

        self.vector(item_id)
        if self.items is None or (item_id not in self.items and item_id not in self.overlay.layer.items):
            raise Problem(400, f"of item {item_id!r} nothing but its id is known", "n2kit serve --items FILE")
        return Given(self.item(item_id), self.images)

    def vector(self, item_id: str) -> np.ndarray:
        """Return the vector [d] of an item.

        Raises:
            Problem: it is not in the catalogue.
        """
        layer = self.overlay.layer
        if (own := layer.vector(item_id)) is not None:
            return own
        if item_id not in self.stored.position or item_id in layer.hidden:
            raise Problem(404, f"item {item_id!r} is not in {self.name}", suggest(item_id, self.stored.ids), "id")
        return self.stored.index.vector(self.stored.position[item_id])

    def near(self, vector: np.ndarray, k: int, keep: Callable[[str], bool] = lambda _: True) -> list[Neighbour]:
        """Find the k nearest items to a unit vector [d] among those to keep: the index is asked for more until there are enough."""
        layer = self.overlay.layer
        base = self._near_indexed(vector, k, keep, layer)
        return sorted([*base, *layer.near(vector, k, keep)], key=lambda n: -n.score)[:k]

    def _near_indexed(self, vector: np.ndarray, k: int, keep: Callable[[str], bool], layer: Layer) -> list[Neighbour]:
        deep, every = k + 16, len(self.stored.ids)
        while True:
            found = self.stored.near_vector(vector, min(deep, every))
            kept = [n for n in found if n.id not in layer.hidden and keep(n.id)]
            if len(kept) >= k or deep >= every:
                return kept[:k]
            deep *= 8

    def categories(self) -> dict[str, int]:
        """Count the items of each category, the largest first; again only where items came or went."""
        layer = self.overlay.layer
        if self._counted is None or self._counted[0] is not layer:
            counts = Counter(category for i in self.ids() if (category := self.item(i).category))
            self._counted = layer, dict(counts.most_common())
        return self._counted[1]
