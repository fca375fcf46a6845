"""Context managers that change a state of torch, and restore it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

SMALL = 10_000_000  # parameters: a few tokens or one image take them milliseconds


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


@contextmanager
def one_thread_if_small(part: nn.Module) -> Iterator[None]:
    """Compute with one thread where a part is so small that several wait for each other for longer than they compute."""
    before = torch.get_num_threads()
    small = before > 1 and sum(p.numel() for p in part.parameters()) < SMALL
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Compute in `dtype` by autocast; with float32 or None, in the types that the weights have."""
    if dtype is None or dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)
