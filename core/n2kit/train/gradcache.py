"""A step whose memory does not grow with its items (GradCache, Gao et al. 2021, arXiv 2101.06983).

All items are encoded a few at a time without a graph; the loss of all their vectors gives each vector's gradient; then each few
are encoded again, with a graph, and their gradient is passed on. Loss and gradients are those of the plain step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from n2kit.modeling.batch import Batch

Encode = Callable[[Batch], dict[str, Tensor]]


def encode_in_chunks(encode: Encode, batch: Batch, size: int, count: int = 0) -> dict[str, Tensor]:
    """Encode a batch of B items, name → [B, D], with at most `size` items at a time in memory.

    `backward()` through the result adds the gradients to the parameters' `.grad`; `torch.autograd.grad` does not see them.
    Items of similar length share a chunk. Where other processes need `encode` to run `count` times, it does: the first chunk's
    items are encoded again, to no effect.
    """
    groups = [rows.sort().values for rows in batch.last_pos.argsort(stable=True).split(size)]
    chunks = [batch.take(rows) for rows in groups]
    run = _Chunks(encode, chunks + [chunks[0]] * (count - len(chunks)), batch.ids.device)
    anchor = torch.zeros((), requires_grad=True)  # what makes autograd call back; the parameters are hidden from it
    views = _Deferred.apply(anchor, run)
    back = torch.cat(groups).argsort()
    return {name: view[back] for name, view in zip(run.names, views, strict=True)}


class _Chunks:
    """The chunks of a batch and the seed that each is encoded with: dropout draws the same numbers both times."""

    def __init__(self, encode: Encode, chunks: list[Batch], device: torch.device) -> None:
        self.encode, self.chunks, self.device = encode, chunks, device
        self.seeds = torch.randint(2**62, (len(chunks),)).tolist()
        self.names: list[str] = []

    def forward(self) -> tuple[Tensor, ...]:
        outs = [self._encode(chunk, seed) for chunk, seed in zip(self.chunks, self.seeds, strict=True)]
        self.names = list(outs[0])
        return tuple(torch.cat([out[name] for out in outs]) for name in self.names)

    def backward(self, grads: tuple[Tensor | None, ...]) -> None:
        wanted = [(name, grad) for name, grad in zip(self.names, grads, strict=True) if grad is not None]
        start = 0
        for chunk, seed in zip(self.chunks, self.seeds, strict=True):
            rows = slice(start, start := start + len(chunk.ids))
            with torch.enable_grad():
                out = self._encode(chunk, seed)
            reached = [(out[name], grad[rows]) for name, grad in wanted if out[name].requires_grad]
            if reached:
                torch.autograd.backward([view for view, _ in reached], [grad for _, grad in reached])

    def _encode(self, chunk: Batch, seed: int) -> dict[str, Tensor]:
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            return self.encode(chunk)


class _Deferred(torch.autograd.Function):
    """Vectors that are computed without a graph, and again with one in backward, when their gradient is known."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, run: _Chunks) -> tuple[Tensor, ...]:
        ctx.run = run
        ctx.set_materialize_grads(False)
        return run.forward()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[None, None]:
        ctx.run.backward(grads)
        return None, None
