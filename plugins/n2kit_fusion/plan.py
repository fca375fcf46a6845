"""Options and cards of the fusions: no torch."""

from pydantic import BaseModel, ConfigDict, Field

from n2kit.contract import FusionCard, LLMCard, VisionCard


class NoOptions(BaseModel):
    """This component has no options."""

    model_config = ConfigDict(extra="forbid")


class CrossAttentionConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    heads: int = Field(8, ge=1, description="attention heads")
    head_width: int = Field(64, ge=1, description="width of an attention head")


def sum_card(config: NoOptions, vision: VisionCard, llm: LLMCard) -> FusionCard:
    """Count W v."""
    return FusionCard(vision.pooled_width * llm.output_width)


def gate_card(config: NoOptions, vision: VisionCard, llm: LLMCard) -> FusionCard:
    """Count W v, and one Linear over [n ; W v]."""
    return FusionCard(vision.pooled_width * llm.output_width + 2 * llm.output_width**2)


def tanh_gate_card(config: NoOptions, vision: VisionCard, llm: LLMCard) -> FusionCard:
    """Count a gate, and one more Linear on each of its sides."""
    return FusionCard(gate_card(config, vision, llm).parameters + 2 * llm.output_width**2)


def cross_attention_card(config: CrossAttentionConfig, vision: VisionCard, llm: LLMCard) -> FusionCard:
    attended, word, image = config.heads * config.head_width, llm.output_width, vision.token_width
    return FusionCard(2 * (word + image) + 2 * attended * (word + image), pooled=False)


def image_width(vision: VisionCard) -> int:
    """Return the width of an image's one vector: the pooled one, else the mean of its tokens."""
    return vision.pooled_width or vision.token_width


def whitened_card(config: NoOptions, vision: VisionCard, llm: LLMCard) -> FusionCard:
    """Describe two halves side by side; their means, scales and maps are buffers, which are not trained."""
    return FusionCard(0, pooled=False, output_width=llm.output_width + image_width(vision))


def none_card(config: NoOptions, vision: VisionCard, llm: LLMCard) -> FusionCard:
    return FusionCard(0, pooled=False)
