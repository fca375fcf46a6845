"""Sharding of the LLM's blocks over all processes (FSDP2, `torch.distributed.fsdp.fully_shard`).

Each process keeps a shard of every block's weights, gradients and moments; a block is complete only while it runs, so every
process must run it equally often: all rows are read at once, and every process has as many chunks. Everything else (embedding
table, vision encoder, connector, fusion, head) is replicated in each process, since a step without images does not call it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from n2kit.errors import BadInput, Mismatch
from n2kit.modeling.model import Model
from n2kit.modeling.prefix_sharing import NO_OPTIMIZATION
from n2kit.train import distributed

LAUNCHER, SETTING = "ACCELERATE_USE_FSDP", "N2KIT_TRAIN__FSDP"


def requested_by_launcher() -> bool:
    """Tell whether `accelerate launch --use_fsdp` started this process.

    Its variable is removed, or accelerate would shard too; n2kit's own takes its place, and is part of the command that is
    printed for resuming.
    """
    requested = os.environ.pop(LAUNCHER, "").lower() in ("1", "true", "yes")
    if requested:
        os.environ[SETTING] = "true"
    return requested


def shard(model: Model, device: torch.device, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Shard the LLM's blocks over the processes, with the shards on `device`.

    Returns:
        an optimiser's groups with sharded parameters in place of the given ones; no group mixes sharded and replicated ones.

    Raises:
        BadInput: there is one process. Mismatch: the LLM names no blocks of its own.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if distributed.world_size() == 1:
        way = "torchrun --nproc-per-node 2 -m n2kit_cli.main train …, or --set train.fsdp=false"
        raise BadInput("train.fsdp spreads the LLM over several processes, and there is one", way)
    blocks = list(model.llm.blocks())
    if not blocks:
        raise Mismatch(
            "train.fsdp spreads the LLM's blocks, and this one names none of its own", "--set train.fsdp=false"
        )
    names = {id(p): name for name, p in model.named_parameters()}
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    inside = {p for block in blocks for p in block.parameters()}
    # The root shards nothing itself; it lets the blocks prefetch each other's weights.
    fully_shard(model.llm, mesh=mesh, ignored_params=set(model.llm.parameters()) - inside)
    model.execution_options = NO_OPTIMIZATION
    now = dict(model.named_parameters())
    found = []
    for group in groups:
        parameters = [now[names[id(p)]] for p in group["params"]]
        for shared in (True, False):
            if some := [p for p in parameters if isinstance(p, DTensor) == shared]:
                found.append(group | {"params": some})
    return found


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor of a sharded one; every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the full tensors, in the first process, which alone keeps them; every process must call it."""
    found = {}
    for name, tensor in state.items():
        full = full_tensor(tensor.detach())
        if distributed.is_main():
            found[name] = full.cpu() if isinstance(tensor, DTensor) else full
    return found


def reshard(target: Tensor, tensor: Tensor) -> Tensor:
    """Return this process's shard of a full tensor if `target` is sharded and has its shape, else the tensor."""
    if not isinstance(target, DTensor) or target.shape != tensor.shape:
        return tensor
    return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
