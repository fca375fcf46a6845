"""Several processes that train together: their ranks, gathering of rows with their gradient, averaging of gradients.

Each process encodes its own part of a step's items and computes the loss of the whole step. Without a launcher every function
here is the identity.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from n2kit.errors import BadInput, N2kitError, counted
from n2kit.utils.launcher import check_launcher, is_launched

T = TypeVar("T")


def init_process_group(device: torch.device) -> torch.device:
    """Join the processes that a launcher (torchrun, accelerate) started, if one did, and return this process's device.

    Raises:
        BadInput: the environment says so by half.
    """
    check_launcher()
    if not is_launched():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_destroy)
    return device


def _destroy() -> None:
    """Leave the group before the interpreter ends, since a thread of the group that outlives it aborts the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def check_divisible(step: int, pairs: int) -> None:
    """Check that the pairs of a step can be divided evenly among the processes.

    Raises:
        BadInput: they cannot, or there are fewer than processes.
    """
    if left := step % world_size():
        way = f"--batch-size {step + world_size() - left}"
        raise BadInput(f"train.batch_size {step} cannot be divided among {world_size()} processes", way)
    if pairs < world_size():
        raise BadInput(
            f"{counted(pairs, 'pair')} cannot be divided among {world_size()} processes",
            "fewer processes, or more pairs",
        )


def is_main() -> bool:
    """Tell whether this is the process of rank 0, which writes and prints."""
    return rank() == 0


def main_process_only(work: Callable[[], T]) -> T:
    """Run `work` in the first process alone, and return its result in all of them.

    Raises:
        N2kitError: that of `work`, in the first process; the others exit with its code and print nothing.
    """
    if world_size() == 1:
        return work()
    outcome: list[Any] = [None, None]
    failed: N2kitError | None = None
    if is_main():
        try:
            outcome[0] = work()
        except N2kitError as error:
            failed, outcome[1] = error, error.exit_code
    dist.broadcast_object_list(outcome)
    if failed is not None:
        raise failed
    if outcome[1] is not None:
        raise SystemExit(outcome[1])
    result: T = outcome[0]
    return result


def gather_dict(values: dict[str, str]) -> dict[str, str]:
    """Merge the dictionaries of all processes."""
    return {key: value for one in all_gather_object(values) for key, value in one.items()}


def all_reduce_max(value: int, device: torch.device) -> int:
    """Return the largest of all processes' numbers."""
    largest = torch.tensor(value, device=device)
    if world_size() > 1:
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def all_gather_object(value: T) -> list[T]:
    """Gather every process's value, by rank."""
    each: list[Any] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(each, value)
    return each


def any_rank(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Return for each flag if it is true in any process."""
    if world_size() == 1:
        return list(flags)
    found = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return [flag > 0 for flag in found.tolist()]


def all_gather_rows(x: Tensor) -> list[Tensor]:
    """Gather x [n, …] of every process, by rank; n may differ. There is no gradient."""
    if world_size() == 1:
        return [x]
    sizes = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    lengths = [int(size) for size in sizes]
    padded = x.new_zeros(max(lengths), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return [part[:length] for part, length in zip(parts, lengths, strict=True)]


class _AllGather(torch.autograd.Function):
    """Gathering of rows; backward gives each process its own rows' gradient, times the number of processes.

    Every process computes the same loss, so its own rows' gradient is complete; the factor is what averaging takes away
    again, while parameters of the loss, whose gradient is the same everywhere, keep theirs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = all_gather_rows(x)
        start = sum(len(part) for part in parts[: dist.get_rank()])
        ctx.own = slice(start, start + len(x))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0][ctx.own] * world_size()


def all_gather_with_grad(x: Tensor) -> Tensor:
    """Concatenate x [n, D] of every process, with gradient; `average_gradients` has to follow the backward pass."""
    if world_size() == 1:
        return x
    rows: Tensor = _AllGather.apply(x)
    return rows


def left_rows_first(sizes: Sequence[int], extra: Sequence[int] = ()) -> Tensor:
    """Return the order that puts all left rows before all right rows, where process r gave sizes[r] / 2 of each, lefts first.

    The extra[r] rows that it gave behind them come last.
    """
    extra = extra or [0] * len(sizes)
    parts = torch.arange(sum(sizes) + sum(extra)).split([a + b for a, b in zip(sizes, extra, strict=True)])
    halves = [part[:size].chunk(2) for part, size in zip(parts, sizes, strict=True)]
    rest = [part[size:] for part, size in zip(parts, sizes, strict=True)]
    return torch.cat([left for left, _ in halves] + [right for _, right in halves] + rest)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average every gradient over the processes; a parameter that got a gradient in none of them gets none here.

    The backward pass has already averaged those of sharded parameters (`n2kit.train.shards`).
    """
    if world_size() == 1:
        return
    trained = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
    reached = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32, device=trained[0].device)
    dist.all_reduce(reached, dist.ReduceOp.MAX)
    pending = []
    for parameter, has_gradient in zip(trained, reached.tolist(), strict=True):
        if has_gradient:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            pending.append((parameter.grad, dist.all_reduce(parameter.grad, async_op=True)))
    for gradient, work in pending:
        if work is not None:
            work.wait()
        gradient.div_(world_size())
