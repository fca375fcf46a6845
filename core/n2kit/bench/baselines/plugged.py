"""Baselines that plug-ins bring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from n2kit.bench.matrix.baseline_names import REGISTRY
from n2kit.contract.baseline import Baseline, BaselineInputs
from n2kit.plugins.registries import find
from n2kit.whitening.whitening import unit


def plugged_vectors(name: str, baseline: Baseline, inputs: BaselineInputs) -> np.ndarray:
    """Compute unit vectors [n, d] float32 by a plug-in's baseline.

    Raises:
        Unavailable: it fails, or gives something else than a finite row of numbers for each item.
    """
    entry = replace(find(REGISTRY, name), target=baseline.target or "")
    compute = entry.load()
    with entry.attribute_errors():
        made = np.asarray(compute(inputs), np.float32)
    if made.ndim != 2 or len(made) != len(inputs.items) or not made.shape[1]:
        raise entry.fault(f"it gives vectors of shape {list(made.shape)}, not [{len(inputs.items)}, d]")
    if not np.isfinite(made).all():
        raise entry.fault("it gives numbers that are not finite")
    return unit(made)
