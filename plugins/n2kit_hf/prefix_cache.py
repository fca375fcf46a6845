"""A prefix that many rows have in common, computed once: its keys and values, given to each row by transformers' own cache."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from n2kit.contract import eval_mode, one_thread_if_small
from n2kit.errors import Mismatch

if TYPE_CHECKING:
    from n2kit.contract import LLM

PROBE = (1, 3, 5)  # rows, tokens of the prefix, tokens after it
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}  # of the largest state; a wrong position is off by far more
TOLERANCE_NARROW = 3e-2


class _Layer(DynamicLayer):
    """Keys and values [1, H, P, d] of one layer; an initialised one has both."""

    keys: Tensor
    values: Tensor

    def __init__(self, is_sliding: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_sliding = is_sliding


class _PrefixLayer(_Layer):
    """Records the keys and values of a prefix."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values, self.is_initialized = key_states, value_states, True
        return key_states, value_states

    def get_seq_length(self) -> int:
        return 0


class _SharedLayer(_Layer):
    """Puts a prefix's keys and values before those of every row, and records nothing: a block may run twice (checkpointing).

    For a layer with a sliding window it holds all keys, too; the mask says how far back a row attends.
    """

    def __init__(self, prefix: _PrefixLayer) -> None:
        super().__init__(prefix.is_sliding)
        self.keys, self.values, self.is_initialized = prefix.keys, prefix.values, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        shared = (t.expand(len(key_states), -1, -1, -1) for t in (self.keys, self.values))
        keys, values = (torch.cat(pair, -2) for pair in zip(shared, (key_states, value_states), strict=True))
        return keys, values


@dataclass(frozen=True)
class PrefixCache:
    """Keys and values of a prefix of P tokens, layer by layer."""

    layers: list[_PrefixLayer]

    @classmethod
    def prefill(cls, model: PreTrainedModel, x: Tensor) -> Self:
        """Compute the keys and values of a prefix x [1, P, De], with gradient.

        Raises:
            Mismatch: a layer whose state is not keys and values.
        """
        kinds = [type(layer) for layer in DynamicCache(config=model.config).layers]
        if not kinds or set(kinds) - {DynamicLayer, DynamicSlidingWindowLayer}:
            raise Mismatch(
                f"model_type {model.config.model_type!r} keeps more than keys and values", "read it as a whole"
            )
        layers = [_PrefixLayer(kind is DynamicSlidingWindowLayer) for kind in kinds]
        model(inputs_embeds=x, **_as_argument(model, layers))
        if not all(layer.is_initialized for layer in layers):
            raise Mismatch(f"model_type {model.config.model_type!r} does not use its cache", "read it as a whole")
        return cls(layers)

    def arguments(self, model: PreTrainedModel) -> dict[str, Any]:
        """Make the arguments with which the model's forward continues after the prefix."""
        return _as_argument(model, [_SharedLayer(layer) for layer in self.layers])


def prefix_cache_works(llm: LLM, model: PreTrainedModel) -> bool:
    """Return whether a row computed after its prefix has the hidden states that it has in one piece, by trying a few tokens."""
    if not llm.card.causal:
        return False
    rows, prefix, rest = PROBE
    device = model.device
    ids = (torch.arange(prefix + rest) + llm.card.vocab // 2).remainder(
        llm.card.vocab
    )  # ids at the ends may be special
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False), eval_mode(llm), one_thread_if_small(llm):
            x = llm.embed(ids[None].expand(rows, -1).to(device))
            want = llm(x)[:, prefix:]
            got = llm(x[:, prefix:], past=llm.prefill(x[:1, :prefix]))
    except (Mismatch, RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
        return False
    off = (want - got).abs().max() / want.abs().max()
    return bool(off <= TOLERANCE.get(want.dtype, TOLERANCE_NARROW))


def _as_argument(model: PreTrainedModel, layers: Sequence[_Layer]) -> dict[str, Any]:
    cache = DynamicCache()
    cache.layers = list(layers)
    named = inspect.signature(model.forward).parameters
    return {"use_cache": True, "cache" if "cache" in named else "past_key_values": cache}
