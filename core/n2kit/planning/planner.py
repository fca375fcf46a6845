"""The planner: from a recipe to a plan with its parts, token counts, notes and refusals."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from n2kit.contract.cards import ConnectorCard, FusionCard, LLMCard, MLLMCard, VisionCard
from n2kit.contract.kinds import BACKBONES, CHOICES
from n2kit.errors import BadInput, Mismatch
from n2kit.planning.memory import estimate
from n2kit.planning.plan import CHOSEN, MLLM, Plan, PlanRow
from n2kit.planning.rules import apply
from n2kit.plugins.catalogue import Catalogue, default_catalogue
from n2kit.plugins.component import Component
from n2kit.plugins.manager import require
from n2kit.recipe.prompt_templates import AUTO, load_template, template_for
from n2kit.recipe.settings import Recipe
from n2kit.recipe.tuning import Tune
from n2kit.recipe.variants import SPECS

DEFAULT_CONNECTOR = Recipe.model_fields["connector"].default.name
TINY_CONNECTOR = f"{DEFAULT_CONNECTOR}:tiny"  # of two tiny backbones, where no connector was asked for

EMBEDDER_TOKENS = (
    512  # a plan counts with the longest row: thousands of tokens, as some embedders take, would refuse any training
)


def parse_id(text: str, *, catalogue: Catalogue | None = None) -> dict[str, str]:
    """Parse a plan's `id` back into settings.

    Raises:
        BadInput: more or fewer pieces than its variant has parts.
    """
    pieces = text.split("+")
    variant = pieces.pop() if pieces[-1] in SPECS else "notellm2"
    spec = SPECS[variant]
    first = pieces[0].partition(":")[0].rpartition("/")[2] if pieces else ""
    if pieces and pieces[0].startswith(MLLM):
        pieces[0] = pieces[0].removeprefix(MLLM)
        kinds = ["mllm"] + ["fusion"] * spec.late
    elif first in (catalogue or default_catalogue()).names("mllm"):
        kinds = ["mllm"] + ["fusion"] * spec.late
    else:
        kinds = ["llm"] + ["vision"] * spec.image + ["connector"] * spec.early + ["fusion"] * spec.late
    if not all(pieces) or not 1 <= len(pieces) <= len(kinds):
        raise BadInput(f"{text!r} is no combination of variant {variant}", f"write {'+'.join(kinds).upper()}")
    return {"variant": variant} | dict(zip(kinds, pieces, strict=False))


def make_plan(recipe: Recipe, *, requested: Collection[str] = (), catalogue: Catalogue | None = None) -> Plan:
    """Resolve a recipe's components and apply every rule of `n2kit.planning.rules`.

    Args:
        requested: settings that were asked for and are not just defaults: those that a variant ignores become notes or refusals.

    Raises:
        BadInput, Unavailable: a name or an option that cannot be resolved; rules that fail become `refusals` instead.
    """
    if recipe.prompt.template != AUTO:
        load_template(recipe.prompt.template)
    chosen = _resolve(recipe, requested, catalogue or default_catalogue())
    if "connector.name" not in requested and recipe.connector.name == DEFAULT_CONNECTOR and _is_tiny(chosen):
        recipe = recipe.model_copy(update={"connector": recipe.connector.model_copy(update={"name": TINY_CONNECTOR})})
        chosen["connector"] = component_of(recipe, "connector", catalogue)
    plan = _cards(recipe, chosen)
    plan.recipe = with_template(recipe, plan.llm, chosen["mllm" if "mllm" in chosen else "llm"], requested)
    plan.rows = _rows(plan)
    apply(plan, requested)
    return plan


def with_settings(plan: Plan, settings: Mapping[str, Any]) -> Plan:
    """Return the plan with other settings of its own parts (`llm.tune`, `train.grad_cache`): nothing is resolved again."""
    content = plan.recipe.model_dump()
    for name, value in settings.items():
        section, _, key = name.partition(".")
        content[section][key] = value
    changed = replace(plan, recipe=Recipe.model_validate(content), refusals=[], notes=[])
    changed.rows = _rows(changed)
    return changed


def describe(plan: Plan) -> dict[str, Any]:
    """Convert a plan to a JSON document, with the memory that training would need."""
    return {
        "id": plan.id,
        "variant": plan.recipe.variant,
        "parts": [vars(r) for r in plan.rows],
        "image_tokens": plan.image_tokens,
        "longest_sequence": plan.longest,
        "parameters": plan.parameters,
        "trainable": plan.trainable,
        "memory": estimate(plan).to_dict(),
        "notes": plan.notes,
        "refusals": [{"reason": r.message, "fix": r.hint} for r in plan.refusals],
    }


def _resolve(recipe: Recipe, requested: Collection[str], catalogue: Catalogue) -> dict[str, Component]:
    chosen: dict[str, Component] = {}
    problems: list[BadInput] = []
    for kind in _kinds(recipe):
        try:
            chosen[kind] = component_of(recipe, kind, catalogue, requested=f"{kind}.name" in requested)
        except BadInput as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise BadInput("\n".join(p.message for p in problems), "; ".join(p.hint for p in problems if p.hint))
    return chosen


def with_template(recipe: Recipe, llm: LLMCard, owner: Component, requested: Collection[str] = ()) -> Recipe:
    """Return a recipe whose prompt template is named, where it was left open.

    It is the one that an embedding model was trained on, by its preset or by its folder, else one for the language model's size.
    A text embedder's text has then as many tokens as its folder says, up to `EMBEDDER_TOKENS`, where no other number was asked for.

    Args:
        owner: the component of the language model.
    """
    if recipe.prompt.template != AUTO:
        return recipe
    name = owner.template or llm.template or template_for(llm.layers, llm.input_width, llm.vocab)
    changed: dict[str, Any] = {"template": name}
    if llm.template is not None and llm.max_tokens is not None and "prompt.body_tokens" not in requested:
        changed["body_tokens"] = min(llm.max_tokens, EMBEDDER_TOKENS)
    return recipe.model_copy(update={"prompt": recipe.prompt.model_copy(update=changed)})


def component_of(recipe: Recipe, kind: str, catalogue: Catalogue | None = None, *, requested: bool = True) -> Component:
    """Resolve one component of a recipe, with its options.

    Raises:
        BadInput, Unavailable: a name or an option that cannot be resolved, a plug-in that is not installed.
    """
    choice = getattr(recipe, kind)
    component = (catalogue or default_catalogue()).resolve(kind, choice.name, requested=requested)  # type: ignore[arg-type]
    require(component.registered.spec, component.registered.distribution)
    return with_options(component, choice.options)


def _kinds(recipe: Recipe) -> list[str]:
    """List the kinds of components that a recipe needs, and those beside a model's parts that it names."""
    variant = SPECS[recipe.variant]
    backbones = (
        ["llm"] + ["vision"] * variant.image + ["connector"] * variant.early if recipe.mllm is None else ["mllm"]
    )
    others = [kind for kind in CHOICES if kind not in (*CHOSEN, "loss") and getattr(recipe, kind) is not None]
    return [*backbones, *["fusion"] * variant.late, "loss", *others]


