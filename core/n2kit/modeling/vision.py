"""Images through a vision encoder, a few at a time where that is faster."""

from __future__ import annotations

import torch
from torch import Tensor

from n2kit.contract.interfaces import VisionEncoder, VisionOut

# On a CPU a convolutional encoder takes 6 times as long an image in one batch of 64: its maps no longer fit the processor's cache.
IMAGES_TOGETHER = 8


def look(vision: VisionEncoder, pixels: Tensor) -> VisionOut:
    """The encoder's output for pixels [I, 3, H, W]; on a CPU, where it is frozen, a few pictures at a time."""
    if pixels.device.type != "cpu" or not vision.frozen or len(pixels) <= IMAGES_TOGETHER:
        return vision(pixels)  # type: ignore[no-any-return]
    return VisionOut.merge([vision(some) for some in pixels.split(IMAGES_TOGETHER)], torch.cat)
