"""Options and cards of the fusions: no torch."""

from pydantic import BaseModel, ConfigDict

from n2kit import FusionCard, LLMCard, VisionCard


class NoOptions(BaseModel):
    """This component has no options."""

    model_config = ConfigDict(extra="forbid")


def gate_card(config: NoOptions, vision: VisionCard, llm: LLMCard) -> FusionCard:
    return FusionCard(vision.pooled_width * llm.output_width + 2 * llm.output_width**2)


def none_card(config: NoOptions, vision: VisionCard, llm: LLMCard) -> FusionCard:
    return FusionCard(0)
