"""Vectors with their ids and what is known of the items, for databases: Qdrant's points, and SQL for PostgreSQL with pgvector."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.errors import BadInput
from n2kit.export.vectors import vectors_of, words
from n2kit.utils.files import atomic_write

if TYPE_CHECKING:
    from n2kit.embed.vectors_file import Vectors
    from n2kit.index import Titles

MOST_INDEXED = 2000  # numbers a vector that pgvector makes an index of
ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})  # of PostgreSQL's COPY
Columns = dict[str, list[Any]]  # None for no value


def write_qdrant(source: Path, out: Path, *, titles: Titles | None = None) -> dict[str, Any]:
    """Write JSON lines of Qdrant's points: id, vector and payload, in which `id` is the item's.

    A point's id has to be a UUID there: it is made of the item's id, the same each time, so that a later file replaces what it changes.
    """
    table, columns = _known(source, titles)
    with atomic_write(out) as temporary, temporary.open("w", encoding="utf8") as file:
        for item_id, vector, row in _rows(table, columns):
            payload = {"id": item_id} | {name: value for name, value in row.items() if value is not None}
            point = {"id": str(uuid.uuid5(uuid.NAMESPACE_OID, item_id)), "vector": _numbers(vector), "payload": payload}
            file.write(json.dumps(point, ensure_ascii=False) + "\n")
    return {"points": len(table.ids), "width": int(table.vectors.shape[1]), "payload": ["id", *columns]}


def write_pgvector(source: Path, out: Path, *, titles: Titles | None = None) -> dict[str, Any]:
    """Write SQL that psql runs: a table named as the file, its rows by COPY, and an index of inner products. All of it, or nothing.

    Raises:
        BadInput: a text with a NUL, which PostgreSQL does not take.
    """
    table, columns = _known(source, titles)
    width, name = int(table.vectors.shape[1]), _quoted(out.name.split(".")[0] or "items")
    types = {
        n: "double precision" if any(isinstance(v, float) for v in column) else "text" for n, column in columns.items()
    }
    fields = [
        "id text PRIMARY KEY",
        f"vector vector({width}) NOT NULL",
        *(f"{_quoted(n)} {t}" for n, t in types.items()),
    ]
    with atomic_write(out) as temporary, temporary.open("w", encoding="utf8") as file:
        file.write(f"BEGIN;\nCREATE EXTENSION IF NOT EXISTS vector;\nCREATE TABLE {name} ({', '.join(fields)});\n")
        file.write(f"COPY {name} FROM STDIN;\n")
        for item_id, vector, row in _rows(table, columns):
            cells = [_cell(item_id), str(_numbers(vector)).replace(" ", ""), *map(_cell, row.values())]
            file.write("\t".join(cells) + "\n")
        file.write("\\.\n")
        if width <= MOST_INDEXED:
            file.write(f"CREATE INDEX ON {name} USING hnsw (vector vector_ip_ops);\n")
        file.write("COMMIT;\n")
    return {"rows": len(table.ids), "width": width, "table": name, "columns": ["id", "vector", *columns]}


def _known(source: Path, titles: Titles | None) -> tuple[Vectors, Columns]:
    """Read vectors, and by column what is known of their items: words that people see, and what an index remembers."""
    table, known, facts = vectors_of(source, titles)
    columns: Columns = {
        name: [value or None for value in column.to_pylist()] for name, column in words(table.ids, known).items()
    }
    for name, values in (facts.of(table.ids) if facts is not None else {}).items():
        if name not in columns and name.lower() not in ("id", "vector"):
            columns[name] = [None if value == "" or value != value else value for value in values.tolist()]
    return table, columns


def _rows(table: Vectors, columns: Columns) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    for n, (item_id, vector) in enumerate(zip(table.ids, table.vectors, strict=True)):
        yield item_id, vector, {name: column[n] for name, column in columns.items()}


def _numbers(vector: np.ndarray) -> list[float]:
    """Write numbers of float32 as short as they can be read back."""
    return [float(str(number)) for number in vector.astype(np.float32)]


def _cell(value: str | float | None) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, float):
        return "Infinity" if value == math.inf else "-Infinity" if value == -math.inf else repr(value)
    if "\0" in value:
        raise BadInput(f"{value[:40]!r} holds a NUL, which PostgreSQL does not take", "mend the items' file")
    return value.translate(ESCAPED)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
