"""Images through a vision encoder, a few at a time where that is faster."""

from __future__ import annotations

import torch
from torch import Tensor

from n2kit.contract.interfaces import VisionEncoder, VisionOut

# On a CPU a convolutional encoder takes 6 times as long an image in one batch of 64: its maps no longer fit the processor's cache.
IMAGES_TOGETHER = 8


def encode_images(vision: VisionEncoder, pixels: Tensor) -> VisionOut:
    """Encode pixels [I, 3, H, W] to tokens [I, N, Dv] and pooled [I, Dp].

    On a CPU a frozen encoder gets a few images at a time; one that is trained gets all of them, for its batch norm.
    """
    if pixels.device.type != "cpu" or not vision.frozen or len(pixels) <= IMAGES_TOGETHER:
        return vision(pixels)  # type: ignore[no-any-return]
    return VisionOut.merge([vision(some) for some in pixels.split(IMAGES_TOGETHER)], torch.cat)
