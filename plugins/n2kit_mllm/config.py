"""Options of multimodal LLMs, of their towers, and of the connectors taken out of them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class TowerOptions(BaseModel):
    """Options of a vision tower."""

    model_config = ConfigDict(extra="forbid")
    KEEPS_CARD: ClassVar = frozenset({"seed", "dtype", "fit", "attention"})
    config: dict[str, Any] | None = Field(
        None, description="the whole multimodal model's architecture, for random weights"
    )
    seed: int = Field(0, description="of random weights")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the weights in memory; auto: as the checkpoint has them"
    )
    fit: Literal["crop", "squash", "pad"] | None = Field(
        None, description="null: as the checkpoint was trained (pad for Qwen, which was trained at any proportions)"
    )
    pool: Literal["mean"] | None = Field(
        None, description="the pooled vector; null: the CLS token, or none in a tower that has no CLS"
    )


class QwenTowerOptions(TowerOptions):
    image_size: int = Field(448, ge=1, description="side of the square input, a multiple of patch × merge (28)")


class Gemma4TowerOptions(TowerOptions):
    image_size: int = Field(768, ge=1, description="side of the square input, a multiple of patch × pooling (48)")


class MLLMOptions(TowerOptions):
    """Options of a whole multimodal LLM."""

    attention: Literal["sdpa", "eager"] | None = Field(
        None, description="of the language model; null: the model's own default"
    )


class QwenOptions(QwenTowerOptions, MLLMOptions):
    """Options of Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""


class Gemma4Options(Gemma4TowerOptions, MLLMOptions):
    """Options of Gemma 4."""


class WrapConfig(BaseModel):
    """Options of two rows around the tokens: none."""

    model_config = ConfigDict(extra="forbid")


class ProjectorConfig(BaseModel):
    """Options of LLaVA's projector, with the names of its checkpoint's configuration."""

    model_config = ConfigDict(extra="forbid")
    activation: str
    bias: bool
    drop: int  # tokens at the beginning that it leaves out


class ShuffleConfig(BaseModel):
    """Options of a projector behind a pixel shuffle."""

    model_config = ConfigDict(extra="forbid")
    scale: int  # patches along a side that become one token
    drop: int = 0  # tokens at the beginning that it leaves out
    activation: str | None = None  # of two linear layers behind a norm (InternVL); None: one linear layer (SmolVLM)


class PoolConfig(BaseModel):
    """Options of Gemma 3's projector."""

    model_config = ConfigDict(extra="forbid")
    tokens: int  # of a picture
    eps: float  # of the norm


class NormConfig(BaseModel):
    """Options of Gemma 4's projector."""

    model_config = ConfigDict(extra="forbid")
    eps: float  # of the norm
    layered: int  # numbers behind each embedding, for the language model's layers


class QueryConfig(BaseModel):
    """Options of BLIP-2's Q-Former, with the names of its checkpoint's configuration."""

    model_config = ConfigDict(extra="forbid")
    queries: int
    qformer: dict[str, Any]
