"""The kinds of components, each declared once: its card, interface, laws, key in a recipe, and option of a command.

A further kind is a further entry of `KIND_SPECS`. It is then registered by plug-ins, listed by `plugins list` and `ls`, resolved and
checked, has its section in a recipe and its option in `n2kit build` and `plan`. What a model does with its part is code of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from n2kit.contract.cards import ConnectorCard, FusionCard, LLMCard, MLLMCard, VisionCard

Kind = Literal["llm", "vision", "mllm", "connector", "fusion", "loss", "index"]


@dataclass(frozen=True)
class RecipeKey:
    """The section of a recipe that chooses a component: it is called like the kind.

    default: the component where nothing is chosen; None: there is none.
    tuning: `blocks`: frozen, the last few, an adapter, or all of it; `whole`: frozen or all of it; None: nothing to say.
    tune: how it is tuned where nothing else is said.
    """

    meaning: str
    default: str | None = None
    tuning: Literal["blocks", "whole"] | None = None
    tune: str | None = None


@dataclass(frozen=True)
class KindSpec:
    """A kind of components. Modules are named, not imported: no command loads torch for a list of kinds.

    interface: `module:Class` that its components are subclasses of.
    option: the help text of `--KIND NAME`.
    under_test: `module:Class` that makes a component's part and inputs for the laws.
    laws: modules of its laws, beside those of every kind.
    card: the class of the facts that a plan reads; None: there are none.
    backbone: it has weights of its own, with presets, and is created from a `LoadSpec`.
    recipe: its section in a recipe; None: no recipe chooses one.
    capabilities: what a component can do beyond the interface: name → meaning.
    """

    interface: str
    option: str
    under_test: str
    laws: tuple[str, ...] = ()
    card: type | None = None
    backbone: bool = False
    recipe: RecipeKey | None = None
    capabilities: Mapping[str, str] = field(default_factory=dict)


BLOCKS = "`blocks()` gives the stack in order of depth: for checkpointing, sharding, tuning the last few"
BFLOAT16 = "works in bfloat16, and stays finite"
INTERFACES, UNDER_TEST, LAWS = "n2kit.contract.interfaces", "n2kit.testing.under_test", "n2kit.testing.laws"

KIND_SPECS: dict[Kind, KindSpec] = {
    "llm": KindSpec(
        interface=f"{INTERFACES}:LLM",
        option="Language model: NAME[:PRESET][@SOURCE]; n2kit ls llm.",
        under_test=f"{UNDER_TEST}:LLMUnderTest",
        laws=(f"{LAWS}.llm",),
        card=LLMCard,
        backbone=True,
        recipe=RecipeKey("the language model", default="qwen", tuning="blocks", tune="full"),
        capabilities={
            "blocks": BLOCKS,
            "bfloat16": BFLOAT16,
            "logits": "can keep its output head, and score the next token",
        },
    ),
    "vision": KindSpec(
        interface=f"{INTERFACES}:VisionEncoder",
        option="Vision encoder; n2kit ls vision.",
        under_test=f"{UNDER_TEST}:VisionUnderTest",
        laws=(f"{LAWS}.vision",),
        card=VisionCard,
        backbone=True,
        recipe=RecipeKey("the vision encoder", default="siglip", tuning="blocks", tune="frozen"),
        capabilities={"blocks": BLOCKS, "bfloat16": BFLOAT16},
    ),
    "mllm": KindSpec(
        interface=f"{INTERFACES}:MLLM",
        option="A multimodal LLM in place of llm, vision and connector; n2kit ls mllm.",
        under_test=f"{UNDER_TEST}:MLLMUnderTest",
        laws=(f"{LAWS}.mllm",),
        card=MLLMCard,
        backbone=True,
        recipe=RecipeKey("a multimodal LLM in place of llm, vision and connector; their `tune` still holds"),
        capabilities={"blocks": BLOCKS, "bfloat16": BFLOAT16},
    ),
    "connector": KindSpec(
        interface=f"{INTERFACES}:Connector",
        option="qformer:16 for 16 tokens an image; n2kit ls connector.",
        under_test=f"{UNDER_TEST}:ConnectorUnderTest",
        laws=(f"{LAWS}.connector",),
        card=ConnectorCard,
        recipe=RecipeKey("vision tokens → visual tokens", default="qformer", tuning="whole", tune="full"),
        capabilities={"bfloat16": BFLOAT16, "mask": "leaves out the vision tokens that `mask` hides"},
    ),
    "fusion": KindSpec(
        interface=f"{INTERFACES}:Fusion",
        option="Late fusion; n2kit ls fusion.",
        under_test=f"{UNDER_TEST}:FusionUnderTest",
        laws=(f"{LAWS}.fusion",),
        card=FusionCard,
        recipe=RecipeKey("late fusion of the image into the compressed word", default="gate"),
        capabilities={"bfloat16": BFLOAT16},
    ),
    "loss": KindSpec(
        interface=f"{INTERFACES}:Loss",
        option="n2kit ls loss.",
        under_test=f"{UNDER_TEST}:LossUnderTest",
        laws=(f"{LAWS}.loss",),
        recipe=RecipeKey("what training lowers", default="notellm2"),
        capabilities={
            "generation": "lowers the cost of generated answers too; an extra input of the same name",
            "negatives": "takes hard negatives; an extra input of the same name",
        },
    ),
    "index": KindSpec(
        interface="n2kit.contract.index:Index",
        option="n2kit ls index.",
        under_test=f"{UNDER_TEST}:IndexUnderTest",
        laws=(f"{LAWS}.index", f"{LAWS}.index_folder", f"{LAWS}.store"),
        capabilities={
            "exact": "finds what a comparison with every vector finds",
            "full-text": "a store that finds words",
        },
    ),
}
KINDS: tuple[Kind, ...] = tuple(KIND_SPECS)
BACKBONES: tuple[Kind, ...] = tuple(kind for kind, spec in KIND_SPECS.items() if spec.backbone)
CHOICES: tuple[Kind, ...] = tuple(kind for kind, spec in KIND_SPECS.items() if spec.recipe is not None)
CARDS: dict[str, type] = {kind: spec.card for kind, spec in KIND_SPECS.items() if spec.backbone and spec.card}
