"""One item of a catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from n2kit.data.columns import fields_of
from n2kit.data.image_source import image_of
from n2kit.data.several_images import first_image
from n2kit.data.values import field_text, topics_of
from n2kit.errors import BadInput


@dataclass(frozen=True)
class Item:
    """One item: an id, and whatever else it has. `image` is a path relative to the images folder, or holds an image itself."""

    id: str
    image: str = ""
    title: str = ""
    topics: tuple[str, ...] = ()
    content: str = ""
    category: str = ""

    @property
    def has_text(self) -> bool:
        return bool(self.title or self.topics or self.content)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Item:
        """Make an item from a mapping with any of the fields' names, or synonyms of them.

        The image may be a path, a URL, bytes, a data URI, an image of Pillow, or an array [H, W, 3] of 8 bits; of a list, the first.

        Raises:
            BadInput: no id, an unknown key, or a value that is no text.
        """
        fields = fields_of(row, f"item {row['id']!r}" if "id" in row else "an item")
        return item_of(fields | {"image": first_image(fields.get("image"))[0]})


def item_of(row: Mapping[str, Any]) -> Item:
    """Make an item from field → value, of which any may be missing.

    Raises:
        BadInput: no id, or a value that is no text.
    """
    get = row.get
    item_id = field_text("id", get("id"))
    if not item_id:
        raise BadInput("no id", "every item needs one")
    return Item(
        item_id, image_of(get("image")), field_text("title", get("title")), topics_of(get("topics")),
        field_text("content", get("content")), field_text("category", get("category")),
    )  # fmt: skip


def without_image(item: Item) -> Item:
    return replace(item, image="")


def without_text(item: Item) -> Item:
    return replace(item, title="", topics=(), content="", category="")
