"""The result of one law on one component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["passed", "failed", "hint", "not declared"]


@dataclass(frozen=True)
class LawResult:
    """The result of one law on one component. State `hint`: it keeps a capability's law without declaring the capability."""

    component: str
    law: str
    state: State
    reason: str = ""
