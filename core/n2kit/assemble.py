"""From a recipe to a joined model: resolve, plan, load the weights, check them against their cards, calibrate."""

from __future__ import annotations

from typing import Any

import torch

from n2kit.errors import Mismatch
from n2kit.model import Model, Parts, Provenance
from n2kit.parts import LLM, Connector, Fusion, Loss, Origin, VisionEncoder
from n2kit.plan import Plan, make_plan
from n2kit.recipe import given, resolve
from n2kit.registry import Component, check_card


def build(
    llm: str | None = None,
    vision: str | None = None,
    *,
    connector: str | None = None,
    fusion: str | None = None,
    loss: str | None = None,
    variant: str | None = None,
    settings: dict[str, Any] | None = None,
) -> Model:
    """Join two backbones: `n2kit.build(llm="qwen", vision="siglip")`.

    Args:
        settings: any other setting of the recipe by its dotted name, as `--set` takes it: `{"head.width": 256}`.

    Raises:
        BadInput, Mismatch, Unavailable: as the command line reports them.
    """
    named = given(llm=llm, vision=vision, connector=connector, fusion=fusion, loss=loss, variant=variant)
    resolved = resolve({**named, **(settings or {})})
    return from_plan(make_plan(resolved.recipe, given=resolved.origin))


def from_plan(plan: Plan) -> Model:
    """Load what a plan names.

    Raises:
        Mismatch: the plan has refusals, or weights are not what their card says.
    """
    plan.raise_refusals()
    recipe = plan.recipe
    torch.manual_seed(recipe.train.seed)
    chosen = plan.components
    llm: LLM = _backbone(chosen["llm"])
    vision: VisionEncoder | None = _backbone(chosen["vision"]) if "vision" in chosen else None
    parts = Parts(llm, _loss(chosen["loss"]), vision)
    if vision is not None:
        if "connector" in chosen:
            parts.connector = _joint(chosen["connector"], vision, llm)
        if "fusion" in chosen:
            parts.fusion = _joint(chosen["fusion"], vision, llm)
    provenance = Provenance({k: _provenance(c) for k, c in chosen.items()})
    if vision is not None:
        provenance.parts["vision"]["transform"] = vision.transform_id
    model = Model(parts, recipe, provenance)
    model.words.start_at(llm)
    model.calibrate()
    return model


def _backbone(component: Component) -> Any:
    part = component.cls().create(Origin(component.config(), component.weights.locate()))
    check_card(component.reference, component.declared, part.card)
    if isinstance(part, LLM) and not part.card.causal:
        # Rows are padded without a mask: only a causal model never sees the padding.
        raise Mismatch(f"llm {component.reference} reads both ways", "join a causal language model")
    return part


def _joint(component: Component, vision: VisionEncoder, llm: LLM) -> Any:
    part: Connector | Fusion = component.cls()(component.config(), vision=vision.card, llm=llm.card)
    return part


def _loss(component: Component) -> Loss:
    loss: Loss = component.cls()(component.config())
    return loss


def _provenance(component: Component) -> dict[str, Any]:
    return {
        "reference": component.reference,
        "component": component.owned.spec.name,
        "distribution": component.owned.distribution,
        "version": component.owned.version,
        "weights": str(component.weights),
        "licence": component.licence,
    }
