"""Baselines without a gradient: frozen features standardised, or whitened by pairs; all of it is `n2kit.whitening`'s."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from n2kit.inputs.halves import Half, without
from n2kit.whitening.candidates import Candidate
from n2kit.whitening.select import fitted, select
from n2kit.whitening.statistics import PairRows, Standard, pair_rows, rows_to_fit, standard
from n2kit.whitening.whitening import unit

if TYPE_CHECKING:
    from n2kit.bench.baselines.frozen import Features
    from n2kit.data.items import Items
    from n2kit.data.pairs import Pairs

CLOSED_FORM = ("text-std", "vision-std", "concat-std", "whitened", "whitened-no-pairs")


@dataclass(frozen=True)
class ClosedForm:
    """Unit vectors [n, d] float32 of all items; `note` says what was chosen; the seconds are those of choosing and fitting."""

    vectors: np.ndarray
    note: str
    seconds: float
    cpu_seconds: float
    parameters: int = 0  # none is trained, in no step
    steps: int = 0


def fit_closed_form(
    name: str,
    modalities: Sequence[Features],
    items: Items,
    pairs: Pairs,
    val_pairs: Pairs | None,
    skipped: Container[str] = (),
) -> ClosedForm:
    """Fit one of `CLOSED_FORM` on raw features [n, d_i].

    Args:
        skipped: ids of items that are left out, with their pairs.
    """
    halves = [without(Half(modality.values, modality.present), items, skipped) for modality in modalities]
    start, cpu = time.perf_counter(), time.process_time()
    known = (None, None) if name == "whitened-no-pairs" else (pairs, val_pairs)
    training, validation = (pair_rows(some, items, skipped) for some in known)
    note = ""
    embed: Callable[[], np.ndarray]
    if len(halves) == 1:
        own = standard(halves[0], rows_to_fit(halves[0], training.positive()))
        embed = partial(_standardised, halves[0], own)
    else:
        text, image = halves
        chosen, note = _choose(name, text, image, training, validation)
        embed = partial(fitted(chosen, text, image, training), text, image)
    took = time.perf_counter() - start, time.process_time() - cpu
    return ClosedForm(embed(), note, *took)


def _choose(name: str, text: Half, image: Half, training: PairRows, validation: PairRows) -> tuple[Candidate, str]:
    """Choose how both halves are fused, and say what was chosen; of `concat-std` there is nothing to say."""
    if name == "concat-std":
        return Candidate(name), ""
    selection = select(text, image, training, validation)
    return selection.chosen, selection.sentence()


def _standardised(half: Half, own: Standard) -> np.ndarray:
    """Standardise a half to unit vectors [n, d] float32; of an item without it, zeros."""
    out: np.ndarray = unit(own(half.values) * half.present[:, None]).astype(np.float32)
    return out
