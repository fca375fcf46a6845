"""Options of the losses: no torch."""

from pydantic import BaseModel, ConfigDict, Field


class InfoNCEConfig(BaseModel):
    """`temperature` is the logarithm of the scale that cosines are multiplied with, as in CLIP and the reference."""

    model_config = ConfigDict(extra="forbid")
    temperature: float = Field(3.0, description="where the learned log-scale starts: exp(3) ≈ 20")
    max_scale: float | None = Field(100.0, gt=0, description="the scale is clamped to this; null: never")


class NoteLLM2Config(InfoNCEConfig):
    """Weights of the two views."""

    text_weight: float = Field(9.0, ge=0, description="of the multimodal view")
    vision_weight: float = Field(1.0, ge=0, description="of the visual view, under mICL")
