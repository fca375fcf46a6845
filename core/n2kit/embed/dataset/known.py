"""The rows that a finished folder holds already, so that only new and changed items are embedded."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from n2kit.data.item import Item
from n2kit.embed.dataset.content import BYTES
from n2kit.embed.dataset.reading import Dataset


class KnownRows:
    """The rows of a folder by id, in 40 bytes each: a hash of the id, the content, the place, and whether it stays."""

    def __init__(self, dataset: Dataset) -> None:
        keys, contents, places = [], [], []
        for number, live, table in dataset.tables():
            if len(live):
                rows = table.select(["id", "content"]).take(live)
                keys.append(np.fromiter(map(hash, rows.column("id").to_pylist()), np.int64, len(live)))
                contents.append(np.frombuffer(b"".join(rows.column("content").to_pylist()), f"S{BYTES}"))
                places.append(np.stack([np.full(len(live), number), live], axis=1))
        all_keys = np.concatenate(keys)
        order = np.argsort(all_keys, kind="stable")
        self.keys = array("q", all_keys[order].tobytes())
        # As two numbers: a text of numpy's would lose the zero bytes at its end.
        self.contents = np.concatenate(contents).view(np.uint64).reshape(-1, 2)[order]
        self.places = np.concatenate(places)[order]
        self.stays = np.zeros(len(order), bool)

    def new(self, items: Sequence[Item], contents: Sequence[bytes]) -> list[Item]:
        """Return the items that are not there, or not with this content; the rows of the others stay."""
        return [item for item, content in zip(items, contents, strict=True) if not self._keep(item.id, content)]

    def _keep(self, item_id: str, content: bytes) -> bool:
        key = hash(item_id)
        place = bisect_left(self.keys, key)
        wanted = np.frombuffer(content, np.uint64)
        while place < len(self.keys) and self.keys[place] == key:
            if (self.contents[place] == wanted).all():
                self.stays[place] = True
                return True
            place += 1
        return False

    def gone(self) -> np.ndarray:
        """Return the places of the rows that do not stay: [n, 2], shard and row, in order."""
        found = self.places[~self.stays]
        return found[np.lexsort((found[:, 1], found[:, 0]))]
