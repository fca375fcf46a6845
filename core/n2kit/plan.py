"""The rules that accept or refuse a combination before any weight exists: pure arithmetic over cards, no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from n2kit.cards import ConnectorCard, FusionCard, LLMCard, VisionCard
from n2kit.errors import BadInput, Mismatch
from n2kit.recipe import Recipe
from n2kit.registry import BACKBONES, Component, Registry, registry
from n2kit.templates import load_template
from n2kit.variants import SPECS, VariantSpec

SUFFIX_TOKENS = 24  # room for a prompt's suffix and BOS
BYTES = {"frozen": 4, "full": 16}  # weights; with gradient and AdamW's two moments, float32


@dataclass(frozen=True)
class Row:
    """One part of a plan."""

    part: str
    name: str
    shape: str
    parameters: int
    trainable: int
    weights: str = "random"
    licence: str | None = None


@dataclass
class Plan:
    """A resolved combination: what it is made of, what it costs, and why it cannot be, if it cannot."""

    recipe: Recipe
    components: dict[str, Component]
    rows: list[Row]
    image_tokens: int  # Q, tokens an image takes in the prompt
    longest: int  # tokens of the longest row
    refusals: list[Mismatch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The combination's name, which can be given back as an argument: `qwen:0.6b+siglip:base-224+qformer:16+gate`.

        Another variant than notellm2 is its last piece; a part that a variant does not use has none.
        """
        pieces = [
            self.components[k].reference for k in ("llm", "vision", "connector", "fusion") if k in self.components
        ]
        return "+".join(pieces + ([self.recipe.variant] if self.recipe.variant != "notellm2" else []))

    @property
    def parameters(self) -> int:
        return sum(r.parameters for r in self.rows)

    @property
    def trainable(self) -> int:
        return sum(r.trainable for r in self.rows)

    @property
    def memory_gb(self) -> float:
        """Weights, gradients and optimiser in training, GB; activations come on top."""
        return (self.parameters * BYTES["frozen"] + self.trainable * (BYTES["full"] - BYTES["frozen"])) / 1e9

    def raise_refusals(self) -> None:
        """Raises Mismatch, all reasons in one."""
        if self.refusals:
            raise Mismatch("\n".join(r.message for r in self.refusals), "; ".join(r.hint or "" for r in self.refusals))

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "variant": self.recipe.variant,
            "parts": [vars(r) for r in self.rows],
            "image_tokens": self.image_tokens,
            "longest_sequence": self.longest,
            "parameters": self.parameters,
            "trainable": self.trainable,
            "memory_gb": round(self.memory_gb, 3),
            "notes": self.notes,
            "refusals": [{"reason": r.message, "fix": r.hint} for r in self.refusals],
        }


def parse_id(text: str) -> dict[str, str]:
    """A plan's `id` back as settings.

    Raises:
        BadInput: more or fewer pieces than its variant has parts.
    """
    pieces = text.split("+")
    variant = pieces.pop() if pieces[-1] in SPECS else "notellm2"
    spec = SPECS[variant]
    kinds = ["llm"] + ["vision"] * spec.image + ["connector"] * spec.early + ["fusion"] * spec.late
    if not all(pieces) or not 1 <= len(pieces) <= len(kinds):
        raise BadInput(f"{text!r} is no combination of variant {variant}", f"write {'+'.join(kinds).upper()}")
    return {"variant": variant} | dict(zip(kinds, pieces, strict=False))


def make_plan(recipe: Recipe, *, given: Collection[str] = (), catalogue: Registry | None = None) -> Plan:
    """Resolve a recipe's components and apply every rule.

    Args:
        given: settings that were asked for and are not just defaults: what a variant would ignore of them is said or refused.

    Raises:
        BadInput, Unavailable: a name or an option that cannot be resolved; rules that fail become `refusals` instead.
    """
    variant = SPECS[recipe.variant]
    load_template(recipe.prompt.template)
    chosen = _resolve(recipe, variant, catalogue or registry())
    llm = chosen["llm"].card()
    assert isinstance(llm, LLMCard)
    shape = f"{llm.input_width} → {llm.output_width} · {llm.layers} layers"
    rows = [_row("llm", chosen["llm"], shape, llm.parameters, recipe.llm.tune)]
    plan = Plan(recipe, chosen, rows, 0, recipe.prompt.body_tokens + SUFFIX_TOKENS)
    _refuse_variant(plan, variant, given)
    if variant.image:
        _with_image(plan, variant, llm)
    if width := recipe.head.width:
        size = llm.output_width * width
        rows.append(Row("head", f"linear:{width}", f"{llm.output_width} → {width}", size, size))
    rows.append(Row("loss", chosen["loss"].reference, "", 1, 1))
    if plan.longest > llm.context:
        plan.refusals.append(
            Mismatch(
                f"a row may take {plan.longest} tokens ({plan.image_tokens} of them an image), "
                f"and llm {chosen['llm'].reference} reads {llm.context}",
                f"--set prompt.body_tokens={max(8, llm.context - plan.image_tokens - SUFFIX_TOKENS)}, or fewer connector tokens",
            )
        )
    if variant.micl and not llm.causal:
        plan.refusals.append(
            Mismatch(
                f"variant {recipe.variant} needs a causal LLM, and {chosen['llm'].reference} reads both ways",
                "--variant late_early_fusion",
            )
        )
    return plan


