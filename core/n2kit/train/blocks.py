"""Activation checkpointing and compiling of the backbones' blocks while a training runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from n2kit.errors import Mismatch, Unavailable
from n2kit.modeling.layer_depth import probe_outputs
from n2kit.train.step import NORMS

if TYPE_CHECKING:
    from n2kit.contract.interfaces import Part
    from n2kit.modeling.model import Model
    from n2kit.recipe.settings import Train


@contextmanager
def prepared_blocks(model: Model, settings: Train) -> Iterator[None]:
    """Checkpoint the backbones' blocks, or compile them, as the settings say, for as long as the context lasts.

    These are the LLM's blocks, even where it is frozen, since a connector learns through it; and the vision encoder's where it
    is trained.

    Raises:
        Mismatch: a backbone without blocks, or blocks that may not run twice. Unavailable: torch.compile does not work here.
    """
    parts = {"llm": model.llm} | ({"vision": model.vision} if model.vision and not model.vision.frozen else {})
    blocks = [block for kind, part in parts.items() for block in _blocks(kind, part, settings)]
    try:
        if settings.checkpointing:
            for block in blocks:
                _checkpoint(block)
        if settings.compile:
            for block in blocks:
                block.compile(dynamic=True)
            _try_compiled(parts)
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)
            block._compiled_call_impl = None


def _blocks(kind: str, part: Part, settings: Train) -> list[nn.Module]:
    """List the blocks of a part that the settings have something done to.

    Raises:
        Mismatch: there are none, or some may not run twice.
    """
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


def _checkpoint(block: nn.Module) -> None:
    """Let a block keep only its inputs, and run again for its gradient (Chen et al. 2016, arXiv 1604.06174)."""
    forward = block.forward

    def again(*inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **options)
        return checkpoint(forward, *inputs, use_reentrant=False, **options)

    block.forward = again


def _try_compiled(parts: Mapping[str, Part]) -> None:
    """Compile for a small input, so that a failure shows before the first step."""
    for kind, part in parts.items():
        try:
            with torch.no_grad():
                probe_outputs(part)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise Unavailable(
                f"torch.compile cannot compile the {kind}: {reason}", "--set train.compile=false"
            ) from error