def _is_tiny(chosen: dict[str, Component]) -> bool:
    """Tell whether a connector joins two `tiny` presets: the default one would have a thousand times their weights."""
    backbones = [chosen[kind] for kind in ("llm", "vision") if kind in chosen]
    plain = "connector" in chosen and not chosen["connector"].options
    return plain and all(component.reference.endswith(":tiny") for component in backbones)


def with_options(component: Component, options: dict[str, Any]) -> Component:
    """Return the component with the recipe's options, validated, and renamed by its shorthand's value (`qformer:16`)."""
    component = replace(component, options={**component.options, **options})
    config, shorthand = component.config(), component.registered.spec.shorthand
    if set(options) - getattr(type(config), "KEEPS_CARD", frozenset()):
        component = replace(component, declared=None)  # another architecture than the one that was declared
    if shorthand is None or component.kind in BACKBONES or (not options and _has_preset(component)):
        return component
    name, value = component.reference.partition(":")[0], getattr(config, shorthand)
    return replace(component, reference=name if value is None else f"{name}:{value}")


def _has_preset(component: Component) -> bool:
    """Tell whether a reference names a preset of its plug-in: `qformer:tiny` sets more than its shorthand could say."""
    return component.reference.rpartition(":")[2] in component.registered.spec.presets


