"""Context managers that change a state of torch, and restore it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(part: nn.Module) -> Iterator[None]:
    """Put all modules of a part into eval mode, and afterwards each back into the mode that it had."""
    modes = {module: module.training for module in part.modules()}
    try:
        part.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training
