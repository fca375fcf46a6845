"""Items as a program gives them: texts, images, dicts, `Item`s, one or many."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from n2kit.data.columns import fields_of
from n2kit.data.items import Item, item_of
from n2kit.data.several_images import first_image
from n2kit.errors import BadInput, counted

LOG = logging.getLogger("n2kit")
Given = Item | str | Mapping[str, Any] | bytes | os.PathLike[str] | Iterable[Any]  # one item, or many


def as_items(given: Given) -> list[Item]:
    """Make items of whatever is given: one of them or any number; those without an id are numbered.

    A text is a title; a dict has the fields of an item, under their names or usual synonyms; a `Path`, bytes, an image of Pillow or an
    array is an image.

    Raises:
        BadInput: with its place, one that is none of these, or has an unknown key.
    """
    if isinstance(given, Item | str | Mapping) or _is_image(given):
        given = [given]
    if not isinstance(given, Iterable):
        raise BadInput(f"items are a {type(given).__name__}", "a list of texts, dicts or Items")
    made = [_item(one, number) for number, one in enumerate(given)]
    if several := sum(count > 1 for _, count in made):
        LOG.warning("%s with several images: the first of each is read", counted(several, "item"))
    return [item for item, _ in made]


def _item(one: Any, number: int) -> tuple[Item, int]:
    """Make an item of one object; also return how many images it came with."""
    if isinstance(one, Item):
        return one, 1
    fields: dict[str, Any] = {"id": str(number)}
    if isinstance(one, str):
        fields["title"] = one
    elif isinstance(one, Mapping):
        fields |= {name: _plain(value, name) for name, value in fields_of(one, f"item {number}").items()}
    elif _is_image(one):
        fields["image"] = one
    else:
        raise BadInput(f"item {number} is a {type(one).__name__}", "a text, a dict, an Item or an image")
    fields["image"], count = first_image(fields.get("image"))
    try:
        return item_of(fields), count
    except BadInput as problem:
        raise BadInput(f"item {fields['id']!r}: {problem.message}", problem.hint) from None


def _is_image(one: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")
    if isinstance(one, bytes | bytearray | memoryview | os.PathLike) or (pillow and isinstance(one, pillow.Image)):
        return True
    return (
        type(one).__module__ == "numpy" and getattr(one, "dtype", None) == "uint8" and getattr(one, "ndim", 0) in (2, 3)
    )


def _plain(value: Any, name: str) -> Any:
    """Return a value of numpy, or a set, as Python's own; an image stays what it is."""
    if name != "image" and type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else value
