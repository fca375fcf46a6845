"""Options and cards of the connectors: arithmetic only, no torch."""

from __future__ import annotations

from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from n2kit import ConnectorCard, LLMCard, VisionCard
from n2kit.errors import Mismatch


class QFormerConfig(BaseModel):
    """BLIP-2's Q-Former without its text branch; widths of the paper by default."""

    model_config = ConfigDict(extra="forbid")
    tokens: int = Field(16, ge=1, description="learned queries, tokens an image takes in the prompt")
    layers: int = Field(6, ge=1)
    width: int = Field(768, ge=1)
    heads: int = Field(12, ge=1)
    inner: int | None = Field(None, ge=1, description="feed-forward width; null: 4 × width")
    cross_every: int = Field(2, ge=1, description="every which layer attends to the image")


class ProjectorConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tokens: int | None = Field(None, ge=1, description="average the vision tokens to so many; null keeps all")


class MLPConfig(ProjectorConfig):
    """Two layers with GELU between them."""

    depth: int = Field(2, ge=2)


class LinearConfig(ProjectorConfig):
    """One layer."""

    depth: int = Field(1, ge=1, le=1)


def qformer_card(config: QFormerConfig, vision: VisionCard, llm: LLMCard) -> ConnectorCard:
    """Raises Mismatch if the width does not divide among the heads."""
    d, inner, image = config.width, config.inner or 4 * config.width, vision.token_width
    if d % config.heads:
        fits = next(h for h in range(config.heads, 0, -1) if d % h == 0)
        raise Mismatch(f"qformer width {d} does not divide among {config.heads} heads", f"--set connector.heads={fits}")
    attention = 4 * (d * d + d) + 2 * d
    crossing = 2 * (d * d + d) + 2 * (image * d + d) + 2 * d
    feed_forward = d * inner + inner + inner * d + d + 2 * d
    crossings = len(range(0, config.layers, config.cross_every))
    total = config.tokens * d + 2 * d + config.layers * (attention + feed_forward) + crossings * crossing
    return ConnectorCard(config.tokens, total + mlp_parameters([d, llm.input_width, llm.input_width]))


def projector_card(config: MLPConfig | LinearConfig, vision: VisionCard, llm: LLMCard) -> ConnectorCard:
    """Raises Mismatch if it is asked for more tokens than the encoder gives."""
    available = vision.tokens - vision.prefix_tokens if config.tokens else vision.tokens
    if (config.tokens or 0) > available:
        raise Mismatch(
            f"the connector is to average to {config.tokens} tokens, and the vision encoder gives {available}",
            f"--set connector.tokens={available} or fewer",
        )
    widths = [vision.token_width] + [llm.input_width] * config.depth
    return ConnectorCard(config.tokens or vision.tokens, mlp_parameters(widths))


def mlp_parameters(widths: list[int]) -> int:
    return sum(a * b + b for a, b in pairwise(widths))
