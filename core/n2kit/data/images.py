"""Pictures: reading them safely, and the transform of a vision encoder as data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from n2kit.errors import BadInput

if TYPE_CHECKING:
    from n2kit.data.items import Item

WHITE = (255, 255, 255)


warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # twice as many pixels are an error


class UnreadableImage(BadInput):
    """An item's picture that is missing, broken, or outside the images folder."""


def open_image(item: Item, folder: Path | None) -> Image.Image:
    """An item's picture as RGB: upright, transparency laid on white.

    Raises:
        UnreadableImage: with the item's id and the reason.
    """
    with _opened(item, folder) as image:
        return to_rgb(image)


def check_image(item: Item, folder: Path | None) -> None:
    """Raises UnreadableImage where `open_image` would, but for what only decoding tells."""
    with _opened(item, folder):
        pass


@contextmanager
def _opened(item: Item, folder: Path | None) -> Iterator[Image.Image]:
    """An item's picture, not decoded yet; what goes wrong with it is told as UnreadableImage."""
    if folder is None:
        raise UnreadableImage(f"item {item.id!r} has an image, but no images folder is given", "--images DIR")
    way = "--on-bad-image skip|text-only goes on without it"
    try:
        root = folder.resolve()
        path = (root / item.image).resolve()
        special = path.exists() and not path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise UnreadableImage(f"item {item.id!r}: image {item.image!r}: {error}", way) from None
    if not path.is_relative_to(root):
        raise UnreadableImage(
            f"item {item.id!r}: image {item.image!r} lies outside the images folder", "use a path inside it"
        )
    if special:  # a pipe would be waited for
        raise UnreadableImage(f"item {item.id!r}: image {item.image!r}: not a file", way)
    try:
        with Image.open(path) as image:
            yield image
        return
    except FileNotFoundError:
        reason = "no such file"
    except UnidentifiedImageError:
        reason = "not an image"
    except Image.DecompressionBombError:
        reason = "too many pixels to be safe"
    except MemoryError:
        reason = "too large for this machine's memory"
    except (OSError, SyntaxError, ValueError) as error:
        reason = str(error) or type(error).__name__
    raise UnreadableImage(f"item {item.id!r}: image {item.image!r}: {reason}", way)


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright by its EXIF mark, transparency laid on white, RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point picture without a known range")
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip it to white
        grey = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((grey / (257.0 if grey.max() > 255 else 1.0)).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*WHITE, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")
