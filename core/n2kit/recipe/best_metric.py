"""The metric that chooses the best step of a training: one of n2kit's, or a plug-in's."""

from __future__ import annotations

import re

from n2kit.plugins.registries import find

_OWN = re.compile(r"(?:recall|ndcg)@([1-9][0-9]*)|mrr")
_EXAMPLES = ("recall@10", "ndcg@10", "mrr")
WHERE = "train.best_metric"


def cutoff_of(metric: str) -> int | None:
    """Return the K of one of n2kit's metrics; None where it has none, or a plug-in brings it."""
    found = _OWN.fullmatch(metric)
    return int(found[1]) if found and found[1] else None


def of_plugin(metric: str) -> tuple[str, ...]:
    """Return the metric as those that plug-ins bring: itself, or none where it is n2kit's."""
    return () if _OWN.fullmatch(metric) else (metric,)


def check_best_metric(metric: str) -> None:
    """Check that there is such a metric.

    Raises:
        BadInput: nobody, or several packages, bring it. Unavailable: it cannot be imported.
    """
    for name in of_plugin(metric):
        find("metric", name, _EXAMPLES, WHERE).load()
