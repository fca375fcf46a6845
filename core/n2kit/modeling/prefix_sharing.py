"""Rows of embeddings → the LLM's states at the positions that are asked for, with as little reading as gives the same states.

What all rows begin with is read once and lent to each row (`LLM.start`); rows of like length are read together, on a CPU a few
at a time. States and gradients are those of one call with all rows in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from n2kit.contract.interfaces import LLM
from n2kit.modeling.partial_forward import Upper, draws
from n2kit.modeling.prompts import IMG

TOKENS_TOGETHER = 1024  # on a CPU; more gain nothing there, and lie outside the processor's cache
# Fewer tokens saved than this do not make up for another pass: on a GPU, a pass takes as long for one row as for many.
WORTH = {"cpu": 48, "cuda": 4096}


@dataclass(frozen=True)
class Ways:
    """What is done to read less. `start`: a common start is read once; `tokens`: read together on a CPU, None: all."""

    start: bool = True
    tokens: int | None = TOKENS_TOGETHER


ALL_AT_ONCE = Ways(start=False, tokens=None)


def states_around(
    known: Mapping[int, Tensor], depth: int, llm: LLM, x: Tensor, ids: Tensor, last: Tensor,
    rows: Tensor, places: Tensor, ways: Ways,
) -> Tensor:  # fmt: skip
    """What `states_at` gives, where the rows in `known` are not read, or only on from where they are known.

    Args:
        known: number of a row → its state [Dh] wherever it is asked for; or, with a `depth`, what so many blocks give, [T, D].
    """
    if not known:
        return states_at(llm, x, ids, last, rows, places, ways)
    there = torch.tensor([n in known for n in range(len(ids))], device=ids.device)
    pieces, order = [], []
    for own in (there, ~there):
        asked = own[rows].nonzero().flatten()
        if not len(asked):
            continue
        order.append(asked)
        number = (own.cumsum(0) - 1)[rows[asked]]
        if own is not there:
            pieces.append(states_at(llm, x[own], ids[own], last[own], number, places[asked], ways))
        elif depth:
            hidden = pad_sequence([known[n].to(x.device) for n in sorted(known)], batch_first=True)
            upper = Upper(llm, depth)
            pieces.append(states_at(upper, hidden, ids[own], last[own], number, places[asked], ways))
        else:
            pieces.append(torch.stack([known[n] for n in rows[asked].tolist()]).to(x.device))
    return torch.cat([piece.to(pieces[-1].dtype) for piece in pieces])[torch.cat(order).argsort()]


def states_at(
    llm: LLM | Upper, x: Tensor, ids: Tensor, last: Tensor, rows: Tensor, places: Tensor, ways: Ways
) -> Tensor:
    """The states at `places` [n] of the rows numbered `rows` [n], of x [B, T, De] that end at `last` [B]: [n, Dh].

    Args:
        ids: [B, T], of which x was made; negative ones are our own words.
    """
    shared = common_start(ids, places) if ways.start and _pays(ids, places) and _may_share(llm) else 0
    after: dict[str, Any] = {}
    if shared and isinstance(llm, LLM):
        after["after"] = llm.start(_start_of(llm, x, ids, shared))
    sizes, order = _groups(last + 1 - shared, ways.tokens if x.device.type == "cpu" else None)
    # One reordering and one split of all rows: their gradients are put together once, and not once a group.
    behind = (x if len(sizes) == 1 else x[order])[:, shared:].split(sizes)
    number = order.argsort()[rows]  # where a row that is asked for stands in this order
    found, asked, begin = [], [], 0
    for group, some in zip(order.split(sizes), behind, strict=True):
        long = int(last[group].max()) + 1
        facts = {name: fact[group, :long] for name, fact in _facts(llm, ids, last).items()}
        states = llm(some[:, : long - shared], **facts, **after)
        asked.append(((number >= begin) & (number < begin + len(group))).nonzero().flatten())
        found.append(states[number[asked[-1]] - begin, places[asked[-1]] - shared])
        begin += len(group)
    return torch.cat(found)[torch.cat(asked).argsort()]


def _groups(lengths: Tensor, tokens: int | None) -> tuple[list[int], Tensor]:
    """Rows of `lengths` [B] to read together: how many each time, and in which order [B]."""
    order = lengths.argsort(stable=True)
    sizes = group_sizes(lengths[order].tolist(), tokens)
    return sizes, order if len(sizes) > 1 else torch.arange(len(lengths), device=lengths.device)


def common_start(ids: Tensor, places: Tensor) -> int:
    """How many first tokens are the same in all rows of ids [B, T], pictures being different, and none of them asked for."""
    same = (ids == ids[:1]).all(0) & (ids[0] != IMG)
    return min(int(same.long().cumprod(0).sum()), int(places.min()))


def _may_share(llm: LLM | Upper) -> bool:
    """With dropout each row has draws of its own."""
    return isinstance(llm, LLM) and llm.shares_start and not any(map(draws, llm.modules()))


def _pays(ids: Tensor, places: Tensor) -> bool:
    return common_start(ids, places) * (len(ids) - 1) >= WORTH.get(ids.device.type, WORTH["cuda"])


def _start_of(llm: LLM, x: Tensor, ids: Tensor, shared: int) -> Tensor:
    """x of the start [1, P, De]; no gradient is sought in it where nothing that made it is trained."""
    start = x[:1, :shared]
    own_words = bool((ids[0, :shared] < 0).any())
    return start if own_words or llm.embed(ids[:1, :1].clamp_min(0)).requires_grad else start.detach()


def _facts(llm: LLM | Upper, ids: Tensor, last: Tensor) -> dict[str, Tensor]:
    """What the LLM `wants` to know of each position [B, T]."""
    known = {"mask": torch.arange(ids.shape[1], device=ids.device) <= last[:, None], "image": ids == IMG}
    return {name: known[name] for name in llm.wants}


def group_sizes(lengths: list[int], tokens: int | None) -> list[int]:
    """How many rows, of ascending lengths, to read together so that each group has at most `tokens`, padding included."""
    if tokens is None:
        return [len(lengths)]
    sizes = [0]
    for length in lengths:
        if sizes[-1] and (sizes[-1] + 1) * length > tokens:
            sizes.append(0)
        sizes[-1] += 1
    return sizes
