"""Pictures: reading them safely, and the transform of a vision encoder as data."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from n2kit.errors import BadInput

if TYPE_CHECKING:
    import torch

    from n2kit.data.items import Item

Fit = Literal["crop", "squash", "pad"]
WHITE = (255, 255, 255)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # twice as many pixels are an error


class UnreadableImage(BadInput):
    """An item's picture that is missing, broken, or outside the images folder."""


@dataclass(frozen=True)
class ImageTransform:
    """What happens to a picture before a vision encoder sees it.

    fit: `crop` scales the short side to `resize` and cuts the centre: a long picture loses its ends; `squash` changes the
    proportions; `pad` keeps everything on a ground of the mean colour.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "crop"
    resize: int | None = None  # short side before the crop; None: size
    resample: int = int(Image.Resampling.BICUBIC)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """An RGB picture → float pixels [3, size, size]."""
        import torch

        method = Image.Resampling(self.resample)
        shape = (self.size, self.size)
        if self.fit == "squash":
            image = image.resize(shape, method)
        elif self.fit == "pad":
            ground = tuple(round(255 * m) for m in self.mean)
            image = ImageOps.pad(image, shape, method, color=ground)
        else:
            short = self.resize or self.size
            image = _less_long(image)
            scale = short / min(image.size)
            image = image.resize(
                (max(short, round(image.width * scale)), max(short, round(image.height * scale))), method
            )
            left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
            image = image.crop((left, top, left + self.size, top + self.size))
        pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)
        return (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]

    @property
    def id(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _less_long(image: Image.Image, most: int = 8) -> Image.Image:
    """Cut the far ends of a very long picture, which a centre crop loses anyway, before it is scaled."""
    reach = most * min(image.size)
    left, top = max(0, (image.width - reach) // 2), max(0, (image.height - reach) // 2)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image


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
