"""A plan: the description of a combination before any weight exists, with the reasons to refuse it."""

from __future__ import annotations

from dataclasses import dataclass, field

from n2kit.contract.cards import ConnectorCard, FusionCard, LLMCard, VisionCard
from n2kit.errors import Mismatch
from n2kit.modeling.prompts import ANSWER_TOKENS
from n2kit.plugins.component import Component
from n2kit.plugins.weights import SCHEMES
from n2kit.recipe.settings import Recipe
from n2kit.recipe.variants import SPECS, VariantSpec

SUFFIX_TOKENS = 24  # room for a prompt's suffix and BOS
THEN_IMAGE_TOKENS = 24  # and for the words around an image that stands behind the text's compressed word
TASK_TOKENS = 24 + ANSWER_TOKENS  # and for what a loss has asked behind it
MLLM = "mllm="  # begins the id of a multimodal LLM that is named by its source
CHOSEN = ("mllm", "llm", "vision", "connector", "fusion")  # pieces of an id, in this order


@dataclass(frozen=True)
class PlanRow:
    """A row of a plan: one part with its size."""

    part: str
    name: str
    shape: str
    parameters: int
    trainable: int
    weights: str = "random"
    licence: str | None = None


@dataclass
class Plan:
    """A resolved combination: its parts, their sizes, and the reasons to refuse it, if there are any."""

    recipe: Recipe
    components: dict[str, Component]
    llm: LLMCard
    vision: VisionCard | None = None
    connector: ConnectorCard | None = None
    fusion: FusionCard | None = None
    rows: list[PlanRow] = field(default_factory=list)
    refusals: list[Mismatch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The combination's name, accepted as an argument too: `qwen:0.6b+siglip:base-224+qformer:16+gate`.

        Another variant than notellm2 is its last piece; a part that a variant does not use has none.
        """
        pieces = [self.components[k].reference for k in CHOSEN if k in self.components]
        if "mllm" in self.components and pieces[0].partition(":")[0] in SCHEMES:
            pieces[0] = f"{MLLM}{pieces[0]}"  # a source alone does not say of which kind it is
        return "+".join(pieces + ([self.recipe.variant] if self.recipe.variant != "notellm2" else []))

    @property
    def variant(self) -> VariantSpec:
        return SPECS[self.recipe.variant]

    def name(self, kind: str) -> str:
        """Return the name, for messages, of the component that gives a part: `llm qwen:tiny`, `mllm llava:tiny`."""
        owner = kind if kind in self.components else "mllm"
        return f"{owner} {self.components[owner].reference}"

    @property
    def image_tokens(self) -> int:
        """Q, tokens that an image takes in the prompt."""
        return self.connector.tokens if self.connector else 0

    @property
    def generates(self) -> bool:
        """Tell whether the loss has the language model generate answers, so that it needs its output head."""
        return self.components["loss"].has_capability("generation")

    @property
    def joined_width(self) -> int:
        """The width of what the head reads: the fusion's output, or the LLM's."""
        return (self.fusion.output_width if self.fusion else None) or self.llm.output_width

    @property
    def longest(self) -> int:
        """The number of tokens of the longest row, in training."""
        behind = TASK_TOKENS * self.generates + (THEN_IMAGE_TOKENS + SUFFIX_TOKENS) * self.variant.residual
        longest = self.recipe.prompt.body_tokens + SUFFIX_TOKENS + self.image_tokens + behind
        return longest if self.llm.max_tokens is None else min(longest, self.llm.max_tokens)

    @property
    def parameters(self) -> int:
        return sum(r.parameters for r in self.rows)

    @property
    def trainable(self) -> int:
        return sum(r.trainable for r in self.rows)

    def raise_refusals(self) -> None:
        """Refuse the combination if a rule does.

        Raises:
            Mismatch: all reasons in one.
        """
        if self.refusals:
            raise Mismatch("\n".join(r.message for r in self.refusals), "; ".join(r.hint or "" for r in self.refusals))
