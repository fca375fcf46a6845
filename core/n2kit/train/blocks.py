"""What is done to the blocks of the backbones while a training runs: checkpointing, compiling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from n2kit.errors import Mismatch, Unavailable
from n2kit.modeling.layer_depth import trial
from n2kit.train.step import NORMS

if TYPE_CHECKING:
    from n2kit.contract.interfaces import Part
    from n2kit.modeling.model import Model
    from n2kit.recipe.settings import Train


@contextmanager
def prepared_blocks(model: Model, settings: Train) -> Iterator[None]:
    """Blocks that keep their inputs alone, or run as compiled code, for as long as the training takes.

    The LLM's, even where it is frozen: a connector learns through it; and the vision encoder's where it is trained.

    Raises:
        Mismatch: a backbone without blocks, or blocks that may not run twice. Unavailable: torch.compile does not work here.
    """
    parts = {"llm": model.llm} | ({"vision": model.vision} if model.vision and not model.vision.frozen else {})
    blocks = [block for kind, part in parts.items() for block in _blocks(kind, part, settings)]
    try:
        if settings.checkpointing:
            for block in blocks:
                _forget(block)
        if settings.compile:
            for block in blocks:
                block.compile(dynamic=True)
            _try(parts)
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)
            block._compiled_call_impl = None


def _blocks(kind: str, part: Part, settings: Train) -> list[nn.Module]:
    wanted = [name for name in ("checkpointing", "compile") if getattr(settings, name)]
    if wanted and not len(part.blocks()):
        what = f"train.{wanted[0]} works on blocks, and the {kind} names none of its own"
        raise Mismatch(what, f"--set train.{wanted[0]}=false")
    blocks = list(part.blocks()) if wanted else []
    if settings.checkpointing and any(isinstance(m, NORMS) and m.training for block in blocks for m in block.modules()):
        what = (
            f"train.checkpointing runs each block twice, and batch norms in the {kind}'s would count each batch twice"
        )
        raise Mismatch(what, f"--set train.checkpointing=false, or --tune {kind}=frozen")
    return blocks


def _forget(block: nn.Module) -> None:
    """Have a block keep its inputs alone, and run again when its gradient is wanted (Chen et al. 2016, arXiv 1604.06174)."""
    forward = block.forward

    def again(*inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **options)
        return checkpoint(forward, *inputs, use_reentrant=False, **options)

    block.forward = again


def _try(parts: Mapping[str, Part]) -> None:
    """Compile for a small input, so that what does not work is known before the first step."""
    for kind, part in parts.items():
        try:
            with torch.no_grad():
                trial(part)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise Unavailable(
                f"torch.compile cannot compile the {kind}: {reason}", "--set train.compile=false"
            ) from error
