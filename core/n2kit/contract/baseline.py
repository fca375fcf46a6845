"""Baselines of a bench: vectors of items without a joined model, which a joined model must beat to deserve its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from n2kit.data.items import Item


@dataclass(frozen=True)
class Baseline:
    """A baseline, as a matrix reads it before anything is computed; no torch.

    summary: a line for people.
    takes: the frozen backbones whose features it reads: `llm`, `vision`, or `mllm`.
    learns_from: the pairs that it reads: `pairs`, `val_pairs`. Test pairs cannot be read.
    trained: by a gradient, with a seed.
    needs: the distribution that computes it, where not every installation has it.
    target: `module:function` of a plug-in's: `(BaselineInputs) -> vectors [n, d]`, a row for each item.
    """

    summary: str
    takes: tuple[str, ...] = ()
    learns_from: tuple[str, ...] = ()
    trained: bool = False
    needs: str | None = None
    target: str | None = None


@dataclass(frozen=True)
class BaselineInputs:
    """The inputs of a plug-in's baseline.

    items: all items, n of them, in the order of the rows that it returns.
    features: for each backbone that it takes, [n, d] float32: the LLM's compressed word, the encoder's pooled vector.
    pairs, val_pairs: ids; empty where it does not learn from them.
    seed: of whatever it draws.
    """

    items: Sequence[Item]
    features: Mapping[str, np.ndarray]
    pairs: Sequence[tuple[str, str]] = ()
    val_pairs: Sequence[tuple[str, str]] = ()
    seed: int = 0
