"""Checks for faults that no error would show: frozen weights that change, and adapters that are not trained."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from n2kit.contract.interfaces import Part
from n2kit.errors import Failed, Mismatch, counted
from n2kit.modeling import lora
from n2kit.modeling.model import Model
from n2kit.train.shards import full_tensor


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """Return everything that training changes: trained weights, and statistics of modules with trained weights in or beside them."""
    weights = {name: parameter.requires_grad for name, parameter in module.named_parameters(remove_duplicate=False)}
    still = {id(m) for part in module.modules() if isinstance(part, Part) for m in part.frozen_modules()}
    resting = tuple(f"{name}." for name, m in module.named_modules() if id(m) in still)
    return {n: t for n, t in module.state_dict().items() if weights.get(n, not n.startswith(resting))}


def frozen_fingerprint(module: nn.Module) -> str:
    """Hash all weights and statistics that training must not change; empty where it may change all."""
    digest, trained = hashlib.sha256(), trained_state(module)
    left = {name: tensor for name, tensor in module.state_dict().items() if name not in trained}
    for name, tensor in sorted(left.items()):
        tensor = full_tensor(tensor.detach())
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16] if left else ""


class AdapterCheck(TrainerCallback):
    """A check, at the first step that reaches a part, that each of its adapters gets a gradient.

    Raises:
        Failed: one gets none: the layer's forward does not run, or no output depends on it.
    """

    def __init__(self, model: Model) -> None:
        self.unchecked = {
            kind: part for kind, part in model.parts.items() if lora.lora_config_of(part) and not part.frozen
        }
        self.steps = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps += 1
        for kind, part in list(self.unchecked.items()):
            idle, count = lora.untrained_adapters(part)
            if len(idle) == count and kind == "vision":
                continue  # no item of this batch has an image
            if idle:
                self._fail(
                    f"{len(idle)} of {counted(count, 'adapter')} of the {kind} got no gradient: {', '.join(idle[:3])}",
                    kind,
                )
            del self.unchecked[kind]

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for kind in self.unchecked if self.steps else ():
            self._fail(f"in {counted(self.steps, 'step')}, no adapter of the {kind} got a gradient", kind)

    def _fail(self, message: str, kind: str) -> None:
        raise Failed(message, f"--tune {kind}=last:2, {kind}=full or {kind}=frozen")


def check_trainable(model: Model) -> None:
    """Check that training can change a vector at all.

    Raises:
        Mismatch: no weight that makes one is trained.
    """
    makes = [model.llm, model.vision, model.connector, model.fusion, model.head, model.residual]
    words = model.variant.micl or "generation" in model.loss.extra_inputs  # whose prompts hold special tokens
    if words or any(p.requires_grad for part in makes if part is not None for p in part.parameters()):
        return
    raise Mismatch(
        f"variant {model.recipe.variant} with everything frozen: nothing that makes a vector is trained",
        "--tune llm=lora:16, or llm=last:2",
    )
