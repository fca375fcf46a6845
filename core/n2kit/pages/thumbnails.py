"""Small copies of pictures."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

from n2kit.data.image_source import needs_folder
from n2kit.data.images import UnreadableImage, open_image
from n2kit.data.item import Item


def small_copy(item: Item, images: Path | None, side: int, quality: int = 82) -> bytes | None:
    """Make a small copy of an item's picture, WebP; None where there is none, or none that can be read."""
    if not item.image or (images is None and needs_folder(item.image)):
        return None
    try:
        image = open_image(item, images)
    except UnreadableImage:
        return None
    image.thumbnail((side, side))
    file = BytesIO()
    image.save(file, "WEBP", quality=quality)
    return file.getvalue()


def data_uri(webp: bytes | None) -> str:
    """Write a small copy as a data URI; empty where there is none."""
    return "" if webp is None else f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
