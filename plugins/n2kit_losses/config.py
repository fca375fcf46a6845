"""Options of the losses: no torch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from n2kit.contract import Component, resolve_component


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ContrastiveConfig(Options):
    """Options of a contrastive loss; `temperature` is the log of the cosines' scale, as in CLIP and the reference."""

    temperature: float = Field(3.0, description="where the learned log-scale starts: exp(3) ≈ 20")
    max_scale: float | None = Field(100.0, gt=0, description="the scale is clamped to this; null: never")


class SoftmaxConfig(ContrastiveConfig):
    log_q: bool = Field(False, description="correct for items that are often in pairs, and so often negatives")


class NoteLLM2Config(SoftmaxConfig):
    """Weights of the two views."""

    text_weight: float = Field(9.0, ge=0, description="of the multimodal view")
    vision_weight: float = Field(1.0, ge=0, description="of the visual view, under mICL")


class NoteLLMConfig(NoteLLM2Config):
    generation_weight: float = Field(0.01, ge=0, description="α: of the answers, beside 1 for the vectors")


class InfoNCEConfig(SoftmaxConfig):
    form: Literal["symmetric", "one_direction", "one_tower"] = Field(
        "symmetric", description="left → right and back, left → right alone, or all rows among each other"
    )


class SigmoidConfig(ContrastiveConfig):
    """Options of the sigmoid loss, starting as in SigLIP: a scale of 10, and a bias that calls every pair a negative one."""

    temperature: float = Field(math.log(10), description="where the learned log-scale starts")
    bias: float = Field(-10.0, description="where the learned bias starts")


class TripletConfig(Options):
    margin: float = Field(0.2, ge=0, description="how much farther than the partner a negative has to be, in cosine")
    negatives: Literal["hardest", "all"] = Field("hardest", description="the nearest one of a row, or every one")


class CoSENTConfig(Options):
    scale: float = Field(20.0, gt=0, description="what cosines are multiplied with")
    in_batch: bool = Field(
        True, description="other pairs of the batch count as pairs of grade 0; false: graded ones alone"
    )


class MatryoshkaConfig(Options):
    of: str = Field("notellm2", description="the loss that is taken at each width")
    options: dict[str, Any] = Field(default_factory=dict, description="that loss's own options")
    widths: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, min_length=1, description="how many leading dimensions; null: all, a half, a quarter, an eighth"
    )
    weights: list[Annotated[float, Field(ge=0)]] | None = Field(None, description="one for each width; null: 1 each")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Check the weights and the wrapped loss.

        Raises:
            ValueError: not one weight a width. BadInput: an unknown loss or option.
        """
        widths = self.widths or []
        if len(set(widths)) < len(widths):
            raise ValueError(f"widths {widths} has one twice")
        if self.weights is not None and len(self.weights) != len(widths):
            raise ValueError(f"{len(self.weights)} weights for {len(widths)} widths")
        self.inner()
        return self

    def inner(self) -> Component:
        """Return the wrapped loss as a component, its options checked.

        Raises:
            BadInput: no loss of that name, or an option that it does not take.
        """
        found = resolve_component("loss", self.of)
        found = replace(found, options={**found.options, **self.options})
        found.config()
        return found
