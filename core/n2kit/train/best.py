"""The best step so far by validation, and when to stop waiting for a better one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Best:
    """The best validation so far.

    Args:
        metric: what is compared; more is better, and of equal ones the first is kept.
        patience: validations in a row without a better one, after which training is over; None: it goes on.
    """

    metric: str
    patience: int | None = None
    step: int | None = None  # the best one
    values: dict[str, float] = field(default_factory=dict)  # metric → value, of the best step
    last: dict[str, float] = field(default_factory=dict)  # of the last validation
    last_step: int | None = None  # of the last validation
    waited: int = 0  # validations since the best one

    def update(self, step: int, values: dict[str, float]) -> bool:
        """Take note of a validation, and return whether it is the best so far."""
        self.last, self.last_step = values, step
        better = self.step is None or values[self.metric] > self.values[self.metric]
        if better:
            self.step, self.values, self.waited = step, values, 0
        else:
            self.waited += 1
        return better

    @property
    def patience_exhausted(self) -> bool:
        """True once `patience` validations in a row brought no better one."""
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes, as JSON."""
        # The names of these keys are those of checkpoints that exist.
        return {
            "step": self.step,
            "values": self.values,
            "last": self.last,
            "looked": self.last_step,
            "waited": self.waited,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.step, self.values, self.last = state["step"], state["values"], state["last"]
        self.last_step, self.waited = state["looked"], state["waited"]
