"""The image transform of a vision encoder, as data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    import torch

Fit = Literal["crop", "squash", "pad"]


CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageTransform:
    """The steps from an image to a vision encoder's pixels.

    fit: `crop` scales the short side to `resize` and cuts the centre: a long image loses its ends; `squash` changes the
    proportions; `pad` keeps everything on a ground of the mean colour.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "crop"
    resize: int | None = None  # short side before the crop; None: size
    resample: int = int(Image.Resampling.BICUBIC)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Transform an RGB image to float pixels [3, size, size]."""
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
    """Cut the far ends off a very long image, which a centre crop loses anyway, before it is scaled."""
    reach = most * min(image.size)
    left, top = max(0, (image.width - reach) // 2), max(0, (image.height - reach) // 2)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image
