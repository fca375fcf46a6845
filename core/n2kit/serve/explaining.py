"""Why a neighbour is one: the score and the rank that each view of a query alone would give it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from n2kit.index.search import search
from n2kit.serve.catalogue import Catalogue

DEEP = 200  # neighbours of a view that are counted to explain one
Why = dict[str, dict[str, float | int | None]]


def explain(
    catalogue: Catalogue, found: Sequence[str], views: Mapping[str, np.ndarray], exclude: Collection[str]
) -> list[Why]:
    """Say of each item how each view of the query alone scores it, and at which rank it would stand; None beyond the first DEEP."""
    ranks = {
        view: {n.id: rank for rank, n in enumerate(search(catalogue.stored, vector, DEEP, without=exclude), 1)}
        for view, vector in views.items()
    }
    return [
        {
            view: {"score": round(float(catalogue.vector(item_id) @ vector), 6), "rank": ranks[view].get(item_id)}
            for view, vector in views.items()
        }
        for item_id in found
    ]
