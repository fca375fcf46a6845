"""Images of items, read safely."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from n2kit.data.image_source import GivenImage, NotFound, locate, name_of
from n2kit.data.packed import Packed, packed_bytes
from n2kit.errors import BadInput, counted

if TYPE_CHECKING:
    from n2kit.data.items import Item

ORIENTATION = 0x0112  # the one tag of EXIF that is read
# Its values, and how such an image becomes upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
WHITE = (255, 255, 255)
# Read by Pillow's own decoders. Others start programs (EPS: Ghostscript) or are rare enough to be an attack more often than an image.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")
SHOWN = 10  # images named in full; the rest are counted
MOST_SIDE = 65_535  # pixels, as many as a JPEG can have
MOST_BYTES = 1_000_000_000  # of what an image takes in memory until it is RGB


warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # twice as many pixels are an error
warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged tags, of no item that could be named


class UnreadableImage(BadInput):
    """An item's image that is missing, broken, or outside the images folder."""


def open_image(item: Item, folder: Path | None) -> Image.Image:
    """Open an item's image as RGB, upright, with transparency on white.

    Raises:
        UnreadableImage: with the item's id and the reason.
    """
    with _opened(item, folder) as image:
        return to_rgb(image)


def check_image(item: Item, folder: Path | None) -> None:
    """Check an item's image as `open_image` would, without decoding it.

    Raises:
        UnreadableImage: with the item's id and the reason.
    """
    with _opened(item, folder):
        pass


def image_content(item: Item, folder: Path | None) -> tuple[bytes, str]:
    """Read the bytes of an item's image, and tell the format that they are of, as files of it end: `jpeg`, `png`.

    Raises:
        UnreadableImage: as `check_image`; or the image was given as pixels, and has no bytes.
    """
    with _opened(item, folder) as image:
        ending = (image.format or "").lower()
    way = "give it as a file or bytes"
    source = _source(item, folder, way)
    if isinstance(source, GivenImage):
        return packed_bytes(source), ending
    if isinstance(source, Image.Image):
        raise UnreadableImage(f"item {item.id!r}: {_shown(item.image)}: pixels without a file", way)
    return source if isinstance(source, bytes) else source.read_bytes(), ending


def check_images(items: Iterable[Item], folder: Path | None) -> None:
    """Check the images of items as `check_image` does, before hours of work that would end at one of them.

    Raises:
        UnreadableImage: all that cannot be read, the first of them with their reasons.
    """
    problems: list[UnreadableImage] = []
    for item in items:
        try:
            if item.image:
                check_image(item, folder)
        except UnreadableImage as problem:
            problems.append(problem)
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    shown = "\n".join(one.message for one in problems[:SHOWN])
    more = f"\n… and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    raise UnreadableImage(f"{counted(len(problems), 'image')} cannot be read\n{shown}{more}", problems[0].hint)


@contextmanager
def _opened(item: Item, folder: Path | None) -> Iterator[Image.Image]:
    """Open an item's image without decoding it; errors become UnreadableImage."""
    way = "--on-bad-image skip|text-only goes on without it"
    source = _source(item, folder, way)
    try:
        with _image(packed_bytes(source) if isinstance(source, GivenImage) else source) as image:
            _check_size(image)
            yield image
        return
    except FileNotFoundError:
        reason = "no such file"
    except UnidentifiedImageError:
        reason = f"not an image of a format that is read ({', '.join(FORMATS)})"
    except Image.DecompressionBombError:
        reason = "too many pixels to be safe"
    except MemoryError:
        reason = "too large for this machine's memory"
    except (
        Exception
    ) as error:  # a damaged file may raise anything: struct.error, TypeError, RuntimeError, NotImplementedError
        reason = str(error).partition("\n")[0] or type(error).__name__
    raise UnreadableImage(f"item {item.id!r}: {_shown(item.image)}: {reason}", way)


def _source(item: Item, folder: Path | None, way: str) -> Any:
    """Find what an item's image is read from: a file, bytes, an image that is open already, or itself, which is packed.

    Raises:
        UnreadableImage: with the item's id and the reason.
    """
    if isinstance(item.image, GivenImage) and not isinstance(item.image.source, Path):
        return item.image if isinstance(item.image.source, Packed) else item.image.source
    try:
        path = item.image.source if isinstance(item.image, GivenImage) else locate(item.image, folder)
        special = path.exists() and not path.is_file()
    except NotFound as problem:
        named = "" if problem.unnamed else f": {_shown(item.image)}"
        raise UnreadableImage(f"item {item.id!r}{named} {problem}", problem.hint or way) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UnreadableImage(f"item {item.id!r}: {_shown(item.image)}: {error}", way) from None
    if special:  # a pipe would be waited for
        raise UnreadableImage(f"item {item.id!r}: {_shown(item.image)}: not a file", way)
    return path


def _shown(name: str) -> str:
    """Write an image's name for a message; one that was given may have none."""
    known = name_of(name)
    return f"image {known[:200]!r}" if known else "the image that was given"


def _image(source: Any) -> AbstractContextManager[Image.Image]:
    """Open a file or bytes; an image that is open stays open."""
    if isinstance(source, Image.Image):
        return nullcontext(source)
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _check_size(image: Image.Image) -> None:
    """Refuse an image that would take too much memory, before it is decoded.

    Raises:
        DecompressionBombError: a side or the decoded size is beyond what is read.
    """
    transparent = "A" in image.getbands() or "transparency" in image.info
    needed = image.width * image.height * (12 if transparent else 4)  # laid on a ground, it is there three times
    if max(image.size) > MOST_SIDE or needed > MOST_BYTES:
        raise Image.DecompressionBombError


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB: upright by its EXIF orientation, transparency on white."""
    image = _upright(image)
    if image.mode == "F":
        raise ValueError("floating-point image without a known range")
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip it to white
        grey = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((grey / (257.0 if grey.max() > 255 else 1.0)).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*WHITE, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says; whatever else EXIF holds is neither read into anything nor written again."""
    image.load()  # TIFF turns itself while loading, and forgets its tag then
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception:  # EXIF that cannot be read says nothing about the pixels
        return image
    turn = TURNS.get(value) if isinstance(value, int) else None
    return image if turn is None else image.transpose(turn)
