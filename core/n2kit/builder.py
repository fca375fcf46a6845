"""Build a joined model from a recipe: resolve, plan, load the weights, check them against their cards, calibrate."""

from __future__ import annotations

from typing import Any

import torch

from n2kit.bundle.references import of_component
from n2kit.contract.cards import Card, MLLMCard
from n2kit.contract.interfaces import LLM, DecomposedMLLM, Fusion, LoadSpec, Loss, VisionEncoder
from n2kit.contract.kinds import BACKBONES, CARDS, KIND_SPECS
from n2kit.errors import Mismatch
from n2kit.modeling.model import Model, Parts, Provenance
from n2kit.planning.plan import Plan
from n2kit.planning.planner import make_plan
from n2kit.plugins.blame import is_foreign
from n2kit.plugins.catalogue import check_card, default_catalogue
from n2kit.plugins.component import Component
from n2kit.plugins.manager import OWN, load_target
from n2kit.plugins.weights_reference import WeightsReference
from n2kit.recipe.choices import Choice
from n2kit.recipe.settings import Recipe, drop_none, resolve
from n2kit.recipe.variants import SPECS
from n2kit.utils.contexts import eval_mode

DECOMPOSED_PARTS = ("llm", "vision", "connector")  # what a multimodal LLM brings


def build(
    llm: str | None = None,
    vision: str | None = None,
    *,
    mllm: str | None = None,
    connector: str | None = None,
    fusion: str | None = None,
    loss: str | None = None,
    variant: str | None = None,
    settings: dict[str, Any] | None = None,
) -> Model:
    """Join two backbones: `n2kit.build(llm="qwen", vision="siglip")`.

    >>> model = n2kit.build("qwen:tiny", "siglip:tiny", connector="qformer:tiny", settings={"head.width": 16})
    >>> model.save("models/tiny")
    >>> model
    <n2kit.Model qwen:tiny+siglip:tiny, variant notellm2: vectors of 16
      llm       qwen:tiny: random, ... parameters, full
      vision    siglip:tiny: random, ... parameters, frozen
      connector qformer:tiny: ... parameters, full
      fusion    gate: ... parameters
      loss      notellm2: 1 parameter>

    Args:
        mllm: a multimodal LLM in place of llm, vision and connector.
        settings: any other setting of the recipe by its dotted name, as `--set` takes it: `{"head.width": 256}`.

    Raises:
        BadInput, Mismatch, Unavailable: as the command line reports them.
    """
    named = drop_none(llm=llm, vision=vision, mllm=mllm, connector=connector, fusion=fusion, loss=loss, variant=variant)
    resolved = resolve({**named, **(settings or {})})
    return from_plan(make_plan(resolved.recipe, requested=resolved.origin))


def from_plan(plan: Plan) -> Model:
    """Load the components that a plan names, and join them.

    Raises:
        Mismatch: the plan has refusals, or weights are not what their card says.
    """
    plan.raise_refusals()
    recipe, chosen = plan.recipe, plan.components
    torch.manual_seed(recipe.train.seed)
    if "mllm" in chosen:
        parts = _decompose(plan)
    else:
        llm: LLM = load_backbone(chosen["llm"], head=plan.generates)
        vision: VisionEncoder | None = load_backbone(chosen["vision"]) if "vision" in chosen else None
        parts = Parts(llm, loss_of(chosen["loss"]), vision)
        if vision is not None and "connector" in chosen:
            parts.connector = _made(chosen["connector"], vision=vision.card, llm=llm.card)
    sources = _sources(plan, parts)  # before any adapter is added
    model = join(plan, parts)
    model.provenance.sources = sources
    if "mllm" not in chosen:
        model.calibrate()  # a connector that was trained has its scale already
    return model


def join(plan: Plan, parts: Parts) -> Model:
    """Join parts to the plan's model; make its fusion, and initialise its special tokens from the LLM's embeddings.

    Raises:
        Mismatch: the LLM reads both ways, and the plan took it for a causal one.
    """
    chosen = plan.components
    if not parts.llm.card.causal and plan.llm.causal:
        raise Mismatch(f"{plan.name('llm')} reads both ways, and its card says causal", "correct its card")
    if parts.vision is not None and "fusion" in chosen:
        parts.fusion = _made(chosen["fusion"], vision=parts.vision.card, llm=parts.llm.card)
    provenance = Provenance({kind: _provenance(component) for kind, component in _owners(plan, parts).items()})
    if parts.vision is not None:
        provenance.parts["vision"]["transform"] = parts.vision.transform_id
    model = Model(parts, plan.recipe, provenance)
    model.special_tokens.init_from_mean(parts.llm)
    return model


