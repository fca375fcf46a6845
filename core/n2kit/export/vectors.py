"""Vectors with their ids for other programs: a faiss index, and plain Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from n2kit.embed.reading import read_vectors
from n2kit.embed.vectors_file import Vectors
from n2kit.errors import BadInput
from n2kit.index import load_index
from n2kit.index.folder import is_index
from n2kit.utils.arrow import lists_of
from n2kit.utils.files import atomic_write, write_text

if TYPE_CHECKING:
    from n2kit.index import Titles
    from n2kit.index.facts import Facts

IDS = ".ids.json"


class Known(NamedTuple):
    """Vectors, and what is known of their items."""

    vectors: Vectors
    titles: Titles | None
    facts: Facts | None = None


def vectors_of(source: Path, titles: Titles | None) -> Known:
    """Read the vectors of an embed file, a folder of vectors or an index, and the items that go with them.

    Raises:
        BadInput: it is neither.
    """
    if is_index(source):
        stored = load_index(source)
        vectors = stored.index.vectors(np.arange(len(stored.ids))).astype(np.float32)
        return Known(Vectors(stored.ids, vectors, stored.fingerprint), titles or stored.titles, stored.facts)
    if not source.exists():
        raise BadInput(f"no vectors at {source}", "n2kit embed and n2kit index make them")
    return Known(read_vectors(source), titles)


def write_faiss(source: Path, out: Path, *, titles: Titles | None = None) -> dict[str, Any]:
    """Write an exact faiss index of dot products, which `faiss.read_index` reads, and the ids of its rows beside it."""
    import faiss

    table, *_ = vectors_of(source, titles)
    index = faiss.IndexFlatIP(table.vectors.shape[1])
    index.add(np.ascontiguousarray(table.vectors))
    with atomic_write(out) as temporary:
        temporary.write_bytes(faiss.serialize_index(index).tobytes())
    ids = out.with_name(out.name + IDS)
    write_text(ids, json.dumps(table.ids, ensure_ascii=False))
    return {"vectors": len(table.ids), "width": int(table.vectors.shape[1]), "ids": str(ids)}


def write_parquet(source: Path, out: Path, *, titles: Titles | None = None) -> dict[str, Any]:
    """Write Parquet with the columns id and vector, and title, category and image where the items are known."""
    table, known, _ = vectors_of(source, titles)
    columns = {"id": pa.array(table.ids, pa.string()), "vector": lists_of(table.vectors)} | words(table.ids, known)
    write(pa.table(columns), out)
    return {"vectors": len(table.ids), "width": int(table.vectors.shape[1]), "columns": list(columns)}


def words(ids: list[str], known: Titles | None) -> dict[str, pa.Array]:
    """Make columns of what people see of items: title, category, image path."""
    if known is None:
        return {}
    category = [known.items[i].category if i in known.items else "" for i in ids]
    found = {"title": [known.title(i) for i in ids], "category": category, "image": [known.image(i) for i in ids]}
    return {name: pa.array(column, pa.string()) for name, column in found.items() if any(column)}


def write(table: pa.Table, out: Path) -> None:
    with atomic_write(out) as temporary:
        pq.write_table(table, temporary)
