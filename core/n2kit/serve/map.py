"""A map of a catalogue: items on the plane of the first two principal components of their vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from n2kit.export.atlas import plane
from n2kit.serve.catalogue import Catalogue

MOST = 4000  # items that a browser draws; of more, as many evenly taken


def points(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Place the items: id, title, category, and x and y from 0 to 1."""
    rows = np.arange(0, len(catalogue), -(-len(catalogue) // MOST))
    place = plane(catalogue.stored.index.vectors(rows))
    low, high = place.min(0), place.max(0)
    place = (place - low) / np.maximum(high - low, 1e-12)
    items = [catalogue.item(catalogue.stored.ids[row]) for row in rows]
    return [
        {
            "id": item.id,
            "title": item.title or ", ".join(item.topics),
            "category": item.category,
            "picture": bool(item.image),
        }
        | {"x": round(float(x), 4), "y": round(float(y), 4)}
        for item, (x, y) in zip(items, place, strict=True)
    ]
