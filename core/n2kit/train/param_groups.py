"""The optimiser's parameter groups: which weights are trained, and at which learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from n2kit.errors import Mismatch
from n2kit.modeling.layer_depth import layer_depths

if TYPE_CHECKING:
    from n2kit.modeling.model import Model
    from n2kit.recipe.settings import Train

NEW = ("connector", "fusion", "head", "residual", "words", "loss")  # parts that start at random, or at zero
SETTING = {"special_tokens": "words"}  # name of a module → its name in `train.lrs`, where that differs


def param_groups(model: Model, settings: Train) -> list[dict[str, Any]]:
    """Group trained parameters by learning rate and weight decay.

    Each part has its own rate, which is lower for a backbone's lower blocks; vectors and scalars have no decay.
    """
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    depth = _depths(model, settings)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = _rate(model, name.partition(".")[0], settings)
        lr *= settings.layer_decay ** depth.get(id(parameter), 0)
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        found.setdefault((lr, decay), []).append(parameter)
    return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in found.items()]


def _rate(model: Model, part: str, settings: Train) -> float:
    """Return a part's own learning rate, else `new_lr` where it started at random, else `lr`."""
    part = SETTING.get(part, part)
    if part in settings.lrs:
        return settings.lrs[part]
    new = part in NEW and model.provenance.parts.get(part, {}).get("kind") != "mllm"
    return settings.new_lr if new and settings.new_lr else settings.lr


def _depths(model: Model, settings: Train) -> dict[int, int]:
    """Map the `id` of each weight of a tuned backbone to its depth, where `layer_decay` is used.

    Raises:
        Mismatch: a backbone without blocks.
    """
    found: dict[int, int] = {}
    for kind in ("llm", "vision"):
        part = getattr(model, kind)
        if settings.layer_decay == 1 or part is None or part.frozen:
            continue
        if not part.blocks():
            way = "--set train.layer_decay=1"
            raise Mismatch(f"train.layer_decay works on blocks, and the {kind} names none of its own", way)
        found |= layer_depths(part)
    return found
