"""Gemma 4's vision tower as n2kit's `VisionEncoder`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from n2kit.contract import ImageTransform, LoadSpec, VisionCard, VisionOut
from n2kit_mllm.cards import GEMMA4, side_of
from n2kit_mllm.tower import MLLMTower


class Gemma4Tower(MLLMTower):
    """Gemma 4's tower, which pools squares of patches, at one square size; a pooled vector with pool: mean."""

    family = GEMMA4

    @classmethod
    def of(cls, model: Any, whole: Any, spec: LoadSpec) -> Self:
        options = spec.config
        # Trained at any proportions; the tower itself brings pixels from 0 … 1 to −1 … 1.
        return cls(
            model, ImageTransform(options.image_size, (0.0,) * 3, (1.0,) * 3, options.fit or "pad"), options.pool
        )

    def measure_card(self) -> VisionCard:
        config, size = self.model.config, self.image_transform.size
        return VisionCard(
            tokens=side_of(size, config.patch_size, config.pooling_kernel_size) ** 2,
            token_width=config.hidden_size,
            pooled_width=config.hidden_size if self.pool else 0,
            image_size=size,
            parameters=sum(p.numel() for p in self.model.parameters()),
        )

    def forward(self, pixels: Tensor) -> VisionOut:
        patch = self.model.config.patch_size
        side = pixels.shape[-1] // patch
        cells = pixels.unflatten(3, (side, patch)).unflatten(2, (side, patch))
        flat = cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # [I, S², patch² · 3]
        rows, columns = torch.meshgrid(*[torch.arange(side, device=pixels.device)] * 2, indexing="ij")
        places = torch.stack([columns, rows], -1).flatten(0, 1).expand(len(pixels), -1, -1)
        out = self.model(flat.to(self.model.dtype), places).last_hidden_state
        tokens: Tensor = out.unflatten(0, (len(pixels), -1))
        return VisionOut(tokens, self.pooled(tokens))

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.model.encoder.layers)
