"""A vectors file: Parquet (id, vector, visual_vector) with the model's fingerprint and a digest of the content."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from n2kit.errors import BadInput
from n2kit.utils.arrow import lists_of, numbers_of, read_parquet, strings_of
from n2kit.utils.files import atomic_write, parse_json

if TYPE_CHECKING:
    from n2kit.embed.encode import Encoded

META = b"n2kit"
UNREADABLE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError)  # of a damaged Parquet file


@dataclass
class Vectors:
    """The content of an embed file; `visual` is None where the file has none."""

    ids: list[str]
    vectors: np.ndarray
    fingerprint: str
    visual: np.ndarray | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    done_before: bool = False


def write_vectors(encoded: Encoded, fingerprint: str, out: Path) -> None:
    """Write vectors that were not made by `embed`, in the format of `read_vectors`."""
    write_table(Vectors(encoded.ids, encoded.vectors, fingerprint, skipped=encoded.skipped), out)


def write_table(vectors: Vectors, out: Path, run: dict[str, object] | None = None) -> None:
    """Write vectors, none at all too, with what `embed` knows its own files by."""
    columns = {"id": strings_of(vectors.ids), "vector": lists_of(vectors.vectors.astype(np.float32))}
    if vectors.visual is not None:
        columns["visual_vector"] = lists_of(vectors.visual.astype(np.float32))
    meta: dict[str, object] = {
        "fingerprint": vectors.fingerprint, "skipped": vectors.skipped, "sha256": _digest(vectors),
    }  # fmt: skip
    table = pa.table(columns).replace_schema_metadata({META: json.dumps(meta | ({"run": run} if run else {})).encode()})
    with atomic_write(out) as temporary:
        pq.write_table(table, temporary)


def read_vectors(path: Path) -> Vectors:
    """Read an embed file.

    Raises:
        BadInput: the file is not what `n2kit embed` writes, or its content is not what was written.
    """
    vectors = read_table(path)
    if not vectors.ids:
        raise BadInput(f"{path}: no vectors", "embed at least one item")
    return vectors


def read_table(path: Path) -> Vectors:
    """Read a file that `write_table` wrote, one without rows too.

    Raises:
        BadInput: as `read_vectors`.
    """
    if not path.is_file():
        raise BadInput(f"no vectors file {path}", "n2kit embed makes one")
    try:
        table = read_parquet(path)
        ids = (
            ["" if i is None else str(i) for i in table.column("id").to_pylist()] if "id" in table.column_names else []
        )
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path}: not a Parquet file: {reason}", "n2kit embed makes one") from None
    if not {"id", "vector"} <= set(table.column_names):
        raise BadInput(f"{path}: has no columns id and vector", "n2kit embed makes such a file")
    meta = _meta(table.schema, path)
    visual = matrix_of(table.column("visual_vector"), path) if "visual_vector" in table.column_names else None
    skipped = meta.get("skipped", {})
    vectors = Vectors(
        ids, matrix_of(table.column("vector"), path), str(meta.get("fingerprint", "unknown")), visual, skipped
    )
    if "sha256" in meta and meta["sha256"] != _digest(vectors):  # one of the version before has none
        raise BadInput(f"{path} is damaged: its content is not what was written", "embed again")
    check_rows(vectors, path)
    return vectors


def stored_run(path: Path) -> dict[str, object] | None:
    """Read what `embed` wrote a file for, without its rows; empty for one that was made otherwise.

    None if n2kit did not write it.
    """
    try:
        schema = pq.read_schema(path)
        run = _meta(schema, path).get("run")
    except (BadInput, *UNREADABLE):
        return None
    return (run if isinstance(run, dict) else {}) if META in (schema.metadata or {}) else None


def skipped_of(path: Path) -> dict[str, str]:
    """Read which items a file says were skipped, without its rows: id → reason; nothing of one that is not there or not whole."""
    try:
        skipped: dict[str, str] = _meta(pq.read_schema(path), path).get("skipped", {})
    except (BadInput, *UNREADABLE):
        return {}
    return skipped


def check_rows(vectors: Vectors, path: Path) -> None:
    finite = np.isfinite(vectors.vectors).all(axis=1)
    if not finite.all():
        raise BadInput(f"{path}: the vector of {vectors.ids[int(finite.argmin())]!r} is not finite", "embed again")
    if "" in vectors.ids:
        raise BadInput(f"{path}: a row has no id", "one row an item")
    twice, count = next(iter(Counter(vectors.ids).most_common(1)), ("", 0))
    if count > 1:
        raise BadInput(f"{path}: id {twice!r} is there twice", "one row an item")


def _digest(vectors: Vectors) -> str:
    """Hash ids, vectors and what was skipped: a changed byte shows, wherever in the file it is."""
    digest = hashlib.sha256(json.dumps([vectors.ids, vectors.skipped], sort_keys=True).encode())
    for matrix in (vectors.vectors, vectors.visual):
        if matrix is not None:
            digest.update(repr(matrix.shape).encode())
            digest.update(np.ascontiguousarray(matrix, dtype=np.float32).data)
    return digest.hexdigest()


def _meta(schema: pa.Schema, path: Path) -> dict[str, Any]:
    """Read what n2kit noted in a file; nothing in one that it did not write."""
    where = f"{path}: metadata {META.decode()}"
    meta = parse_json((schema.metadata or {}).get(META, b"{}"), where, hint="embed again")
    if not isinstance(meta, dict) or not isinstance(meta.get("skipped", {}), dict):
        raise BadInput(f"{where}: not a JSON object as n2kit writes it", "embed again")
    return meta


def matrix_of(column: pa.ChunkedArray, path: Path) -> np.ndarray:
    """Convert a column of lists of one length to a matrix [n, d], without null lists."""
    problem = BadInput(
        f"{path}: column of vectors is no list of numbers of one length", "n2kit embed makes such a file"
    )
    if not len(column):
        return np.zeros((0, column.type.list_size if pa.types.is_fixed_size_list(column.type) else 1), np.float32)
    try:
        lengths = set(pc.list_value_length(column).to_pylist())
        flat = np.asarray(numbers_of(pc.list_flatten(column)), dtype=np.float32)
    except UNREADABLE:
        raise problem from None
    if len(lengths) != 1 or None in lengths or flat.size != len(column) * (width := lengths.pop()) or not width:
        raise problem
    return flat.reshape(len(column), width)
