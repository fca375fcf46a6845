"""Reading of files, and of tables that are in memory already; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from n2kit.api.in_python import in_python
from n2kit.data import fetch as fetching
from n2kit.data import items as item_files
from n2kit.data import pairs as pair_files
from n2kit.data.given import as_items
from n2kit.data.image_source import URL
from n2kit.data.items import Item, Items
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput

read_items = in_python(item_files.read_items)
read_pairs = in_python(pair_files.read_pairs)


class DataFrame(Protocol):
    """A table of pandas: what is used of it."""

    def to_dict(self, orient: Any) -> Any:
        """Return its rows as dicts, where `orient` is `records`."""


SomeItems = Items | str | Path | DataFrame | Iterable[Item | Mapping[str, Any]]
SomePairs = Pairs | str | Path | DataFrame | Iterable[tuple[str, str] | Mapping[str, Any]]


@in_python
def fetch_images(items: SomeItems, folder: str | Path, *, private: bool = False) -> dict[str, str]:
    """Download the images that are URLs into a folder, once; `images=folder` finds them there. Return item id → reason of failures.

    >>> n2kit.fetch_images("items.jsonl", "fetched")  # where no image is a URL, none is asked for
    {}

    Args:
        private: addresses of this machine and of private networks are allowed, too.
    """
    catalogue = items_of(items)
    failed = fetching.fetch_images((i.image for i in catalogue if URL.match(i.image)), Path(folder), private=private)
    return {item.id: failed[item.image] for item in catalogue if item.image in failed}


def items_of(given: SomeItems) -> Items:
    """Make a catalogue of a file, a table, or items and dicts.

    Raises:
        BadInput: no id, or one that is there twice; what `read_items` raises.
    """
    if isinstance(given, Items):
        return given
    if isinstance(given, str | Path):
        return item_files.read_items(given)
    rows = given.to_dict("records") if hasattr(given, "to_dict") else given
    found = as_items(rows)
    items = Items(found)
    if len(items.position) != len(found):
        twice = next(item.id for n, item in enumerate(found) if items.position[item.id] != n)
        raise BadInput(f"two items have the id {twice!r}", "one row an item")
    if not found:
        raise BadInput("no items", "give at least one")
    return items


def pairs_of(given: SomePairs, items: Items) -> Pairs:
    """Make pairs of a file, a table, dicts, or tuples of two ids. Grades and hard negatives are read of columns that are called so.

    Raises:
        BadInput: an id that no item has; what `read_pairs` raises.
    """
    if isinstance(given, Pairs):
        return given
    if isinstance(given, str | Path):
        return pair_files.read_pairs(given, items, graded=True, negatives=True)
    return pair_files.given_pairs(given.to_dict("records") if hasattr(given, "to_dict") else given, items)
