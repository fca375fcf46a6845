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
Resizer = Literal["pillow", "torch"]
MODES = {int(Image.Resampling.BILINEAR): "bilinear", int(Image.Resampling.BICUBIC): "bicubic"}


CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageTransform:
    """The steps from an image to a vision encoder's pixels.

    fit: `crop` scales the short side to `resize` and cuts the centre: a long image loses its ends; `squash` changes the
    proportions; `pad` keeps everything on a ground of the mean colour.
    resizer: `torch` computes the same filter several times faster, at most two levels of 255 off; where it has none (other filters than
    bilinear and bicubic, `pad`), Pillow does it.

    Raises:
        ValueError: colours that are not three, a deviation of 0, no filter of Pillow's, a crop that is larger than what it is cut from.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "crop"
    resize: int | None = None  # short side before the crop; None: size
    resample: int = int(Image.Resampling.BICUBIC)
    resizer: Resizer = "pillow"

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or 0 in self.std:
            raise ValueError(
                f"mean {list(self.mean)} and std {list(self.std)} are not three colours, divided by something"
            )
        if self.resample not in set(map(int, Image.Resampling)):
            raise ValueError(f"resample {self.resample!r} is no filter of Pillow's")
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"a crop of {self.size} px is larger than the picture's short side, {self.resize} px")

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Transform an RGB image to float pixels [3, size, size]."""
        import torch

        levels = self._levels(image)
        top, left = (levels.shape[0] - self.size) // 2, (levels.shape[1] - self.size) // 2
        levels = levels[top : top + self.size, left : left + self.size]
        pixels = torch.from_numpy(levels.astype(np.float32) / 255).permute(2, 0, 1)
        return (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]

    def _levels(self, image: Image.Image) -> np.ndarray:
        """Scale an image: 8 bits [H, W, 3], of which the centre is looked at."""
        shape = (self.size, self.size)
        if self.fit == "pad":
            ground = tuple(round(255 * m) for m in self.mean)
            return np.asarray(ImageOps.pad(image, shape, Image.Resampling(self.resample), color=ground))
        if self.fit == "crop":
            short = self.resize or self.size
            image = _less_long(image)
            scale = short / min(image.size)
            shape = (max(short, round(image.width * scale)), max(short, round(image.height * scale)))
        if self.resizer == "torch" and self.resample in MODES:
            return _resized(image, shape, MODES[self.resample])
        return np.asarray(image.resize(shape, Image.Resampling(self.resample)))

    @property
    def id(self) -> str:
        facts = asdict(self)
        if self.resizer == "pillow":  # as those have it that were saved before there was another one
            del facts["resizer"]
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _resized(image: Image.Image, shape: tuple[int, int], mode: str) -> np.ndarray:
    """Scale an image to this width and height by torch's filters for 8 bits: [H, W, 3]."""
    import torch
    from torch.nn import functional as F

    levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    found = F.interpolate(levels, shape[::-1], mode=mode, align_corners=False, antialias=True)
    array: np.ndarray = found[0].permute(1, 2, 0).numpy()
    return array


def _less_long(image: Image.Image, most: int = 8) -> Image.Image:
    """Cut the far ends off a very long image, which a centre crop loses anyway, before it is scaled."""
    reach = most * min(image.size)
    left, top = max(0, (image.width - reach) // 2), max(0, (image.height - reach) // 2)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image
