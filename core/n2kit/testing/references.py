"""References of the components that the laws are tried on."""

from __future__ import annotations

from n2kit.contract.cards import ComponentSpec
from n2kit.contract.kinds import Kind
from n2kit.plugins.manager import OWN, manager


def references(kind: Kind, distribution: str) -> list[str]:
    """Return the references of a distribution's components of one kind, each at its smallest."""
    registered = (o for o in manager().components(kind) if o.distribution == distribution)
    return [reference for o in registered for reference in references_of(o.spec, distribution)]


def references_of(spec: ComponentSpec, distribution: str) -> list[str]:
    """Return a component's references at each `tiny…` preset, or as it is where it has none."""
    name = spec.name if distribution == OWN else f"{distribution}/{spec.name}"
    return [f"{name}:{v}" for v in spec.presets if v.startswith("tiny")] or [name]