def _cards(recipe: Recipe, chosen: dict[str, Component]) -> Plan:
    """Make a plan from the components' cards; a connector or fusion that does not fit becomes a refusal."""
    variant = SPECS[recipe.variant]
    if "mllm" in chosen:
        whole = chosen["mllm"].card()
        assert isinstance(whole, MLLMCard)
        plan = Plan(recipe, chosen, whole.llm, whole.vision if variant.image else None)
        plan.connector = ConnectorCard(whole.tokens, whole.connector_parameters) if variant.early else None
    else:
        llm = chosen["llm"].card()
        assert isinstance(llm, LLMCard)
        vision = chosen["vision"].card() if "vision" in chosen else None
        assert vision is None or isinstance(vision, VisionCard)
        plan = Plan(recipe, chosen, llm, vision)
        plan.connector = _joint_card(plan, "connector")
    plan.fusion = _joint_card(plan, "fusion")
    return plan


def _joint_card(plan: Plan, kind: str) -> Any:
    component, vision = plan.components.get(kind), plan.vision
    if component is None or vision is None:
        return None
    if component.registered.spec.card is None:
        raise BadInput(f"{kind} {component.reference} declares no card", "its plug-in must name one in its spec")
    try:
        return component.computed_card(ConnectorCard if kind == "connector" else FusionCard, vision, plan.llm)
    except Mismatch as refusal:
        plan.refusals.append(refusal)
        return None


def _rows(plan: Plan) -> list[PlanRow]:
    recipe, llm, vision = plan.recipe, plan.llm, plan.vision
    rows = []
    if vision is not None:
        shape = f"{vision.image_size} px → {vision.tokens} × {vision.token_width}"
        rows.append(_row(plan, "vision", shape, vision.parameters, Tune.parse(recipe.vision.tune).trained(vision)))
    if vision is not None and plan.connector is not None:
        shape = f"{vision.tokens} × {vision.token_width} → {plan.connector.tokens} × {llm.input_width}"
        size = plan.connector.parameters
        rows.append(_row(plan, "connector", shape, size, size if recipe.connector.tune == "full" else 0))
    shape = f"{llm.input_width} → {llm.output_width} · {llm.layers} layers"
    rows.append(_row(plan, "llm", shape, llm.parameters, Tune.parse(recipe.llm.tune).trained(llm)))
    if vision is not None and plan.fusion is not None:
        late = vision.pooled_width or f"{vision.tokens} × {vision.token_width}"
        shape = f"{llm.output_width} + {late} → {plan.joined_width}"
        rows.append(_row(plan, "fusion", shape, plan.fusion.parameters, plan.fusion.parameters))
    if plan.variant.residual:
        size = llm.output_width * plan.joined_width
        rows.append(PlanRow("residual", "from zero", f"{llm.output_width} → {plan.joined_width}", size, size))
    if width := recipe.head.width:
        size = plan.joined_width * width
        rows.append(PlanRow("head", f"linear:{width}", f"{plan.joined_width} → {width}", size, size))
    return [*rows, PlanRow("loss", plan.components["loss"].reference, "", 1, 1)]


def _row(plan: Plan, part: str, shape: str, parameters: int, trained: int) -> PlanRow:
    component = plan.components[part if part in plan.components else "mllm"]
    return PlanRow(part, component.reference, shape, parameters, trained, str(component.weights), component.licence)
