"""The Perceiver resampler of Flamingo (arXiv 2204.14198), then a projection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2kit.contract import Connector, LLMCard, VisionCard
from n2kit_connectors.plan import ResamplerConfig, resampler_card
from n2kit_connectors.projector import mlp


class Layer(nn.Module):
    """A layer of the resampler: latents attend to the image and to themselves at once, then a feed-forward; both residual, pre-norm."""

    def __init__(self, width: int, config: ResamplerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        attended = config.heads * config.head_width
        self.norm_image, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, attended, bias=False)
        self.key_value = nn.Linear(width, 2 * attended, bias=False)
        self.out = nn.Linear(attended, width, bias=False)
        # GELU, where Flamingo has a squared ReLU.
        self.feed_forward = nn.Sequential(nn.LayerNorm(width), mlp([width, config.inner or 4 * width, width]))

    def forward(self, latents: Tensor, image: Tensor, mask: Tensor | None) -> Tensor:
        """Update latents [I, Q, D] from image [I, N, D], mask [I, 1, 1, N + Q] or None → [I, Q, D]."""
        own = self.norm_latents(latents)
        both = self.key_value(torch.cat([self.norm_image(image), own], 1)).chunk(2, -1)
        query, key, value = (self._split(x) for x in (self.query(own), *both))
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        latents = latents + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = latents + self.feed_forward(latents)
        return out

    def _split(self, x: Tensor) -> Tensor:
        """Split the heads: [I, L, heads · d] → [I, heads, L, d]."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Resampler(Connector):
    """A Perceiver resampler: Q learned latents read the image in every layer."""

    config_class = ResamplerConfig

    def __init__(self, config: ResamplerConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.tokens = resampler_card(config, vision, llm).tokens
        width = vision.token_width
        self.latents = nn.Parameter(torch.randn(config.tokens, width) * 0.02)
        self.layers = nn.ModuleList(Layer(width, config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, llm.input_width)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        latents = self.latents.expand(len(tokens), -1, -1)
        if mask is not None:
            mask = F.pad(mask, (0, self.tokens), value=True)[:, None, None]
        for layer in self.layers:
            latents = layer(latents, tokens, mask)
        out: Tensor = self.project(self.norm(latents))
        return out

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)
