"""Random numbers of a training besides the order of its pairs."""

from __future__ import annotations

from random import Random
from typing import Any

from transformers import TrainerCallback


class EpochRng(TrainerCallback):
    """Random generators that depend on the seed, the epoch and the purpose of the numbers alone.

    The numbers are therefore the same after a resume, and for any number of processes.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        self.epoch = state.global_step // max(1, len(train_dataloader))

    def generator(self, name: str) -> Random:
        """Make the generator of a purpose, a new one every epoch."""
        return Random(f"{self.seed} {self.epoch} {name}")
