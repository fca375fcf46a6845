"""Small copies of pictures, the last ones kept."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from pathlib import Path

from n2kit.data.images import UnreadableImage, open_image
from n2kit.data.items import Item

SIDES = (160, 320, 640)  # pixels
KEPT = 1000


@lru_cache(maxsize=KEPT)
def thumbnail(item: Item, images: Path | None, side: int) -> bytes | None:
    """Make a small copy of an item's picture, or take the one that is kept."""
    return small_copy(item, images, side)


def small_copy(item: Item, images: Path | None, side: int) -> bytes | None:
    """Make a small copy of an item's picture, WebP; None where there is none, or none that can be read."""
    if not item.image:
        return None
    try:
        image = open_image(item, images)
    except UnreadableImage:
        return None
    image.thumbnail((side, side))
    file = BytesIO()
    image.save(file, "WEBP", quality=82)
    return file.getvalue()
