"""What an LLM's frozen blocks give, computed once a row of tokens: kept in memory, and on disk for the next run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from n2kit.inputs.tensor_store import TensorStore
from n2kit.modeling.lora import adapter_of
from n2kit.modeling.partial_forward import below, frozen_depth
from n2kit.modeling.prefix_sharing import Ways, states_at
from n2kit.modeling.prompts import PAD
from n2kit.modeling.prompts import Sequence as TokenRow
from n2kit.utils.contexts import eval_mode

if TYPE_CHECKING:
    from n2kit.contract.interfaces import LLM

ROWS = 64  # read at a time, at most: a batch of new rows shall not decide how much memory a training needs


def state_cache(llm: LLM, gigabytes: float, dtype: torch.dtype, *, memory: bool = True) -> StateCache | None:
    """Memory in front of the user's cache folder, `gigabytes` of each; None where there is nothing to keep.

    Args:
        dtype: what the states are computed in.
        memory: false for a single pass over the items, in which none comes back; then only whole LLMs' states are kept.
    """
    if not gigabytes or llm.settings_id is None:
        return None
    depth = 0 if llm.frozen or not memory else frozen_depth(llm)
    if not llm.frozen and not depth:
        return None
    most = int(gigabytes * 1e9)
    return StateCache(llm, most if memory else 0, dtype, StateStore(llm, most, str(dtype), depth), depth)


class StateCache:
    """Row of tokens → the frozen LLM's state [Dh] at its end, up to `max_bytes`.

    For rows with nothing in them that is trained: no visual tokens and no word of ours.

    Args:
        depth: of an LLM that is trained in part, how many of its first blocks are not: what they give, [T, D], is kept.
    """

    def __init__(
        self, llm: LLM, max_bytes: int, dtype: torch.dtype, store: StateStore | None = None, depth: int = 0
    ) -> None:
        if not llm.frozen and not depth:
            raise ValueError("only what a frozen LLM or frozen blocks give can be kept")
        self.llm, self.max_bytes, self.dtype, self.store, self.depth = llm, max_bytes, dtype, store, depth
        self.kept: dict[str, Tensor] = {}
        self.bytes = 0

    def rows(self, sequences: Sequence[TokenRow]) -> dict[int, Tensor]:
        """Number of a row → its state, for all rows whose state can be kept; what is not kept yet is computed."""
        keys = {n: _key(s) for n, s in enumerate(sequences) if constant(s)}
        found = {key: self._find(key) for key in dict.fromkeys(keys.values())}
        missing = {keys[n]: sequences[n] for n in keys if found[keys[n]] is None}
        states = {key: state for key, state in found.items() if state is not None}
        for key, state in zip(missing, self._compute(list(missing.values())), strict=True):
            states[key] = state
            self._keep(key, state)
            if self.store is not None:
                self.store.write(key, {"state": state})
        return {n: states[key] for n, key in keys.items()}

    def _find(self, key: str) -> Tensor | None:
        state = self.kept.get(key)
        if (
            state is None
            and self.store is not None
            and (state := (self.store.read(key) or {}).get("state")) is not None
        ):
            self._keep(key, state)
        return state

    def _keep(self, key: str, state: Tensor) -> None:
        if self.bytes + state.nbytes <= self.max_bytes:
            self.kept[key] = state.clone()  # out of the batch, or out of the file, that it is a piece of
            self.bytes += state.nbytes

    @torch.no_grad()
    def _compute(self, rows: list[TokenRow]) -> list[Tensor]:
        device = next(self.llm.parameters()).device
        cast = torch.autocast(device.type, self.dtype) if self.dtype != torch.float32 else nullcontext()
        order = sorted(range(len(rows)), key=lambda n: rows[n].final)
        states: dict[int, Tensor] = {}
        for start in range(0, len(order), ROWS):
            some = order[start : start + ROWS]
            with cast, eval_mode(self.llm):
                found = self._read([rows[n] for n in some], device)
            states |= dict(zip(some, found, strict=True))
        return [states[n] for n in range(len(rows))]

    def _read(self, rows: list[TokenRow], device: torch.device) -> list[Tensor]:
        """States of rows, the longest last."""
        ids = torch.tensor([row.ids + [PAD] * (len(rows[-1].ids) - len(row.ids)) for row in rows], device=device)
        x = self.llm.embed(ids)
        if self.depth:
            hidden = below(self.llm, x, self.depth).cpu()
            return [states[: len(row.ids)] for states, row in zip(hidden, rows, strict=True)]
        last = torch.tensor([row.final for row in rows], device=device)
        every = torch.arange(len(rows), device=device)
        return list(states_at(self.llm, x, ids, last, every, last, Ways()).cpu())


class StateStore(TensorStore):
    """`state` by a hash of the row's tokens; see `TensorStore`.

    Args:
        dtype, depth: states differ by what they are computed in and where they are taken, and so does their place.
    """

    def __init__(self, llm: LLM, max_bytes: int, dtype: str, depth: int = 0, root: Path | None = None) -> None:
        super().__init__(max_bytes, root)
        self.llm, self.dtype, self.depth = llm, dtype, depth

    def fingerprint(self) -> str:
        """A hash of the LLM's frozen weights, its adapter's strength, its settings, the depth and the precision."""
        about = f"{self.llm.settings_id} {adapter_of(self.llm)} {self.depth} {self.dtype}"
        digest = hashlib.sha256(about.encode())
        trained = {name for name, p in self.llm.named_parameters(remove_duplicate=False) if p.requires_grad}
        for name, tensor in sorted((n, t) for n, t in self.llm.state_dict().items() if n not in trained):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:24]


def constant(row: TokenRow) -> bool:
    """Whether all that a row is made of is the LLM's own, up to its end at the compress position."""
    return min(row.ids) >= 0 and row.final == len(row.ids) - 1


def _key(row: TokenRow) -> str:
    return hashlib.sha256(" ".join(map(str, row.ids)).encode()).hexdigest()
