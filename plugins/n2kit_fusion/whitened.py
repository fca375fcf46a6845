"""Late fusion by whitening: text and image, each whitened by itself, side by side. Nothing in it is trained; `n2kit fit` computes it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from n2kit.contract import Fusion, LLMCard, VisionCard
from n2kit_fusion.plan import NoOptions, image_width


class Whitened(Fusion):
    """[√(1−w) unit(A ñ) ; √w unit(B ṽ)], where ñ and ṽ are the word and the image vector, standardised; w weighs the image.

    Means, scales, A, B and w are buffers. New ones change nothing: both halves are as they come, and weigh the same. An item
    with one half alone has zeros for the other one, and that half whole, whatever w says.
    """

    config_class = NoOptions
    extra_inputs = frozenset({"tokens", "mask", "has_text", "has_image"})
    image_weight: Tensor
    unit_halves: Tensor

    def __init__(self, config: NoOptions, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.widths = {"text": llm.output_width, "image": image_width(vision)}
        for half, width in self.widths.items():
            self.register_buffer(f"{half}_mean", torch.zeros(width))
            self.register_buffer(f"{half}_scale", torch.ones(width))
            self.register_buffer(f"{half}_map", torch.eye(width))
        self.register_buffer("image_weight", torch.tensor(0.5))
        self.register_buffer("unit_halves", torch.tensor(True))

    @property
    def output_width(self) -> int:
        return sum(self.widths.values())

    def forward(  # type: ignore[override]
        self,
        hidden: Tensor,
        pooled: Tensor | None,
        *,
        tokens: Tensor,
        mask: Tensor | None,
        has_text: Tensor,
        has_image: Tensor,
    ) -> Tensor:
        """Fuse hidden [B, Dh] and pooled [B, Dp], where there is none the mean of tokens [B, N, Dv] → [B, Dh + Dp]."""
        with torch.autocast(hidden.device.type, enabled=False):  # a product in 16 bits is no rotation any more
            image = self._whitened("image", masked_mean(tokens, mask) if pooled is None else pooled)
            text = self._whitened("text", hidden)
            weight = torch.where(has_image, torch.where(has_text, self.image_weight, 1.0), 0.0)[:, None]
            text = (1 - weight).sqrt() * text * has_text[:, None]
            return torch.cat([text, weight.sqrt() * image], 1)

    def _whitened(self, half: str, x: Tensor) -> Tensor:
        """Standardise and map one half, x [B, D]; scale it to unit length, unless it was fitted to keep its own."""
        mean, scale, mapping = (getattr(self, f"{half}_{name}") for name in ("mean", "scale", "map"))
        out: Tensor = ((x.to(mean.dtype) - mean) * scale) @ mapping
        return torch.where(self.unit_halves, F.normalize(out, dim=-1), out)


def masked_mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Average tokens [B, N, D] over those that mask [B, N] marks (None: all): [B, D]; zeros where it marks none."""
    if mask is None:
        return tokens.mean(1)
    return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
