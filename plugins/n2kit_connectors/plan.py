"""Options and cards of the connectors: arithmetic only, no torch."""

from __future__ import annotations

from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from n2kit.contract import ConnectorCard, LLMCard, VisionCard
from n2kit.errors import Mismatch


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")


class QFormerConfig(Options):
    """Options of BLIP-2's Q-Former without its text branch; the paper's widths by default."""

    tokens: int = Field(16, ge=1, description="learned queries, tokens an image takes in the prompt")
    layers: int = Field(6, ge=1, description="transformer layers")
    width: int = Field(768, ge=1, description="of its layers; a multiple of heads")
    heads: int = Field(12, ge=1, description="attention heads")
    inner: int | None = Field(None, ge=1, description="feed-forward width; null: 4 × width")
    cross_every: int = Field(2, ge=1, description="every which layer attends to the image")


class ResamplerConfig(Options):
    """Options of Flamingo's Perceiver resampler, which works at the vision encoder's width."""

    tokens: int = Field(16, ge=1, description="learned latents, tokens an image takes in the prompt")
    layers: int = Field(6, ge=1, description="transformer layers")
    heads: int = Field(8, ge=1, description="attention heads")
    head_width: int = Field(64, ge=1, description="width of an attention head")
    inner: int | None = Field(None, ge=1, description="feed-forward width; null: 4 × the vision encoder's")


class ProjectorConfig(Options):
    tokens: int | None = Field(None, ge=1, description="average the vision tokens to so many; null keeps all")


class MLPConfig(ProjectorConfig):
    """Options of the MLP: `depth` layers with GELU between them."""

    depth: int = Field(2, ge=2, description="linear layers, with GELU between them")


class LinearConfig(ProjectorConfig):
    """Options of the single linear layer."""

    depth: int = Field(1, ge=1, le=1, description="linear layers: one")


class PoolConfig(LinearConfig):
    """Options of one linear layer on a few averages."""

    tokens: int = Field(4, ge=1, description="average the patches to so many")


class PixelShuffleConfig(Options):
    scale: int = Field(2, ge=1, description="side of the square of patches that becomes one token")
    depth: int = Field(2, ge=1, description="linear layers, with GELU between them")


class IdentityConfig(Options):
    """This connector has no options."""


def qformer_card(config: QFormerConfig, vision: VisionCard, llm: LLMCard) -> ConnectorCard:
    """Compute the card of a Q-Former.

    Raises:
        Mismatch: the width does not divide among the heads.
    """
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


def resampler_card(config: ResamplerConfig, vision: VisionCard, llm: LLMCard) -> ConnectorCard:
    d, heads = vision.token_width, config.heads * config.head_width
    attention = 2 * 2 * d + 4 * d * heads
    feed_forward = 2 * d + mlp_parameters([d, config.inner or 4 * d, d])
    out = 2 * d + mlp_parameters([d, llm.input_width])
    return ConnectorCard(config.tokens, config.tokens * d + config.layers * (attention + feed_forward) + out)


def projector_card(config: MLPConfig | LinearConfig, vision: VisionCard, llm: LLMCard) -> ConnectorCard:
    """Compute the card of a projector.

    Raises:
        Mismatch: it is asked for more tokens than the encoder gives.
    """
    available = vision.tokens - vision.prefix_tokens if config.tokens else vision.tokens
    if (config.tokens or 0) > available:
        raise Mismatch(
            f"the connector is to average to {config.tokens} tokens, and the vision encoder gives {available}",
            f"--set connector.tokens={available} or fewer",
        )
    widths = [vision.token_width] + [llm.input_width] * config.depth
    return ConnectorCard(config.tokens or vision.tokens, mlp_parameters(widths))


def pixel_shuffle_card(config: PixelShuffleConfig, vision: VisionCard, llm: LLMCard) -> ConnectorCard:
    """Compute the card of a pixel shuffle.

    Raises:
        Mismatch: the patches form no square, or one whose side the scale does not divide.
    """
    scale, side, patches = config.scale, vision.grid, vision.tokens - vision.prefix_tokens
    if side is None:
        raise Mismatch(
            f"pixel-shuffle folds a square grid of patches, and the vision encoder's {patches} form none",
            f"--connector resampler or pool, or an encoder of {round(patches**0.5) ** 2} patches",
        )
    if side % scale:
        fits = [s for s in range(2, side + 1) if side % s == 0]
        raise Mismatch(
            f"pixel-shuffle folds squares of {scale} × {scale} patches, and the vision encoder gives {side} × {side}",
            f"--set connector.scale={' or '.join(map(str, fits)) or 1}, or --connector resampler",
        )
    folded = vision.token_width * scale**2
    widths = [folded] + [llm.input_width] * config.depth
    return ConnectorCard((side // scale) ** 2, 2 * folded + mlp_parameters(widths))


def identity_card(config: IdentityConfig, vision: VisionCard, llm: LLMCard) -> ConnectorCard:
    """Compute the card of the identity.

    Raises:
        Mismatch: the two widths differ.
    """
    if vision.token_width != llm.input_width:
        raise Mismatch(
            f"identity passes vision tokens on as they are: they are {vision.token_width} wide, "
            f"and the language model reads {llm.input_width}",
            "--connector linear",
        )
    return ConnectorCard(vision.tokens, 0)


def mlp_parameters(widths: list[int]) -> int:
    return sum(a * b + b for a, b in pairwise(widths))
