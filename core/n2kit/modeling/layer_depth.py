"""Where the weights of a backbone lie: in which block, before the first, or behind the last. Found out by trying."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from n2kit.contract.interfaces import LLM, Part

TRIED = 8  # tokens


@contextmanager
def _as_for_use(part: Part) -> Iterator[None]:
    """In eval mode and with a gradient for every weight; afterwards as before."""
    training, wanted = part.training, [p.requires_grad for p in part.parameters()]
    try:
        with torch.enable_grad():
            yield part.eval().requires_grad_(True)  # type: ignore[misc]
    finally:
        for parameter, grad in zip(part.parameters(), wanted, strict=True):
            parameter.requires_grad_(grad)
        part.train(training)


def trial(part: Any) -> list[Tensor]:
    """All that a backbone computes for one small input: states of an LLM; tokens and pooled vector of a vision encoder."""
    device = next(part.parameters()).device
    if isinstance(part, LLM):
        ids = torch.arange(TRIED, device=device)[None] + part.card.vocab // 2  # ids at the ends may be special
        known = {"mask": torch.ones_like(ids, dtype=torch.bool), "image": torch.zeros_like(ids, dtype=torch.bool)}
        return [part(part.embed(ids), **{name: known[name] for name in part.wants})]
    size = part.card.image_size
    out = part(torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device))
    return [t for t in (out.tokens, out.pooled) if t is not None]


def used(part: Part, modules: dict[str, nn.Module]) -> list[str]:
    """The names of those modules whose forward runs, both in training and in use.

    Not all do: torch's attention reads the weights of its `out_proj`, and Mamba's fused kernels those of theirs, in training only.
    """
    ran: set[str] = set()
    hooks = [m.register_forward_hook(lambda *_, name=name: ran.add(name)) for name, m in modules.items()]
    names = list(modules)
    try:
        with _as_for_use(part), torch.random.fork_rng(devices=[]), torch.no_grad():
            for training in (False, True):
                for module in part.modules():
                    module.training = training and not hasattr(module, "running_mean")  # that would drift
                ran.clear()
                trial(part)
                names = [name for name in names if name in ran]
    finally:
        for hook in hooks:
            hook.remove()
    return names


def behind_blocks(part: Part) -> list[nn.Parameter]:
    """Weights that work on what the last block gives: a final norm, a pooling head, an output head.

    They are those that still get a gradient when it is cut off behind each block (of some towers, several blocks are read).
    """
    # First of all hooks: those by which transformers keeps the states of its layers are to see the cut ones.
    hooks = [b.register_forward_hook(lambda module, inputs, out: _cut(out), prepend=True) for b in part.blocks()]
    try:
        with _as_for_use(part):
            outputs = [t.float().sum() for t in trial(part) if t.requires_grad]
            every = list(part.parameters())
            got = torch.autograd.grad(sum(outputs), every, allow_unused=True) if outputs else [None] * len(every)  # type: ignore[arg-type]
    finally:
        for hook in hooks:
            hook.remove()
    head = getattr(part, "lm_head", None)  # of a language model that was asked for it; no state shows it
    last = set() if head is None else {id(p) for p in head.parameters()}
    return [p for p, gradient in zip(every, got, strict=True) if gradient is not None or id(p) in last]


def depths(part: Part) -> dict[int, int]:
    """`id` of each weight → how deep it lies: 0 behind the last block, 1 in it, …, one more than there are blocks before the first.

    ELECTRA (arXiv 2003.10555, appendix A) and BEiT (arXiv 2106.08254) scale the learning rate by this depth.
    """
    blocks = list(part.blocks())
    found = {id(p): len(blocks) + 1 for p in part.parameters()}
    found |= {id(p): 0 for p in behind_blocks(part)}
    for number, block in enumerate(blocks):
        found |= {id(p): len(blocks) - number for p in block.parameters()}
    return found


def _cut(out: Any) -> Any:
    """A block's output, whatever it is made of, without its gradient."""
    if isinstance(out, Tensor):
        return out.detach()
    if isinstance(out, tuple | list):
        return type(out)(_cut(o) for o in out)
    return out
