"""Everything that decides the next step of a training, as tensors and JSON: after any stop a run ends as if it had not stopped.

transformers' own checkpoints are written in place, and pickled; see `n2kit.train.checkpoint` for these.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from n2kit.errors import BadInput
from n2kit.train.checks import trained_state
from n2kit.train.shards import full_state_dict, reshard

# Names in checkpoints that an earlier n2kit wrote → the names that they have now.
RENAMED = {"model.gain": "model.connector_scale", "model.words.table.weight": "model.special_tokens.table.weight"}


class Resumable(Protocol):
    """State of a run besides its weights, which a checkpoint holds as JSON."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


def load_weights(module: nn.Module, file: Path) -> None:
    """Copy a file's tensors into what of the module is trained.

    Raises:
        BadInput: the file holds others than are trained.
    """
    saved = {RENAMED.get(name, name): tensor for name, tensor in load_file(file).items()}
    own = trained_state(module)
    if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in own.items()}:
        raise BadInput(f"{file} holds other parameters than this run trains", "give another -o")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(reshard(tensor, saved[name]))


def optimizer_state(optimizer: Any) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return an optimiser's moments, named NUMBER.NAME by the parameter's number, and its groups' settings, which are JSON."""
    state = optimizer.state_dict()
    moments = {f"{number}.{name}": t for number, own in state["state"].items() for name, t in own.items()}
    return full_state_dict(moments), state["param_groups"]


def load_optimizer(optimizer: Any, moments: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
    """Restore what `optimizer_state` returned, JSON's lists being tuples again."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in moments.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = reshard(parameters[int(number)], tensor)
    settings = [
        {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()} for group in groups
    ]
    optimizer.load_state_dict({"state": state, "param_groups": settings})


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of this process's random generators, as JSON."""
    kind, words, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(words).tolist(), *rest],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": torch.cuda.get_rng_state(device).numpy().tobytes().hex() if device.type == "cuda" else None,
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(_bytes(state["torch"]))
    if state["cuda"] and device.type == "cuda":
        torch.cuda.set_rng_state(_bytes(state["cuda"]), device)


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
