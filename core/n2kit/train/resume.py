"""A Trainer whose checkpoints bring back all that decides the next step: after any stop a run ends as if it had not been stopped.

transformers' own writes in place, and pickles. Here tensors are safetensors, all else is JSON; see `n2kit.train.checkpoint`.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from n2kit.errors import BadInput
from n2kit.train import distributed
from n2kit.train.checkpoint import WEIGHTS, read, write
from n2kit.train.checks import trained_state
from n2kit.train.shards import full_state_dict, reshard

MOMENTS = "optimizer.safetensors"


class Carried(Protocol):
    """What a run knows besides its weights, and takes along over a stop; the state is JSON."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class ResumableTrainer(Trainer):
    """Saves only what is trained, and everything that is needed to go on.

    carried: what else is saved and brought back, by name. facts: what is saved for whoever goes on, as JSON.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.step: nn.Module = options["model"]
        self.folder = Path(str(self.args.output_dir))
        self.carried: dict[str, Carried] = {}
        self.facts: dict[str, Any] = {}

    def best_file(self) -> Path | None:
        """The best weights that a checkpoint of now belongs to."""
        return None

    def has_ended(self, saved: Path) -> bool:
        """Whether nothing is left to train after a checkpoint."""
        steps: int = TrainerState.load_from_json(str(saved / TRAINER_STATE_NAME)).global_step
        return steps >= self.args.max_steps

    def restore(self, saved: Path) -> None:
        """Become what a checkpoint holds, without training on."""
        self._load_from_checkpoint(str(saved))
        self.state = TrainerState.load_from_json(str(saved / TRAINER_STATE_NAME))
        self._carry_on(saved)

    def _init_training_state(self, max_steps: int, *rest: Any) -> tuple[int, int]:
        begun: tuple[int, int] = super()._init_training_state(max_steps, *rest)
        self.state.compute_steps(self.args, max_steps)  # how often to log and save is said anew, and not what it was
        return begun

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        weights, randoms = (
            full_state_dict(trained_state(self.step)),
            distributed.all_gather_object(random_state(self.args.device)),
        )
        moments, groups = optimizer_state(self.optimizer)
        assert self.lr_scheduler is not None
        best = self.best_file()
        state = {
            "optimizer": groups,
            "scheduler": self.lr_scheduler.state_dict(),
            "random": randoms,
            "carried": {name: one.state() for name, one in self.carried.items()},
            "best_file": best.name if best else None,
        } | self.facts
        distributed.main_process_only(
            lambda: write(
                self.folder,
                self.state.global_step,
                {WEIGHTS: weights, MOMENTS: moments},
                {TRAINER_STATE_NAME: json.dumps(asdict(self.state), indent=1)},
                state,
            )
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.put(Path(resume_from_checkpoint) / WEIGHTS)

    def put(self, file: Path) -> None:
        """Take weights over from a file.

        Raises:
            BadInput: it holds others than this run trains.
        """
        saved, own = load_file(file), trained_state(self.step)
        if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in own.items()}:
            raise BadInput(f"{file} holds other parameters than this run trains", "give another -o")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(reshard(tensor, saved[name]))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        saved = Path(checkpoint)
        state = read(saved)
        assert self.lr_scheduler is not None
        load_optimizer(self.optimizer, load_file(saved / MOMENTS), state["optimizer"])
        self.lr_scheduler.load_state_dict(state["scheduler"])
        self._carry_on(saved)

    def _carry_on(self, saved: Path) -> None:
        for name, state in read(saved)["carried"].items():
            self.carried[name].restore(state)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        randoms = read(Path(checkpoint))["random"] if checkpoint is not None else []
        if distributed.rank() < len(randoms):  # a run may go on with more processes
            set_random_state(randoms[distributed.rank()], self.args.device)


def optimizer_state(optimizer: Any) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's moments, named NUMBER.NAME by the parameter's number, and its groups' settings, which are JSON."""
    state = optimizer.state_dict()
    moments = {f"{number}.{name}": t for number, own in state["state"].items() for name, t in own.items()}
    return full_state_dict(moments), state["param_groups"]


def load_optimizer(optimizer: Any, moments: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
    """Bring back what `optimizer_state` gave, JSON's lists being tuples again."""
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
    """Where this process's generators stand, as JSON."""
    kind, words, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(words).tolist(), *rest],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": torch.cuda.get_rng_state(device).numpy().tobytes().hex() if device.type == "cuda" else None,
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Bring back what `random_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(_bytes(state["torch"]))
    if state["cuda"] and device.type == "cuda":
        torch.cuda.set_rng_state(_bytes(state["cuda"]), device)


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
