"""Metrics that plug-ins bring, beside those of `metrics`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from n2kit.errors import BadInput
from n2kit.plugins.registries import find

REGISTRY = "metric"
OWN = ("recall", "ndcg", "mrr", "mean_rank")  # and with @k; they are always computed


def check_metrics(names: Iterable[str]) -> None:
    """Check that plug-ins bring these metrics.

    Raises:
        BadInput: one is unknown, or one of n2kit's. Unavailable: one cannot be imported.
    """
    for name in names:
        if name.partition("@")[0] in OWN:
            raise BadInput(f"the metric {name!r} is n2kit's own, and always computed", "--k sets its cut-offs")
        find(REGISTRY, name).load()


def per_query_of_plugins(names: Iterable[str], ranks: np.ndarray, owner: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the values [Q] of plug-ins' metrics.

    Args:
        ranks, owner: as `metrics.per_query` takes them.

    Raises:
        Unavailable: one fails, or gives something else than a finite number for each query.
    """
    found = {}
    for name in names:
        entry = find(REGISTRY, name)
        compute = entry.load()
        with entry.attribute_errors():
            values = np.asarray(compute(ranks.copy(), owner.copy()), float)
        if values.shape != (queries := owner.max(initial=-1) + 1,) or not np.isfinite(values).all():
            raise entry.fault(
                f"it gives {values.shape and list(values.shape)}, not a finite number for each of {queries} queries"
            )
        found[name] = values
    return found
