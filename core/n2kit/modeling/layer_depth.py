"""The depth of a backbone's weights: in a block, before the first, or after the last. Found by a forward pass on a small input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from n2kit.contract.interfaces import LLM, Part
from n2kit.utils.contexts import eval_mode

PROBE_TOKENS = 8


@contextmanager
def _probing(part: Part) -> Iterator[None]:
    """Put a part in eval mode, with a gradient for every weight; afterwards it is as before."""
    requires_grad = [p.requires_grad for p in part.parameters()]
    try:
        with torch.enable_grad(), eval_mode(part):
            part.requires_grad_(True)
            yield
    finally:
        for parameter, grad in zip(part.parameters(), requires_grad, strict=True):
            parameter.requires_grad_(grad)


def probe_outputs(part: Any) -> list[Tensor]:
    """Run a backbone on one small input: the hidden states of an LLM; tokens and pooled vector of a vision encoder."""
    device = next(part.parameters()).device
    if isinstance(part, LLM):
        ids = torch.arange(PROBE_TOKENS, device=device)[None] + part.card.vocab // 2  # ids at the ends may be special
        return [part(part.embed(ids), **part.extras(torch.ones_like(ids, dtype=torch.bool)))]
    size = part.card.image_size
    out = part(torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device))
    return [t for t in (out.tokens, out.pooled) if t is not None]


def called_modules(part: Part, modules: dict[str, nn.Module]) -> list[str]:
    """List the names of those modules whose forward runs, both in training and in eval mode.

    Not all do: torch's attention reads the weights of its `out_proj`, and Mamba's fused kernels those of theirs, in training only.
    """
    ran: set[str] = set()
    hooks = [m.register_forward_hook(lambda *_, name=name: ran.add(name)) for name, m in modules.items()]
    names = list(modules)
    try:
        with _probing(part), torch.random.fork_rng(devices=[]), torch.no_grad():
            for training in (False, True):
                for module in part.modules():
                    module.training = training and not hasattr(module, "running_mean")  # that would drift
                ran.clear()
                probe_outputs(part)
                names = [name for name in names if name in ran]
    finally:
        for hook in hooks:
            hook.remove()
    return names


def parameters_after_blocks(part: Part) -> list[nn.Parameter]:
    """List the weights that work on the output of the blocks: a final norm, a pooling head, an output head.

    They are those that get a gradient even when it is cut off after each block (some vision encoders use several blocks' outputs).
    """
    # Before all other hooks: those by which transformers records the states of its layers must see the detached ones.
    hooks = [b.register_forward_hook(lambda module, inputs, out: _detached(out), prepend=True) for b in part.blocks()]
    try:
        with _probing(part):
            outputs = [t.float().sum() for t in probe_outputs(part) if t.requires_grad]
            every = list(part.parameters())
            got = torch.autograd.grad(sum(outputs), every, allow_unused=True) if outputs else [None] * len(every)  # type: ignore[arg-type]
    finally:
        for hook in hooks:
            hook.remove()
    head = getattr(part, "lm_head", None)  # of a language model that was created with it; no hidden state depends on it
    last = set() if head is None else {id(p) for p in head.parameters()}
    return [p for p, gradient in zip(every, got, strict=True) if gradient is not None or id(p) in last]


def layer_depths(part: Part) -> dict[int, int]:
    """Compute the depth of each weight, by its `id`: 0 after the last block, 1 in it, …, number of blocks + 1 before the first.

    ELECTRA (arXiv 2003.10555, appendix A) and BEiT (arXiv 2106.08254) scale the learning rate by this depth.
    """
    blocks = list(part.blocks())
    found = {id(p): len(blocks) + 1 for p in part.parameters()}
    found |= {id(p): 0 for p in parameters_after_blocks(part)}
    for number, block in enumerate(blocks):
        found |= {id(p): len(blocks) - number for p in block.parameters()}
    return found


def _detached(out: Any) -> Any:
    """Detach a block's output, a tensor or a nested tuple or list of tensors."""
    if isinstance(out, Tensor):
        return out.detach()
    if isinstance(out, tuple | list):
        return type(out)(_detached(o) for o in out)
    return out
