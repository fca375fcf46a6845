"""The state of a process that a component has to leave as it is: other parts, and the user's program, live in it too."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

FUNCTIONS = {
    "json": (json, ("dumps", "loads", "dump", "load")),
    "torch": (torch, ("load", "save", "matmul", "stack", "cat")),
    "torch.nn.functional": (torch.nn.functional, ("linear", "softmax", "cross_entropy", "normalize", "embedding")),
    "torch.nn.Module": (torch.nn.Module, ("__call__", "__setattr__", "to", "train", "state_dict", "load_state_dict")),
}


def lasting_state() -> dict[str, Any]:
    """Take down what not even an import may change: defaults of torch, signal handlers, the folder, functions of others."""
    functions = {f"{name}.{f}": getattr(home, f) for name, (home, names) in FUNCTIONS.items() for f in names}
    return functions | {
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "grad mode": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the number of torch's threads": torch.get_num_threads(),
        "signal handlers": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "the current folder": Path.cwd(),
    }


def passing_state() -> dict[str, Any]:
    """Take down what libraries change when they are imported, and no creation or forward pass may."""
    return {
        "the environment": dict(os.environ),
        "filters of warnings": list(warnings.filters),
        "the state of random": random.getstate(),
        "the state of numpy's generator": repr(np.random.get_state()),
        "running threads": {thread.name for thread in threading.enumerate() if not thread.daemon},
    }


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name what differs between two states."""
    return [name for name, value in before.items() if after[name] != value]
