"""The trained share of a part: what a recipe's `tune` does to its weights."""

from __future__ import annotations

from n2kit.contract.interfaces import Part
from n2kit.errors import Mismatch, counted
from n2kit.modeling import lora
from n2kit.modeling.layer_depth import parameters_after_blocks
from n2kit.recipe.tuning import Tune


def apply(part: Part, what: str, tune: Tune, seed: int) -> None:
    """Freeze a part, or mark its trained weights, as its recipe says.

    Args:
        what: the part's kind, for errors.
        seed: of a new adapter's weights.

    Raises:
        Mismatch: the part has not the blocks that are to be tuned, or it holds another adapter.
    """
    existing = lora.lora_config_of(part)
    if existing is not None and tune.mode != "frozen" and tune.adapter != existing:
        raise Mismatch(
            f"the {what} holds an adapter of {existing}, and {what}.tune {tune} was asked for",
            f"--tune {what}={existing} or {what}=frozen, or n2kit merge the bundle first",
        )
    if tune.mode == "frozen":
        part.freeze()
    elif tune.mode == "last":
        _last(part, what, tune)
    elif tune.adapts:
        if existing is None:
            _blocks(part, what, tune)
            lora.add(part, what, tune, seed)
        part.partially_trainable = True
    part.train(part.training)


def _last(part: Part, what: str, tune: Tune) -> None:
    blocks = _blocks(part, what, tune)
    if tune.number > blocks:
        raise Mismatch(
            f"{what}.tune {tune} asks for {counted(tune.number, 'block')}, and the {what} has {blocks}",
            f"--tune {what}=last:{blocks} or fewer, or {what}=full",
        )
    after = parameters_after_blocks(part)
    part.requires_grad_(False)
    for weight in [w for block in part.blocks()[-tune.number :] for w in block.parameters()] + after:
        weight.requires_grad_(True)
    part.partially_trainable = True


def _blocks(part: Part, what: str, tune: Tune) -> int:
    if not len(part.blocks()):
        raise Mismatch(
            f"{what}.tune {tune} works on blocks, and the {what} names none of its own", f"--tune {what}=full"
        )
    return len(part.blocks())
