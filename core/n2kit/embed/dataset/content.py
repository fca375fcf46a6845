"""Hashes of what a model reads of an item, so that what has changed is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from n2kit.data.image_digests import image_contents

if TYPE_CHECKING:
    from n2kit.data.item import Item

BYTES = 16


def contents_of(items: Sequence[Item], images: Path | None, *, reads_images: bool) -> list[bytes]:
    """Hash each item with its id, its texts and its image's bytes: 16 bytes each.

    Args:
        reads_images: whether the model does; otherwise they change nothing.
    """
    names = [item.image if reads_images else "" for item in items]
    found = image_contents(names, images)
    return [
        _hash([item.id, item.title, item.topics, item.content, item.category, name and (image or f"no file {name}")])
        for item, name, image in zip(items, names, found, strict=True)
    ]


def total(contents: Iterable[bytes], before: str = "") -> str:
    """Add hashes up, in any order: what identifies a set of items, in hexadecimal."""
    found = int(before or "0", 16) + sum(int.from_bytes(content, "big") for content in contents)
    return f"{found % (1 << 8 * BYTES):032x}"


def _hash(fields: list[object]) -> bytes:
    return hashlib.blake2b(
        json.dumps(fields, ensure_ascii=False).encode("utf8", "surrogatepass"), digest_size=BYTES
    ).digest()
