"""A language model in two: its lower blocks, none of which is trained, and what lies above them.

Works on any part whose blocks take and give hidden states, one after the other; a few tokens show whether it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from n2kit.contract.interfaces import LLM
from n2kit.utils.contexts import eval_mode

TRIED = 8  # tokens
OFF = {torch.float32: 1e-5}  # of the largest state; 1e-2 in narrower types


class _Reached(Exception):
    """The hidden states [B, T, D] between the two."""

    def __init__(self, hidden: Any) -> None:
        self.hidden = hidden


class Upper:
    """What lies above the first `depth` blocks, called as an LLM is, with hidden states in place of embeddings."""

    shares_start = False
    wants: frozenset[str] = frozenset()

    def __init__(self, llm: LLM, depth: int) -> None:
        self.llm, self.depth = llm, depth

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden [B, T, D] → states [B, T, Dh]."""
        with _replaced(self.llm.blocks()[: self.depth], hidden):
            width = self.llm.card.input_width
            states: Tensor = self.llm(hidden.new_zeros(*hidden.shape[:2], width))  # what comes in goes into no block
        return states


def below(llm: LLM, x: Tensor, depth: int) -> Tensor:
    """x [B, T, De] → the hidden states [B, T, D] that the first `depth` blocks give; those above do not run."""

    def stop(_: nn.Module, __: Any, out: Any) -> None:
        raise _Reached(out)

    block = llm.blocks()[depth - 1]
    compiled, block._compiled_call_impl = block._compiled_call_impl, None  # which runs no hook of ours
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


def frozen_depth(llm: LLM) -> int:
    """How many of the first blocks, and all before them, have nothing that is trained or random; 0 where it cannot be cut there."""
    depth = 0
    for block in llm.blocks():
        if any(p.requires_grad for p in block.parameters()):
            break
        depth += 1
    inside = {id(p) for block in llm.blocks()[depth:] for p in block.parameters()}
    inside |= {id(m) for block in llm.blocks()[depth:] for m in block.modules()}
    random = any(draws(m) for m in llm.modules() if id(m) not in inside)
    table = llm.embed(torch.zeros(1, 1, dtype=torch.long, device=next(llm.parameters()).device)).requires_grad
    return depth if depth and not (random or table or llm.wants) and _cuts(llm, depth) else 0


def draws(module: nn.Module) -> bool:
    """Whether a module by itself draws numbers as it is now: dropout, or attention that is told its rate (transformers' way)."""
    if not module.training:
        return False
    if isinstance(module, nn.Dropout):
        return module.p > 0
    return any(isinstance(rate, float) and rate > 0 for name, rate in vars(module).items() if "dropout" in name)


@torch.no_grad()
def _cuts(llm: LLM, depth: int) -> bool:
    """Whether the two together give the states of the whole."""
    device = next(llm.parameters()).device
    ids = (torch.arange(TRIED, device=device)[None] + llm.card.vocab // 2).remainder(llm.card.vocab)
    try:
        with torch.autocast(device.type, enabled=False), eval_mode(llm):
            x = llm.embed(ids)
            want, got = llm(x), Upper(llm, depth)(below(llm, x, depth))
    except (TypeError, RuntimeError, ValueError, AttributeError):
        return False
    return bool((want - got).abs().max() <= OFF.get(want.dtype, 1e-2) * want.abs().max())


@contextmanager
def _replaced(blocks: Any, hidden: Tensor) -> Iterator[None]:
    """Each of the blocks gives `hidden`, and computes nothing."""
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
