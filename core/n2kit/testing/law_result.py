"""The result of one law on one component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["passed", "failed", "hint", "not declared", "waived"]


@dataclass(frozen=True)
class LawResult:
    """The result of one law on one component. `hint`: it keeps the law of a capability that it does not declare, or one that it waives."""

    component: str
    law: str
    state: State
    reason: str = ""
