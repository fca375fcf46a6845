"""The titles and pictures of an index's items, so that neighbours can be shown to people."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2kit.data.image_source import GivenImage, image_of, name_of
from n2kit.data.items import Item, Items
from n2kit.data.packed import image_at, place_of
from n2kit.errors import BadInput
from n2kit.utils.files import parse_json

TITLES = "titles.json"


@dataclass(frozen=True)
class Titles:
    """Items by what people see of them, and the folder that their image paths are relative to.

    whole: ids of items that no file has, since a server took them: all of them is remembered, with the picture itself.
    """

    items: Items
    images: Path | None = None
    whole: frozenset[str] = frozenset()

    def title(self, item_id: str) -> str:
        """Return an item's title, or its topics; empty for one that is not known."""
        if item_id not in self.items:
            return ""
        item = self.items[item_id]
        return item.title or ", ".join(item.topics)

    def image(self, item_id: str) -> str:
        """Return the name of an item's image, as its file of items has it; empty where it has none."""
        return name_of(self.items[item_id].image) if item_id in self.items else ""

    def row(self, item_id: str) -> dict[str, Any]:
        """Write what is to be remembered of an item, so that `item_of_row` finds its picture again."""
        image = self.items[item_id].image
        row = {"title": self.title(item_id), "image": str(image)}
        row = whole_row(self.items[item_id]) if item_id in self.whole else row
        place, called = place_of(image), name_of(image)
        return row | ({"place": place} if place else {}) | ({"called": called} if called not in ("", image) else {})


def write_titles(titles: Titles, ids: Iterable[str], folder: Path) -> None:
    """Write title and image of the items of an index into its folder."""
    rows = {i: titles.row(i) for i in ids if i in titles.items}
    images = None if titles.images is None else str(titles.images.resolve())
    text = json.dumps({"images": images, "items": rows}, ensure_ascii=False)
    (folder / TITLES).write_text(text, encoding="utf8")


def read_titles(folder: Path) -> Titles | None:
    """Read what `write_titles` wrote; None from an index that remembers no titles.

    Raises:
        BadInput: the file is something else.
    """
    file = folder / TITLES
    if not file.is_file():
        return None
    content: Any = parse_json(file.read_bytes(), file, hint="index again")
    try:
        items = Items([item_of_row(str(i), row) for i, row in content["items"].items()])
        images, whole = content["images"], frozenset(i for i, row in content["items"].items() if is_whole(row))
        return Titles(items, None if images is None else Path(images), whole)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{file}: not the titles of an index: {error}", "index again") from None


def whole_row(item: Item) -> dict[str, Any]:
    """Write all of an item; a picture that it holds, as a data URI."""
    image = str(item.image)
    if isinstance(item.image, GivenImage) and isinstance(item.image.source, bytes):
        image = f"data:image/webp;base64,{base64.b64encode(item.image.source).decode()}"
    return {
        "title": item.title, "topics": list(item.topics), "content": item.content, "category": item.category, "image": image
    }  # fmt: skip


def is_whole(row: dict[str, Any]) -> bool:
    """Tell whether a row has all of its item."""
    return "content" in row


def item_of_row(item_id: str, row: dict[str, Any]) -> Item:
    """Read an item as it is remembered."""
    image = image_at(str(row["image"]), row.get("place"), str(row.get("called", "")))
    if not is_whole(row):
        return Item(item_id, image=image, title=str(row["title"]))
    texts = {name: str(row[name]) for name in ("title", "content", "category")}
    return Item(item_id, image=image_of(image), topics=tuple(map(str, row["topics"])), **texts)


def newer_titles(before: Titles | None, new: Titles | None, ids: list[str]) -> Titles | None:
    """Take the new items' titles, and the others' from before."""
    if before is None or new is None:
        return new or before
    of = [new.items if item_id in new.items else before.items for item_id in ids]
    items = Items([some[i] for some, i in zip(of, ids, strict=True) if i in some])
    whole = new.whole | {item_id for item_id in before.whole if item_id not in new.items}
    return Titles(items, new.images or before.images, whole.intersection(ids))
