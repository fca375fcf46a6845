"""Detection of a training that has exploded: its gradient stays far beyond its earlier size.

One large gradient is clipped and forgotten; several in a row mean that the weights have left the region in which they were
being trained, long before anything is infinite.
"""

from __future__ import annotations

from statistics import median
from typing import Any

WINDOW, MIN_NORMS, MAX_CONSECUTIVE = (
    100,
    20,
    5,
)  # gradients remembered, before which nothing is judged, and beyond the limit in a row


class GradientSpikeGuard:
    """A comparison of the gradient's norm, before it is clipped, with its recent median.

    Args:
        limit: how many times the median of the last `WINDOW` norms within the limit is too much; None: nothing is.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.norms: list[float] = []
        self.consecutive = 0  # norms beyond the limit since the last one within

    def update(self, norm: float) -> bool:
        """Take note of a step's norm, and return whether the training has exploded."""
        if self.limit is not None and len(self.norms) >= MIN_NORMS and norm > self.limit * median(self.norms):
            self.consecutive += 1
        else:
            self.consecutive = 0
            if norm > 0:  # a loss that is satisfied has none, which is no measure of the usual norm
                self.norms = [*self.norms, norm][-WINDOW:]
        return self.consecutive >= MAX_CONSECUTIVE

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes, as JSON."""
        # The names of these keys are those of checkpoints that exist.
        return {"norms": self.norms, "row": self.consecutive}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.norms, self.consecutive = state["norms"], state["row"]
