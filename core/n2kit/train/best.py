"""The best step so far by validation, and when to stop looking for a better one."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Best:
    """What validations have given.

    Args:
        metric: what is compared; more is better, and of equal ones the first is kept.
        patience: validations in a row without a better one, after which training is over; None: it goes on.
    """

    metric: str
    patience: int | None = None
    step: int | None = None  # the best one
    values: dict[str, float] = field(default_factory=dict)  # metric → value, of the best step
    last: dict[str, float] = field(default_factory=dict)  # of the last validation
    looked: int | None = None  # the step of the last validation
    waited: int = 0  # validations since the best one

    def update(self, step: int, values: dict[str, float]) -> bool:
        """Take note of a validation; whether it is the best so far."""
        self.last, self.looked = values, step
        better = self.step is None or values[self.metric] > self.values[self.metric]
        if better:
            self.step, self.values, self.waited = step, values, 0
        else:
            self.waited += 1
        return better

    @property
    def patience_exhausted(self) -> bool:
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """What `restore` takes, as JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("metric", "patience")}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
