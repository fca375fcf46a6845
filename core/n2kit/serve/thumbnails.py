"""Small copies of pictures, the last ones kept."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from n2kit.data.items import Item
from n2kit.pages.thumbnails import small_copy

SIDES = (160, 320, 640)  # pixels
KEPT = 1000


@lru_cache(maxsize=KEPT)
def thumbnail(item: Item, images: Path | None, side: int) -> bytes | None:
    """Make a small copy of an item's picture, or take the one that is kept."""
    return small_copy(item, images, side)
