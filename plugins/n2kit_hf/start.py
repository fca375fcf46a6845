"""What many rows begin with, read once: its keys and values, lent to each row through transformers' own cache."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from n2kit.contract import eval_mode
from n2kit.errors import Mismatch

if TYPE_CHECKING:
    from n2kit.contract import LLM

TRIED = (1, 3, 5)  # rows, tokens of the start, tokens behind it
OFF = {torch.float32: 1e-4, torch.float64: 1e-8}  # of the largest state; a wrong position is off by far more
OFF_NARROW = 3e-2


class _Layer(DynamicLayer):
    """Keys and values [1, H, P, d] of one layer, of which an initialised one has both."""

    keys: Tensor
    values: Tensor

    def __init__(self, is_sliding: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_sliding = is_sliding


class _Kept(_Layer):
    """Keeps the keys and values of a start."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values, self.is_initialized = key_states, value_states, True
        return key_states, value_states

    def get_seq_length(self) -> int:
        return 0


class _Lent(_Layer):
    """Gives every row a start's keys and values before its own, and keeps nothing: a block may run twice (checkpointing).

    Of a layer with a sliding window it holds all keys too; the mask says how far back a row may look.
    """

    def __init__(self, kept: _Kept) -> None:
        super().__init__(kept.is_sliding)
        self.keys, self.values, self.is_initialized = kept.keys, kept.values, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        ahead = (t.expand(len(key_states), -1, -1, -1) for t in (self.keys, self.values))
        keys, values = (torch.cat(pair, -2) for pair in zip(ahead, (key_states, value_states), strict=True))
        return keys, values


@dataclass(frozen=True)
class Start:
    """Keys and values of P tokens, layer by layer."""

    layers: list[_Kept]

    @classmethod
    def read(cls, model: PreTrainedModel, x: Tensor) -> Self:
        """x [1, P, De], with gradient.

        Raises:
            Mismatch: a layer whose memory is not keys and values.
        """
        kinds = [type(layer) for layer in DynamicCache(config=model.config).layers]
        if not kinds or set(kinds) - {DynamicLayer, DynamicSlidingWindowLayer}:
            raise Mismatch(
                f"model_type {model.config.model_type!r} keeps more than keys and values", "read it as a whole"
            )
        kept = [_Kept(kind is DynamicSlidingWindowLayer) for kind in kinds]
        model(inputs_embeds=x, **_as_argument(model, kept))
        if not all(layer.is_initialized for layer in kept):
            raise Mismatch(f"model_type {model.config.model_type!r} does not use its cache", "read it as a whole")
        return cls(kept)

    def lent(self, model: PreTrainedModel) -> dict[str, Any]:
        """Arguments with which the model's forward reads on behind it."""
        return _as_argument(model, [_Lent(kept) for kept in self.layers])


def can_share(llm: LLM, model: PreTrainedModel) -> bool:
    """Whether a row that is read behind its start has the states that it has in one piece: a few tokens show it."""
    if not llm.card.causal:
        return False
    rows, start, behind = TRIED
    device = model.device
    ids = (torch.arange(start + behind) + llm.card.vocab // 2).remainder(
        llm.card.vocab
    )  # ids at the ends may be special
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False), eval_mode(llm):
            x = llm.embed(ids[None].expand(rows, -1).to(device))
            want = llm(x)[:, start:]
            got = llm(x[:, start:], after=llm.start(x[:1, :start]))
    except (Mismatch, RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
        return False
    off = (want - got).abs().max() / want.abs().max()
    return bool(off <= OFF.get(want.dtype, OFF_NARROW))


def _as_argument(model: PreTrainedModel, layers: Sequence[_Layer]) -> dict[str, Any]:
    cache = DynamicCache()
    cache.layers = list(layers)
    named = inspect.signature(model.forward).parameters
    return {"use_cache": True, "cache" if "cache" in named else "past_key_values": cache}
