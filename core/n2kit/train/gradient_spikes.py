"""When a training has exploded: its gradient stays far beyond what it was.

One large gradient is clipped and forgotten; several in a row mean that the weights have left the region in which they were
being trained, long before anything is infinite.
"""

from __future__ import annotations

from statistics import median

WINDOW, MIN_NORMS, MAX_CONSECUTIVE = (
    100,
    20,
    5,
)  # gradients remembered, before which nothing is judged, and beyond the limit in a row


class GradientSpikeGuard:
    """Watches the norm of the gradient, before it is clipped.

    Args:
        limit: times the median of the last `WINDOW` norms that were within the limit; None: nothing is an explosion.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.norms: list[float] = []
        self.consecutive = 0  # norms beyond the limit since the last one within

    def update(self, norm: float) -> bool:
        """Take note of a step's norm; whether the training has exploded."""
        if self.limit is not None and len(self.norms) >= MIN_NORMS and norm > self.limit * median(self.norms):
            self.consecutive += 1
        else:
            self.consecutive = 0
            if norm > 0:  # a loss that is satisfied gives none, and says nothing of what is usual
                self.norms = [*self.norms, norm][-WINDOW:]
        return self.consecutive >= MAX_CONSECUTIVE

    def state(self) -> dict[str, object]:
        """What `restore` takes, as JSON."""
        return {"norms": self.norms, "row": self.consecutive}

    def restore(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
