"""Pixel shuffle: squares of patches become one token each, as wide as all of them (InternVL 1.5, arXiv 2404.16821; SmolVLM)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from n2kit.contract import Connector, LLMCard, VisionCard
from n2kit_connectors.plan import PixelShuffleConfig, pixel_shuffle_card
from n2kit_connectors.projector import blank, mlp


class PixelShuffle(Connector):
    """A pixel shuffle: [I, N, Dv] → [I, N / scale², Dv · scale²] → LayerNorm → MLP, as in InternVL; without prefix tokens.

    Hidden patches count as zeros; a square of hidden patches alone becomes zero.
    """

    config_class = PixelShuffleConfig

    def __init__(self, config: PixelShuffleConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.tokens = pixel_shuffle_card(config, vision, llm).tokens
        self.prefix, self.scale = vision.prefix_tokens, config.scale
        self.grid = vision.grid or 0
        folded = vision.token_width * config.scale**2
        self.norm = nn.LayerNorm(folded)
        self.project = mlp([folded] + [llm.input_width] * config.depth)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        folded = self._fold(blank(tokens, mask))
        there = None if mask is None else self._fold(mask[..., None].to(tokens.dtype)).amax(-1) > 0
        return blank(self.project(self.norm(folded)), there)

    def _fold(self, tokens: Tensor) -> Tensor:
        """Fold squares of patches: [I, N, D] → [I, Q, D · scale²]."""
        grid = tokens[:, self.prefix :].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return F.pixel_unshuffle(grid, self.scale).flatten(2).transpose(1, 2)
