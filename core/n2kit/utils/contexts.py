"""States of torch that hold for a while, and then are as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(part: nn.Module) -> Iterator[None]:
    """In eval mode; afterwards each module as it was."""
    modes = {module: module.training for module in part.modules()}
    try:
        part.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training
