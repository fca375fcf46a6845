"""A frozen vision encoder's output, computed once an item and kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from n2kit.parts import VisionOut

if TYPE_CHECKING:
    from n2kit.parts import VisionEncoder


# On a CPU a convolutional encoder takes 6 times as long an image in one batch of 64: its maps no longer fit the processor's cache.
IMAGES_TOGETHER = 8


def look(vision: VisionEncoder, pixels: Tensor) -> VisionOut:
    """The encoder's output for pixels [I, 3, H, W]; on a CPU, where it is frozen, a few pictures at a time."""
    if pixels.device.type != "cpu" or not vision.frozen or len(pixels) <= IMAGES_TOGETHER:
        return vision(pixels)  # type: ignore[no-any-return]
    return VisionOut.merge([vision(some) for some in pixels.split(IMAGES_TOGETHER)], torch.cat)


class FeatureCache:
    """Image path → tokens [N, Dv], pooled [Dp], mask [N], for one images folder and one frozen encoder, up to `max_bytes`."""

    def __init__(self, vision: VisionEncoder, max_bytes: int) -> None:
        if not vision.frozen:
            raise ValueError("only a frozen encoder's output can be kept")
        self.vision, self.max_bytes, self.bytes = vision, max_bytes, 0
        self.kept: dict[str, VisionOut] = {}

    def __contains__(self, path: object) -> bool:
        return path in self.kept

    def get(self, paths: Sequence[str], pixels: dict[str, Tensor]) -> VisionOut:
        """Output for `paths`, in their order; what is not kept yet is computed from `pixels` (path → [3, H, W])."""
        fresh = self._compute(paths, pixels)
        rows = [self.kept.get(i) or fresh[i] for i in paths]
        return VisionOut.merge(rows, torch.stack)

    def _compute(self, paths: Sequence[str], pixels: dict[str, Tensor]) -> dict[str, VisionOut]:
        missing = [i for i in dict.fromkeys(paths) if i not in self.kept]
        if not missing:
            return {}
        device = next(self.vision.parameters()).device
        with torch.no_grad():
            out = look(self.vision, torch.stack([pixels[i] for i in missing]).to(device))
        out = VisionOut(out.tokens.float(), None if out.pooled is None else out.pooled.float(), out.mask)
        fresh = {}
        for position, path in enumerate(missing):
            row = out.map(lambda t, position=position: t[position].cpu().clone())  # type: ignore[misc]
            size = sum(t.nbytes for t in row if t is not None)
            if self.bytes + size <= self.max_bytes:
                self.kept[path] = row
                self.bytes += size
            fresh[path] = row
        return fresh
