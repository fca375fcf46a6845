"""Qwen2-VL's language model: positions in time, height and width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from n2kit_hf.llm import TransformersLLM


class QwenText(TransformersLLM):
    """Qwen2-VL's language model: visual tokens get the rows and columns of their patches as positions (M-RoPE)."""

    extra_inputs = frozenset({"image"})

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Any = None, image: Tensor | None = None) -> Tensor:
        """Compute the hidden states [B, T, Dh] of x [B, T, De], image [B, T] bool; causal, so that it needs no mask."""
        positions = None if image is None else multimodal_positions(image)
        out: Tensor = self.model(inputs_embeds=x, position_ids=positions, use_cache=False).last_hidden_state
        return out.to(x.dtype)


def multimodal_positions(image: Tensor) -> Tensor:
    """Compute each token's position in time, height and width: [3, B, T] (Qwen2-VL, arXiv 2409.12191, section 2.1).

    Text counts up in all three. A picture takes one moment and a square of rows and columns, and the text behind it goes on
    from the largest of its positions. The first and the last visual token of a row are text: they wrap the square.

    Args:
        image: [B, T] bool, the visual tokens of at most one picture a row.
    """
    index = torch.arange(image.shape[1], device=image.device).expand_as(image)
    count = image.sum(1, keepdim=True)
    side = (count - 2).clamp_min(1).sqrt().round().long()  # a whole square, since the tower's input is one
    patch = image.cumsum(1) - 2  # number of a patch within its picture; -1 for what wraps it on the left
    inside = image & (patch >= 0) & (patch < side**2)
    behind = (count > 0) & (patch >= side**2)
    text = index - behind * (side**2 - side)
    start = index - patch
    grid = torch.stack([start, start + patch // side, start + patch % side])
    return torch.where(inside, grid, text)
