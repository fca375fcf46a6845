"""A language model in two: its lower blocks, none of which is trained, and the layers above them.

This works with any LLM whose blocks take and return hidden states, one after the other; a few tokens show whether it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from n2kit.contract.interfaces import LLM
from n2kit.utils.contexts import eval_mode

PROBE_TOKENS = 8
TOLERANCE = {torch.float32: 1e-5}  # of the largest state; 1e-2 in narrower types


class _Reached(Exception):
    """Ends a forward pass at a block, and carries the block's output [B, T, D]."""

    def __init__(self, hidden: Any) -> None:
        self.hidden = hidden


class UpperLayers:
    """The layers above the first `num_layers` blocks, called as an LLM is, with hidden states in place of embeddings."""

    def __init__(self, llm: LLM, num_layers: int) -> None:
        self.llm, self.num_layers = llm, num_layers

    def __call__(self, hidden: Tensor) -> Tensor:
        """Compute the LLM's hidden states [B, T, Dh] from the output [B, T, D] of its lower blocks."""
        with _replaced(self.llm.blocks()[: self.num_layers], hidden):
            width = self.llm.card.input_width
            hidden_states: Tensor = self.llm(
                hidden.new_zeros(*hidden.shape[:2], width)
            )  # this input goes into no block
        return hidden_states

    def extras(self, mask: Tensor, image: Tensor | None = None) -> dict[str, Tensor]:
        """Return no extra inputs: an LLM that takes some is not cut in two."""
        return {}


def forward_until(llm: LLM, x: Tensor, num_layers: int) -> Tensor:
    """Run the first `num_layers` blocks on x [B, T, De]: their hidden states [B, T, D]. The blocks above do not run."""

    def stop(_: nn.Module, __: Any, out: Any) -> None:
        raise _Reached(out)

    block = llm.blocks()[num_layers - 1]
    compiled, block._compiled_call_impl = block._compiled_call_impl, None  # a compiled call runs no hook
    hook = block.register_forward_hook(stop)
    try:
        llm(x)
    except _Reached as reached:
        if isinstance(reached.hidden, Tensor):
            return reached.hidden
    finally:
        hook.remove()
        block._compiled_call_impl = compiled
    raise TypeError("a block gives no tensor, or does not run")


def num_frozen_layers(llm: LLM) -> int:
    """Count the first blocks whose output is constant: nothing in or before them is trained or random.

    0 where there are none, or where the LLM cannot be cut behind them.
    """
    count = 0
    for block in llm.blocks():
        if any(p.requires_grad for p in block.parameters()):
            break
        count += 1
    above = {id(m) for block in llm.blocks()[count:] for m in block.modules()}
    random = any(is_stochastic(m) for m in llm.modules() if id(m) not in above)
    table = llm.embed(torch.zeros(1, 1, dtype=torch.long, device=next(llm.parameters()).device)).requires_grad
    return count if count and not (random or table or llm.extra_inputs) and _can_be_cut(llm, count) else 0


def is_stochastic(module: nn.Module) -> bool:
    """Return whether a module itself draws random numbers in its current mode.

    It is dropout, or attention with a dropout rate as an attribute, as transformers has it.
    """
    if not module.training:
        return False
    if isinstance(module, nn.Dropout):
        return module.p > 0
    return any(isinstance(rate, float) and rate > 0 for name, rate in vars(module).items() if "dropout" in name)


@torch.no_grad()
def _can_be_cut(llm: LLM, num_layers: int) -> bool:
    """Return whether the lower blocks and the layers above give the hidden states of the whole."""
    device = next(llm.parameters()).device
    ids = (torch.arange(PROBE_TOKENS, device=device)[None] + llm.card.vocab // 2).remainder(llm.card.vocab)
    try:
        with torch.autocast(device.type, enabled=False), eval_mode(llm):
            x = llm.embed(ids)
            want, got = llm(x), UpperLayers(llm, num_layers)(forward_until(llm, x, num_layers))
    except (TypeError, RuntimeError, ValueError, AttributeError):
        return False
    return bool((want - got).abs().max() <= TOLERANCE.get(want.dtype, 1e-2) * want.abs().max())


@contextmanager
def _replaced(blocks: Any, hidden: Tensor) -> Iterator[None]:
    """Make each of the blocks return `hidden` without computing anything, inside the `with` block."""
    names = ("forward", "_compiled_call_impl")
    own = [{name: vars(block)[name] for name in names if name in vars(block)} for block in blocks]
    for block in blocks:
        block._compiled_call_impl = None
        block.forward = lambda *_, **__: hidden
    try:
        yield
    finally:
        for block, had in zip(blocks, own, strict=True):
            for name in names:
                vars(block).pop(name, None)
            vars(block).update(had)
