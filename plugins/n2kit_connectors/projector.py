"""Connectors that project the vision tokens one by one: `linear` and `mlp` (LLaVA 1 and 1.5), `pool`, and `identity`.

A token that is made of hidden vision tokens alone is zero.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from n2kit.contract import Connector, LLMCard, VisionCard
from n2kit_connectors.plan import IdentityConfig, LinearConfig, MLPConfig, PoolConfig, identity_card, projector_card


class Projector(Connector):
    """A stack of `depth` linear layers with GELU between; with `tokens`, patches are averaged to that many first."""

    def __init__(self, config: MLPConfig | LinearConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.tokens = projector_card(config, vision, llm).tokens
        self.averaged = config.tokens is not None
        self.prefix, self.grid = vision.prefix_tokens, vision.grid
        self.project = mlp([vision.token_width] + [llm.input_width] * config.depth)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.averaged:
            tokens, mask = self._average(tokens, mask)
        return blank(self.project(tokens), mask)

    def _average(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Average the visible patches → [I, Q, Dv], and the mask of the averages [I, Q] where there is one."""
        means = average(blank(tokens, mask)[:, self.prefix :], self.tokens, self.grid)
        if mask is None:
            return means, None
        share = average(mask[:, self.prefix :, None].to(tokens.dtype), self.tokens, self.grid)
        there = share > 0
        return means / share.where(there, 1), there[..., 0]


class MLP(Projector):
    config_class = MLPConfig


class Linear(Projector):
    config_class = LinearConfig


class Pool(Projector):
    config_class = PoolConfig


class Identity(Connector):
    """A connector that returns the vision tokens unchanged."""

    config_class = IdentityConfig

    def __init__(self, config: IdentityConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.tokens = identity_card(config, vision, llm).tokens

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return blank(tokens, mask)


def blank(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Set to zero the tokens [I, N, D] that mask [I, N] hides."""
    return tokens if mask is None else tokens.masked_fill(~mask[..., None], 0)


def average(patches: Tensor, count: int, grid: int | None) -> Tensor:
    """Average patches [I, N, D] → [I, count, D]: over squares of the grid where both are square, else over stretches of the row."""
    columns = patches.transpose(1, 2)
    side = round(count**0.5)
    if grid and side * side == count:
        return F.adaptive_avg_pool2d(columns.unflatten(2, (grid, grid)), side).flatten(2).transpose(1, 2)
    return F.adaptive_avg_pool1d(columns, count).transpose(1, 2)


def mlp(widths: list[int]) -> nn.Sequential:
    """Build linear layers of these widths with GELU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.GELU(), nn.Linear(a, b)]
    return nn.Sequential(*layers[1:])
