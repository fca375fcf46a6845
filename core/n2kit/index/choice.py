"""The component of an index: chosen by its name, and remembered in the index's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from n2kit.contract.index import Index
from n2kit.contract.store import Store
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.component import Component

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class MadeBy:
    """The component that made an index: its name and its distribution, and all of its options."""

    component: str
    distribution: str
    options: Mapping[str, Any]


def choose_index(name: str, options: Mapping[str, Any] | None = None) -> Component:
    """Resolve a reference to an index, such as `flat` or `NAME:VALUE`, before any vector is read.

    Args:
        options: of the component, over those of the reference.

    Raises:
        BadInput: an unknown name, an option that it does not have, or a value that it does not take.
        Unavailable: its plug-in or a package of it is not there.
    """
    chosen = default_catalogue().resolve("index", name)
    chosen = replace(chosen, options={**chosen.options, **(options or {})})
    chosen.config()
    if not issubclass(cls := chosen.cls(), Index | Store):
        raise chosen.fault(f"its class {cls.__name__} is no Index and no Store of n2kit.contract")
    return chosen


def is_store(component: Component) -> bool:
    return issubclass(component.cls(), Store)


def made_by(component: Component) -> MadeBy:
    """Say what made an index, with all options."""
    owner = component.registered
    return MadeBy(owner.spec.name, owner.distribution, component.config().model_dump(mode="json"))
