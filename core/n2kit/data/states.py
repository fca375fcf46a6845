"""A frozen LLM's states, computed once a row of tokens: kept in memory, and on disk for the next run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from n2kit.data.tensor_store import TensorStore
from n2kit.lora import adapter_of
from n2kit.prompts import PAD
from n2kit.prompts import Sequence as TokenRow
from n2kit.reading import Ways, states_at

if TYPE_CHECKING:
    from n2kit.parts import LLM

ROWS = 64  # read at a time, at most: a batch of new rows shall not decide how much memory a training needs


def state_cache(llm: LLM, gigabytes: float, dtype: torch.dtype, *, memory: bool = True) -> StateCache | None:
    """Memory in front of the user's cache folder, `gigabytes` of each; None where there is nothing to keep.

    Args:
        dtype: what the states are computed in.
        memory: false for a single pass over the items, in which none comes back.
    """
    if not llm.frozen or not gigabytes or llm.settings_id is None:
        return None
    most = int(gigabytes * 1e9)
    return StateCache(llm, most if memory else 0, dtype, StateStore(llm, most, str(dtype)))


class StateCache:
    """Row of tokens → the frozen LLM's state [Dh] at its end, up to `max_bytes`.

    For rows with nothing in them that is trained: no visual tokens and no word of ours.
    """

    def __init__(self, llm: LLM, max_bytes: int, dtype: torch.dtype, store: StateStore | None = None) -> None:
        if not llm.frozen:
            raise ValueError("only a frozen LLM's states can be kept")
        self.llm, self.max_bytes, self.dtype, self.store = llm, max_bytes, dtype, store
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
            width = rows[some[-1]].final + 1
            ids = torch.tensor([rows[n].ids + [PAD] * (width - len(rows[n].ids)) for n in some], device=device)
            last = torch.tensor([rows[n].final for n in some], device=device)
            with cast:
                every = torch.arange(len(some), device=device)
                found = states_at(self.llm, self.llm.embed(ids), ids, last, every, last, Ways()).cpu()
            states |= dict(zip(some, found, strict=True))
        return [states[n] for n in range(len(rows))]


class StateStore(TensorStore):
    """`state` [Dh] by a hash of the row's tokens; see `TensorStore`.

    Args:
        dtype: states differ by what they are computed in, and so does their place.
    """

    def __init__(self, llm: LLM, max_bytes: int, dtype: str, root: Path | None = None) -> None:
        super().__init__(max_bytes, root)
        self.llm, self.dtype = llm, dtype

    def fingerprint(self) -> str:
        """A hash of the LLM's weights, its adapter's strength, its settings and the precision."""
        digest = hashlib.sha256(f"{self.llm.settings_id} {adapter_of(self.llm)} {self.dtype}".encode())
        for name, tensor in sorted(self.llm.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:24]


def constant(row: TokenRow) -> bool:
    """Whether all that a row is made of is the LLM's own, up to its end at the compress position."""
    return min(row.ids) >= 0 and row.final == len(row.ids) - 1


def _key(row: TokenRow) -> str:
    return hashlib.sha256(" ".join(map(str, row.ids)).encode()).hexdigest()
