"""Compute the LLM's hidden states at the positions that are needed, with as little computation as gives the same states.

A prefix that all rows have in common is computed once, and each row attends to it (`LLM.prefill`). Rows of like length are
computed together, on a CPU a few at a time. States and gradients are those of one call with all rows in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from n2kit.contract.interfaces import LLM
from n2kit.modeling.partial_forward import UpperLayers, is_stochastic
from n2kit.modeling.prompts import IMG

CPU_TOKENS_PER_CALL = 1024  # more gain nothing there, and lie outside the processor's cache
# Fewer tokens saved than this do not make up for another pass: on a GPU, a pass takes as long for one row as for many.
MIN_TOKENS_SAVED = {"cpu": 48, "cuda": 4096}


@dataclass(frozen=True)
class ExecutionOptions:
    """Savings that are allowed in a forward pass; none of them changes a state.

    share_prefix: compute a common prefix once. max_tokens: of one call on a CPU, padding included; None: no limit.
    """

    share_prefix: bool = True
    max_tokens: int | None = CPU_TOKENS_PER_CALL


NO_OPTIMIZATION = ExecutionOptions(share_prefix=False, max_tokens=None)


def hidden_states_with_cache(
    cached_states: Mapping[int, Tensor], cached_layer: int, llm: LLM, x: Tensor, ids: Tensor, last_pos: Tensor,
    rows: Tensor, positions: Tensor, options: ExecutionOptions,
) -> Tensor:  # fmt: skip
    """Gather the hidden states at `positions` of `rows`, [n, Dh], and compute only those that no cache holds.

    Args:
        cached_states: row → its hidden state [Dh], the same at every requested position. With `cached_layer` > 0: row → the output
            of the LLM's first `cached_layer` blocks for its tokens, [T, D], from which the blocks above go on.

    The other arguments are those of `gather_hidden_states`.
    """
    if not cached_states:
        return gather_hidden_states(llm, x, ids, last_pos, rows, positions, options)
    in_cache = torch.tensor([n in cached_states for n in range(len(ids))], device=ids.device)
    pieces, order = [], []
    for own in (in_cache, ~in_cache):
        requested = own[rows].nonzero().flatten()
        if not len(requested):
            continue
        order.append(requested)
        number = (own.cumsum(0) - 1)[rows[requested]]
        if own is not in_cache:
            piece = gather_hidden_states(llm, x[own], ids[own], last_pos[own], number, positions[requested], options)
        elif cached_layer:
            hidden = pad_sequence([cached_states[n].to(x.device) for n in sorted(cached_states)], batch_first=True)
            upper = UpperLayers(llm, cached_layer)
            piece = gather_hidden_states(upper, hidden, ids[own], last_pos[own], number, positions[requested], options)
        else:
            piece = torch.stack([cached_states[n] for n in rows[requested].tolist()]).to(x.device)
        pieces.append(piece)
    return torch.cat([piece.to(pieces[-1].dtype) for piece in pieces])[torch.cat(order).argsort()]


def gather_hidden_states(
    llm: LLM | UpperLayers, x: Tensor, ids: Tensor, last_pos: Tensor, rows: Tensor, positions: Tensor,
    options: ExecutionOptions,
) -> Tensor:  # fmt: skip
    """Gather the LLM's hidden states at `positions` [n] of `rows` [n]: [n, Dh].

    Args:
        x: embeddings [B, T, De], or hidden states [B, T, D] where `llm` is its upper layers; each row ends at `last_pos` [B].
        ids: token ids [B, T] that x was made of; special tokens of n2kit have negative ids.
    """
    shared = 0
    if options.share_prefix and _worth_it(ids, positions) and _supports_sharing(llm):
        shared = common_prefix_length(ids, positions)
    past: dict[str, Any] = {}
    if shared and isinstance(llm, LLM):
        past["past"] = llm.prefill(_prefix(llm, x, ids, shared))
    sizes, order = _length_groups(last_pos + 1 - shared, options.max_tokens if x.device.type == "cpu" else None)
    # One reordering and one split of all rows: their gradients are put together once, and not once a group.
    tails = (x if len(sizes) == 1 else x[order])[:, shared:].split(sizes)
    number = order.argsort()[rows]  # where a requested row stands in this order
    real = torch.arange(ids.shape[1], device=ids.device) <= last_pos[:, None]
    extras = llm.extras(real, ids == IMG)
    gathered, requested, begin = [], [], 0
    for group, tail in zip(order.split(sizes), tails, strict=True):
        length = int(last_pos[group].max()) + 1
        own = {name: extra[group, :length] for name, extra in extras.items()}
        hidden_states = llm(tail[:, : length - shared], **own, **past)
        requested.append(((number >= begin) & (number < begin + len(group))).nonzero().flatten())
        gathered.append(hidden_states[number[requested[-1]] - begin, positions[requested[-1]] - shared])
        begin += len(group)
    return torch.cat(gathered)[torch.cat(requested).argsort()]


def _length_groups(lengths: Tensor, max_tokens: int | None) -> tuple[list[int], Tensor]:
    """Group rows of `lengths` [B] that are computed in one call: the groups' sizes, and the rows' order [B].

    Rows are on a CPU where there are `max_tokens`.
    """
    order = lengths.argsort(stable=True)
    ascending = lengths[order].tolist()
    sizes = [len(ascending)] if max_tokens is None else cheapest_groups(ascending, max_tokens, MIN_TOKENS_SAVED["cpu"])
    return sizes, order if len(sizes) > 1 else torch.arange(len(lengths), device=lengths.device)


def common_prefix_length(ids: Tensor, positions: Tensor) -> int:
    """Count the first tokens that all rows of ids [B, T] have in common, before the first of the requested `positions`.

    A visual token is never common: rows show different images.
    """
    same = (ids == ids[:1]).all(0) & (ids[0] != IMG)
    return min(int(same.long().cumprod(0).sum()), int(positions.min()))


def _supports_sharing(llm: LLM | UpperLayers) -> bool:
    """Return whether rows may share a prefix: with dropout, each row draws its own numbers there."""
    return isinstance(llm, LLM) and llm.supports_prefix_cache and not any(map(is_stochastic, llm.modules()))


def _worth_it(ids: Tensor, positions: Tensor) -> bool:
    saved = common_prefix_length(ids, positions) * (len(ids) - 1)
    return saved >= MIN_TOKENS_SAVED.get(ids.device.type, MIN_TOKENS_SAVED["cuda"])


def _prefix(llm: LLM, x: Tensor, ids: Tensor, shared: int) -> Tensor:
    """Cut the prefix [1, P, De] out of x, detached where nothing that made it is trained."""
    prefix = x[:1, :shared]
    has_special = bool((ids[0, :shared] < 0).any())
    trained = has_special or llm.embed(ids[:1, :1].clamp_min(0)).requires_grad
    return prefix if trained else prefix.detach()


def cheapest_groups(lengths: list[int], max_tokens: int, per_pass: int) -> list[int]:
    """Split rows of ascending lengths into groups of at most `max_tokens` each, padding included: the groups' sizes.

    The tokens of all groups, padding included, and `per_pass` for each group together are as few as they can be.
    """
    least, starts = (
        [0],
        list[int](),
    )  # for the first n rows: the tokens of the best split, and where its last group starts
    for end, longest in enumerate(lengths, 1):
        first = max(end - max(max_tokens // max(longest, 1), 1), 0)
        cost, start = min((least[start] + (end - start) * longest, start) for start in range(first, end))
        least.append(cost + per_pass)
        starts.append(start)
    sizes, end = list[int](), len(lengths)
    while end:
        sizes.append(end - starts[end - 1])
        end = starts[end - 1]
    return sizes[::-1]