def _resolve(recipe: Recipe, variant: VariantSpec, catalogue: Registry) -> dict[str, Component]:
    kinds = ["llm"] + ["vision"] * variant.image + ["connector"] * variant.early + ["fusion"] * variant.late + ["loss"]
    chosen: dict[str, Component] = {}
    problems: list[BadInput] = []
    for kind in kinds:
        choice = getattr(recipe, kind)
        try:
            component = catalogue.resolve(kind, choice.name)  # type: ignore[arg-type]
            chosen[kind] = _with_options(component, choice.options)
        except BadInput as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise BadInput("\n".join(p.message for p in problems), "; ".join(p.hint for p in problems if p.hint))
    return chosen


def _with_options(component: Component, options: dict[str, Any]) -> Component:
    """The component with the recipe's options, checked, and named by its shorthand's final value (`qformer:16`)."""
    component = replace(component, options={**component.options, **options})
    config, shorthand = component.config(), component.owned.spec.shorthand
    if set(options) - getattr(type(config), "KEEPS_CARD", frozenset()):
        component = replace(component, declared=None)  # another architecture than the one that was declared
    if shorthand is None or component.kind in BACKBONES:
        return component
    name, value = component.reference.partition(":")[0], getattr(config, shorthand)
    return replace(component, reference=name if value is None else f"{name}:{value}")


def _refuse_variant(plan: Plan, variant: VariantSpec, given: Collection[str]) -> None:
    recipe = plan.recipe
    for kind, used in (("vision", variant.image), ("connector", variant.early)):
        if f"{kind}.name" in given and not used:
            plan.notes.append(f"variant {recipe.variant} has no {kind}: {getattr(recipe, kind).name} is left out")
    if variant.micl and recipe.loss.name == "infonce":
        plan.notes.append(f"loss infonce does not train the visual view of variant {recipe.variant}; notellm2 does")
    if "fusion.name" in given and not variant.late and recipe.fusion.name != "none":
        better = {"basic": "late_early_fusion", "micl": "notellm2"}.get(recipe.variant, "notellm2")
        plan.refusals.append(
            Mismatch(
                f"variant {recipe.variant} has no late fusion, and fusion {recipe.fusion.name} was asked for",
                f"--variant {better}, or --fusion none",
            )
        )
    if variant.late and recipe.fusion.name == "none":
        same = {"notellm2": "micl", "late_early_fusion": "basic"}.get(recipe.variant, "text_only")
        plan.refusals.append(
            Mismatch(
                f"variant {recipe.variant} is late fusion, and fusion none was asked for",
                f"--variant {same}, or --fusion gate",
            )
        )


def _with_image(plan: Plan, variant: VariantSpec, llm: LLMCard) -> None:
    chosen, recipe = plan.components, plan.recipe
    vision = chosen["vision"].card()
    assert isinstance(vision, VisionCard)
    shape = f"{vision.image_size} px → {vision.tokens} × {vision.token_width}"
    plan.rows.insert(0, _row("vision", chosen["vision"], shape, vision.parameters, recipe.vision.tune))
    fit = getattr(chosen["vision"].config(), "fit", None)
    if fit == "crop":
        plan.notes.append(
            "pictures that are not square lose their ends (centre crop); --set vision.fit=pad keeps them whole"
        )
    if variant.early:
        card = _joint_card(plan, "connector", vision, llm)
        if isinstance(card, ConnectorCard):
            plan.image_tokens = card.tokens
            plan.longest += card.tokens
            shape = f"{vision.tokens} × {vision.token_width} → {card.tokens} × {llm.input_width}"
            plan.rows.insert(1, _row("connector", chosen["connector"], shape, card.parameters, "full"))
    if variant.late:
        fusion = _joint_card(plan, "fusion", vision, llm)
        if isinstance(fusion, FusionCard):
            shape = f"{llm.output_width} + {vision.pooled_width} → {llm.output_width}"
            plan.rows.append(_row("fusion", chosen["fusion"], shape, fusion.parameters, "full"))


def _joint_card(plan: Plan, kind: str, vision: VisionCard, llm: LLMCard) -> Any:
    component = plan.components[kind]
    target = component.owned.spec.card
    if target is None:
        raise BadInput(f"{kind} {component.reference} declares no card", "its plug-in must name one in its spec")
    rule: Callable[..., Any] = component.load(target)
    try:
        return rule(component.config(), vision, llm)
    except Mismatch as refusal:
        plan.refusals.append(refusal)
        return None


def _row(part: str, component: Component, shape: str, parameters: int, tune: str) -> Row:
    return Row(
        part,
        component.reference,
        shape,
        parameters,
        parameters if tune == "full" else 0,
        str(component.weights),
        component.licence,
    )
