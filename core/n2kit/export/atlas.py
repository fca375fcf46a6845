"""A catalogue as the Parquet that embedding-atlas opens: words, pictures, vectors, and a map of them."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from n2kit.data.images import UnreadableImage, open_image
from n2kit.export.vectors import vectors_of, words
from n2kit.export.vectors import write as write_table
from n2kit.utils.arrow import array_of, lists_of

if TYPE_CHECKING:
    from n2kit.index import Titles

SIDE = 96  # pixels of a picture


def write(source: Path, out: Path, *, titles: Titles | None = None) -> dict[str, Any]:
    """Write the file; `x` and `y` are the first two principal components.

    `embedding-atlas OUT --x x --y y --text title` opens it; with `--vector vector` in place of x and y it makes a map of its own (UMAP).
    """
    table, known, _ = vectors_of(source, titles)
    columns = {"id": pa.array(table.ids, pa.string())} | words(table.ids, known)
    columns.setdefault("title", pa.array(table.ids, pa.string()))
    pictures = _pictures(table.ids, known)
    if known is not None and any(pictures):
        rows = [None if p is None else {"bytes": p, "path": None} for p in pictures]
        columns["image"] = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    place = plane(table.vectors)
    columns |= {"x": array_of(place[:, 0]), "y": array_of(place[:, 1]), "vector": lists_of(table.vectors)}
    write_table(pa.table(columns), out)
    return {"items": len(table.ids), "pictures": sum(p is not None for p in pictures), "columns": list(columns)}


def plane(vectors: np.ndarray) -> np.ndarray:
    """Project vectors [n, d] on their two first principal components: [n, 2]."""
    centred = vectors - vectors.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    first = directions[:, ::-1][:, :2]
    first = first * np.sign(first[np.abs(first).argmax(0), range(first.shape[1])])  # the same every time
    return np.pad(centred @ first, ((0, 0), (0, 2 - first.shape[1]))).astype(np.float32)


def _pictures(ids: Iterable[str], known: Titles | None) -> list[bytes | None]:
    """Make small copies of the items' pictures; None where there is none that can be read."""
    return [None if known is None or i not in known.items else _small(known, i) for i in ids]


def _small(known: Titles, item_id: str) -> bytes | None:
    item = known.items[item_id]
    if not item.image:
        return None
    try:
        image = open_image(item, known.images)
    except UnreadableImage:
        return None
    image.thumbnail((SIDE, SIDE))
    file = BytesIO()
    image.save(file, "WEBP", quality=80)
    return file.getvalue()