def with_fusion(model: Model, reference: str, recipe: Recipe) -> Model:
    """Join a model's LLM and vision encoder by another fusion; the prompt's wording stays, and the connector if the variant has one."""
    assert model.vision is not None
    connector = model.connector if SPECS[recipe.variant].early else None
    component = default_catalogue().resolve("fusion", reference)
    fusion: Fusion = _made(component, vision=model.vision.card, llm=model.llm.card)
    kept = ("llm", "vision", "loss", *(["connector"] if connector is not None else []))
    provenance = Provenance(
        {kind: facts for kind, facts in model.provenance.parts.items() if kind in kept}
        | {"fusion": _provenance(component)},
        {kind: source for kind, source in model.provenance.sources.items() if kind in kept},
    )
    update = {"fusion": Choice(name=component.reference)}
    parts = Parts(model.llm, model.loss, model.vision, connector, fusion)
    made = Model(parts, recipe.model_copy(update=update), provenance, model.prompt_builder.template)
    made.special_tokens.load_state_dict(model.special_tokens.state_dict())
    made.connector_scale.copy_(model.connector_scale)
    return made


def _sources(plan: Plan, parts: Parts) -> dict[str, WeightsReference]:
    """Collect the weights' references of the parts that were loaded: kind → reference."""
    found = {}
    for kind, component in _owners(plan, parts).items():
        if component.kind in BACKBONES:
            head = kind == "llm" and "mllm" not in plan.components and plan.generates
            if source := of_component(component, getattr(parts, kind), head=head):
                found[kind] = source
    return found


def _owners(plan: Plan, parts: Parts) -> dict[str, Component]:
    """Map each kind of part to the component that it came from."""
    chosen = plan.components
    return {k: chosen["mllm"] if "mllm" in chosen and k in DECOMPOSED_PARTS else chosen[k] for k, _ in parts.items()}


def load_backbone(component: Component, *, head: bool = False) -> Any:
    """Load an LLM, with its language head where `head` is set, or a vision encoder.

    Raises:
        Mismatch: it is not what its card says.
    """
    part = component.create(LoadSpec(component.config(), component.weights.locate(), head))
    _check_class(component, part)
    if isinstance(part, LLM) and part.card.causal and is_foreign(part) and _sees_later_tokens(part):
        raise component.fault("its card says causal, and a later token changes an earlier state")
    check_card(component.reference, component.declared, part.card)
    return part


@torch.no_grad()
def _sees_later_tokens(llm: LLM) -> bool:
    """Tell whether the states of a row's first half change with its second half: [1, 8] token ids."""
    with eval_mode(llm):
        x = llm.embed(torch.arange(8)[None] % llm.card.vocab)
        other = torch.cat([x[:, :4], x[:, 4:].flip(1) + 1], 1)
        extras = llm.extras(torch.ones(1, 8, dtype=torch.bool))
        one, two = (llm(rows, **extras)[:, :4].float() for rows in (x, other))
    return bool((one - two).abs().max() > 1e-3 * one.abs().max())


def _decompose(plan: Plan) -> Parts:
    """Load a multimodal LLM and return those of its three parts that the variant uses."""
    component, variant = plan.components["mllm"], SPECS[plan.recipe.variant]
    joined: DecomposedMLLM = component.create(LoadSpec(component.config(), component.weights.locate()))
    if not isinstance(joined, DecomposedMLLM):
        raise component.fault(f"its create gives {type(joined).__name__}, not DecomposedMLLM")
    check_card(component.reference, component.declared, card_of(joined))
    return Parts(
        joined.llm,
        loss_of(plan.components["loss"]),
        joined.vision if variant.image else None,
        joined.connector if variant.early else None,
    )


def measured_card(component: Component) -> Card:
    """Load a backbone and return its measured card."""
    return card_of(component.create(LoadSpec(component.config(), component.weights.locate())))


def card_of(loaded: Any) -> Card:
    """Return the measured card of a backbone, or of a multimodal LLM's three parts."""
    if not isinstance(loaded, DecomposedMLLM):
        card: Card = loaded.card
        return card
    parameters = sum(p.numel() for p in loaded.connector.parameters())
    return MLLMCard(loaded.llm.card, loaded.vision.card, loaded.connector.tokens, parameters)


def loss_of(component: Component) -> Loss:
    loss: Loss = _made(component)
    return loss


def _made(component: Component, **cards: Card) -> Any:
    """Create a connector, a fusion or a loss.

    Raises:
        Unavailable: its class is none of its kind.
    """
    part = component.make(**cards)
    _check_class(component, part)
    return part


def _check_class(component: Component, part: Any) -> None:
    """Check that what a plug-in created is a part of its kind, and has a card where its kind has one.

    Raises:
        Unavailable: it is something else.
    """
    wanted = load_target(KIND_SPECS[component.kind].interface, owner=OWN)
    if not isinstance(part, wanted):
        raise component.fault(f"its class {type(part).__name__} is no {wanted.__name__} of n2kit.contract")
    card = CARDS.get(component.kind)
    if card is not None and not isinstance(getattr(part, "card", None), card):
        raise component.fault(f"it has no `card` of the class {card.__name__} when it is created")


def _provenance(component: Component) -> dict[str, Any]:
    return {
        "reference": component.reference,
        "kind": component.kind,
        "component": component.registered.spec.name,
        "distribution": component.registered.distribution,
        "version": component.registered.version,
        "weights": str(component.weights),
        "licence": component.licence,
    }
