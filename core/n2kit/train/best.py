"""The best step so far by validation, and when to stop waiting for a better one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Best:
    """The best validation so far.

    A start that was validated is left only for a step that is ahead of it by more than one standard error, query by query:
    with few queries, some step is always ahead by chance (the one-standard-error rule of Breiman et al. 1984).

    Args:
        metric: what is compared; more is better, and of equal ones the first is kept.
        patience: validations in a row that are no better than all before, after which training is over; None: it goes on. A training
            that still gets better goes on, though it is not ahead of its start yet.
    """

    metric: str
    patience: int | None = None
    step: int | None = None  # the best one
    values: dict[str, float] = field(default_factory=dict)  # metric → value, of the best step
    last: dict[str, float] = field(default_factory=dict)  # of the last validation
    last_step: int | None = None  # of the last validation
    highest: float | None = None  # the best value, also of a step that is not ahead of the start
    waited: int = 0  # validations since that
    start: list[float] = field(default_factory=list)  # each query's value at step 0, if that was validated

    def update(self, step: int, values: dict[str, float], per_query: list[float]) -> bool:
        """Take note of a validation, and return whether it is the best so far.

        Args:
            per_query: the metric of each query [Q], always in the same order.
        """
        self.last, self.last_step = values, step
        better = self.step is None or (values[self.metric] > self.values[self.metric] and self._beats_start(per_query))
        if step == 0:
            self.start = per_query
        if better:
            self.step, self.values = step, values
        if self.highest is None or values[self.metric] > self.highest:
            self.highest, self.waited = values[self.metric], 0
        else:
            self.waited += 1
        return better

    def _beats_start(self, per_query: list[float]) -> bool:
        if len(self.start) < 2:
            return True
        ahead = np.array(per_query) - np.array(self.start)
        return bool(ahead.mean() > ahead.std(ddof=1) / np.sqrt(len(ahead)))

    @property
    def patience_exhausted(self) -> bool:
        """True once `patience` validations in a row were no better than all before."""
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes, as JSON."""
        # The names of these keys are those of checkpoints that exist.
        return {
            "step": self.step,
            "values": self.values,
            "last": self.last,
            "looked": self.last_step,
            "highest": self.highest,
            "waited": self.waited,
            "start": self.start,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.step, self.values, self.last = state["step"], state["values"], state["last"]
        self.last_step, self.waited, self.start = state["looked"], state["waited"], state.get("start", [])
        self.highest = state.get("highest", self.values.get(self.metric))
