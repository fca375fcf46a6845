"""Counts of a run that a resumed run goes on with."""

from __future__ import annotations

import time
from typing import Any

from n2kit.train import distributed


class RunCounters:
    """Items that cannot be read, steps without negatives, seconds, and the last step's loss.

    Args:
        bad: id → why it cannot be read, filled by the reader of this process.
    """

    def __init__(self, bad: dict[str, str]) -> None:
        self.bad, self.steps_without_negatives = bad, 0
        self.last_loss: float | None = None
        self.earlier_seconds, self.started = 0.0, time.perf_counter()  # before the last stop; when this process began

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes, as JSON; every process must ask."""
        seconds = self.earlier_seconds + time.perf_counter() - self.started
        # The names of these keys are those of checkpoints that exist.
        counts = {"barren": self.steps_without_negatives, "seconds": seconds, "loss": self.last_loss}
        return {"bad": distributed.gather_dict(self.bad)} | counts

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.bad.update(state["bad"])
        self.steps_without_negatives, self.earlier_seconds = state["barren"], state.get("seconds", 0.0)
        self.last_loss = state.get("loss")  # which earlier versions did not keep
