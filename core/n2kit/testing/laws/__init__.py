"""The laws of the kit: plain functions that take a component under test (`n2kit.testing.under_test`) and raise AssertionError.

A law with a `capability` holds only for components that declare it; where one keeps it without declaring it, that is a hint.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from n2kit.contract.kinds import KIND_SPECS, KINDS, Kind
from n2kit.errors import N2kitError

if TYPE_CHECKING:
    from n2kit.testing.under_test import ComponentUnderTest

Check = Callable[[Any], None]
_LAWS: list[Law] = []


@dataclass(frozen=True)
class Law:
    """One promise of a kind's interface; its name is the function's, its text the function's docstring."""

    name: str
    kinds: tuple[Kind, ...]
    check: Check
    capability: str | None = None
    of: type | None = None

    def applies(self, under_test: ComponentUnderTest) -> bool:
        """Tell whether the component is of the interface that the law is for; one whose class is not there is judged by every law."""
        if self.of is None:
            return True
        try:
            return issubclass(under_test.component.cls(), self.of)
        except N2kitError:
            return True

    @property
    def text(self) -> str:
        return (self.check.__doc__ or "").splitlines()[0]


def law(*kinds: Kind, capability: str | None = None, of: type | None = None) -> Callable[[Check], Check]:
    """Make a function a law of some kinds; of all of them if none is given. `of`: of those classes of a kind alone."""

    def register(check: Check) -> Check:
        _LAWS.append(Law(check.__name__, kinds or KINDS, check, capability, of))
        return check

    return register


def laws_of(kind: Kind) -> tuple[Law, ...]:
    """Return the laws of one kind, in the order in which they are worth reading."""
    for module in ("n2kit.testing.laws.every", *KIND_SPECS[kind].laws):
        importlib.import_module(module)
    return tuple(entry for entry in _LAWS if kind in entry.kinds)
