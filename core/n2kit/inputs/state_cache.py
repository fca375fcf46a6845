"""The hidden states of an LLM's frozen blocks, computed once a row of tokens, and cached in memory and on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from n2kit.inputs.tensor_store import TensorStore, digest_of
from n2kit.modeling.lora import lora_config_of
from n2kit.modeling.partial_forward import forward_until, num_frozen_layers
from n2kit.modeling.prefix_sharing import ExecutionOptions, gather_hidden_states
from n2kit.modeling.prompts import PAD, TokenizedPrompt
from n2kit.utils.contexts import autocast, eval_mode

if TYPE_CHECKING:
    from n2kit.contract.interfaces import LLM

ROWS = 64  # computed at a time, at most: a batch of new rows shall not decide how much memory a training needs


def state_cache(llm: LLM, gigabytes: float, dtype: torch.dtype, *, memory: bool = True) -> StateCache | None:
    """Make a cache in memory and in the user's cache folder, `gigabytes` of each; None where nothing can be cached.

    Args:
        dtype: the type that the states are computed in.
        memory: false for a single pass over the items, in which none comes back; then only a wholly frozen LLM's states are cached.
    """
    if not gigabytes or llm.settings_id is None:
        return None
    num_layers = 0 if llm.frozen or not memory else num_frozen_layers(llm)
    if not llm.frozen and not num_layers:
        return None
    most = int(gigabytes * 1e9)
    return StateCache(llm, most if memory else 0, dtype, StateStore(llm, most, str(dtype), num_layers), num_layers)


class StateCache:
    """A cache of up to `max_bytes`: row of tokens → the frozen LLM's hidden state [Dh] at its end.

    It holds only rows in which nothing is trained: no visual tokens and no special tokens of n2kit.

    Args:
        num_layers: of a partially trainable LLM, the number of its first blocks that are frozen; their output [T, D] is cached.
    """

    def __init__(
        self, llm: LLM, max_bytes: int, dtype: torch.dtype, store: StateStore | None = None, num_layers: int = 0
    ) -> None:
        if not llm.frozen and not num_layers:
            raise ValueError("only the states of a frozen LLM or of frozen blocks can be cached")
        self.llm, self.max_bytes, self.dtype, self.store = llm, max_bytes, dtype, store
        self.num_layers = num_layers
        self.kept: dict[str, Tensor] = {}
        self.bytes = 0

    def rows(self, prompts: Sequence[TokenizedPrompt]) -> dict[int, Tensor]:
        """Get the states of all rows that can be cached, by row, and compute those that are not cached yet."""
        keys = {n: _key(p) for n, p in enumerate(prompts) if is_constant(p)}
        found = {key: self._find(key) for key in dict.fromkeys(keys.values())}
        missing = {keys[n]: prompts[n] for n in keys if found[keys[n]] is None}
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
    def _compute(self, rows: list[TokenizedPrompt]) -> list[Tensor]:
        device = next(self.llm.parameters()).device
        order = sorted(range(len(rows)), key=lambda n: rows[n].pool_pos)
        states: dict[int, Tensor] = {}
        for start in range(0, len(order), ROWS):
            some = order[start : start + ROWS]
            with autocast(device, self.dtype), eval_mode(self.llm):
                found = self._forward([rows[n] for n in some], device)
            states |= dict(zip(some, found, strict=True))
        return [states[n] for n in range(len(rows))]

    def _forward(self, rows: list[TokenizedPrompt], device: torch.device) -> list[Tensor]:
        """Compute the states of rows, the longest last."""
        ids = torch.tensor([row.ids + [PAD] * (len(rows[-1].ids) - len(row.ids)) for row in rows], device=device)
        x = self.llm.embed(ids)
        if self.num_layers:
            hidden = forward_until(self.llm, x, self.num_layers).cpu()
            return [states[: len(row.ids)] for states, row in zip(hidden, rows, strict=True)]
        last = torch.tensor([row.pool_pos for row in rows], device=device)
        every = torch.arange(len(rows), device=device)
        return list(gather_hidden_states(self.llm, x, ids, last, every, last, ExecutionOptions()).cpu())


class StateStore(TensorStore):
    """A `TensorStore` of states by a hash of the row's tokens.

    Args:
        dtype, num_layers: states differ by the type and the layer that they are computed in, and so does their folder.
    """

    def __init__(self, llm: LLM, max_bytes: int, dtype: str, num_layers: int = 0, root: Path | None = None) -> None:
        super().__init__(max_bytes, root)
        self.llm, self.dtype, self.num_layers = llm, dtype, num_layers

    def fingerprint(self) -> str:
        """Hash the LLM's frozen weights, its adapter's strength, its settings, the number of layers and the precision."""
        about = f"{self.llm.settings_id} {lora_config_of(self.llm)} {self.num_layers} {self.dtype}"
        trained = {name for name, p in self.llm.named_parameters(remove_duplicate=False) if p.requires_grad}
        frozen = {name: t for name, t in self.llm.state_dict().items() if name not in trained}
        return digest_of(about, frozen, self.llm.origin)


def is_constant(row: TokenizedPrompt) -> bool:
    """Return whether a row has only tokens of the LLM's own vocabulary, and ends at its compress position."""
    return min(row.ids) >= 0 and row.pool_pos == len(row.ids) - 1


def _key(row: TokenizedPrompt) -> str:
    return hashlib.sha256(" ".join(map(str, row.ids)).encode()).hexdigest()
