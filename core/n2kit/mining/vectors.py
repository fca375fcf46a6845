"""Pairs out of item vectors that were learnt elsewhere, such as by collaborative filtering: each item's nearest by cosine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from n2kit.data.columns import SYNONYMS, normal
from n2kit.data.items import Items
from n2kit.data.pairs import likely_ids
from n2kit.errors import BadInput, counted
from n2kit.mining.ingest import UNLISTED
from n2kit.mining.run import PAIRS, REPORT, earlier_files, remove_files
from n2kit.utils.arrow import read_parquet
from n2kit.utils.files import atomic_write, write_json
from n2kit.utils.locks import output_lock

BLOCK = 512  # items that are compared with all others at a time


def mine_vectors(
    file: str | Path,
    out: str | Path,
    *,
    top: int = 20,
    lower: float | None = None,
    upper: float | None = None,
    items: Items | None = None,
    force: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Write the `top` nearest of each vector to `out`/pairs.parquet: query, target, score, which is their cosine, above 0.

    Args:
        file: Parquet with an id and a list of numbers a row, or FILE.npy [n, d] with the n ids in FILE.ids.txt, one a line.

    Raises:
        BadInput: no such file, ids and vectors that do not match, or no two vectors that can be compared.
    """
    file, out = Path(file), Path(out)
    if not file.is_file():
        raise BadInput(
            f"no vectors file {file}", "a Parquet file of id and vector, or an .npy with FILE.ids.txt beside it"
        )
    older = earlier_files(out, [out / PAIRS])
    if (there := [file for file in (out / PAIRS, *older) if file.exists()]) and not force:
        raise BadInput(f"{there[0]} exists", "give another -o, or --force")
    ids, vectors = _of_npy(file) if file.suffix == ".npy" else _of_parquet(file)
    ids, vectors, dropped, strange = _usable(ids, vectors, items)
    if len(ids) < 2:
        lost = "; ".join(f"{count:,} {reason}" for reason, count in dropped.items())
        lost += f", for example {strange!r}" * bool(strange)
        likely = likely_ids([strange] * bool(strange), items or ())
        raise BadInput(
            f"{file}: no two vectors that can be compared{f' ({lost})' if lost else ''}",
            f"{likely}is this the right file?",
        )
    with output_lock(out / PAIRS), atomic_write(out / PAIRS) as temporary:
        pairs = _write(temporary, ids, vectors, top, (max(lower or 0.0, 0.0), upper), progress)
    found = {"read": len(ids) + sum(dropped.values()), "used": len(ids), "dropped": dict(dropped), "pairs": pairs}
    remove_files(older)
    write_json(out / REPORT, {"vectors": str(file), "top": top, "lower": lower, "upper": upper, **found})
    return found


def _of_npy(file: Path) -> tuple[list[str], np.ndarray]:
    names = file.with_suffix(".ids.txt")
    if not names.is_file():
        raise BadInput(
            f"no file {names}, which says whose vectors these are", "one id a line, in the order of the rows"
        )
    try:
        vectors = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(f"{file}: not an array: {error}".splitlines()[0], "numpy.save writes one") from None
    ids = [line.strip() for line in names.read_text("utf8").splitlines() if line.strip()]
    if vectors.ndim != 2 or len(vectors) != len(ids) or vectors.dtype.kind not in "fiu":
        shape = f"{list(vectors.shape)} of {vectors.dtype}"
        raise BadInput(
            f"{file}: an array {shape}, and {names} has {counted(len(ids), 'id')}", "[n, d] numbers, and n ids"
        )
    return ids, vectors


def _of_parquet(file: Path) -> tuple[list[str], np.ndarray]:
    import pyarrow as pa

    try:
        table = read_parquet(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{file}: not a Parquet file: {error}".splitlines()[0], "check the file") from None
    named = [c for c in table.column_names if normal(c) == "id" or normal(c) in SYNONYMS["id"]]
    lists = [
        f.name
        for f in table.schema
        if pa.types.is_list(f.type) or pa.types.is_fixed_size_list(f.type) or pa.types.is_large_list(f.type)
    ]
    if len(named) != 1 or not lists:
        raise BadInput(
            f"{file}: no column of ids and one of vectors", f"it has {', '.join(table.column_names)}; id, vector"
        )
    column = "vector" if "vector" in lists else lists[0]
    rows = table[column].to_pylist()
    widths = Counter(len(row) if row else 0 for row in rows)
    if len(widths) != 1:
        raise BadInput(f"{file}: vectors of {len(widths)} widths in {column}", "all of one width")
    return [str(i).strip() for i in table[named[0]].to_pylist()], np.asarray(rows, np.float32)


def _usable(ids: Sequence[str], vectors: np.ndarray, items: Items | None) -> tuple[list[str], np.ndarray, Counter[str], str]:  # fmt: skip
    """Return the vectors that can be compared, of unit length; count the others by reason, and name the first unknown item."""
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    dropped: Counter[str] = Counter()
    seen: dict[str, int] = {}
    strange = ""
    for row, name in enumerate(ids):
        if not np.isfinite(lengths[row]):
            dropped["not finite"] += 1
        elif lengths[row] == 0:
            dropped["of length 0"] += 1
        elif items is not None and name not in items:
            dropped[UNLISTED] += 1
            strange = strange or name
        elif name in seen:
            dropped["an id again"] += 1
        else:
            seen[name] = row
    rows = list(seen.values())
    return list(seen), vectors[rows] / lengths[rows, None], dropped, strange


def _write(
    file: Path, ids: list[str], vectors: np.ndarray, top: int, bounds: tuple[float, float | None],
    progress: Callable[[int, int, str], None] | None,
) -> int:  # fmt: skip
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = np.asarray(ids, object)
    schema = pa.schema([("query", pa.string()), ("target", pa.string()), ("score", pa.float64())])
    written, most = 0, min(top, len(ids) - 1)
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(ids), BLOCK):
            scores = vectors[start : start + BLOCK] @ vectors.T
            rows = np.arange(len(scores))[:, None]
            scores[rows[:, 0], start + rows[:, 0]] = -np.inf
            found = np.argpartition(-scores, most - 1, axis=1)[:, :most]
            found = found[rows, np.argsort(-scores[rows, found], axis=1, kind="stable")]
            best = scores[rows, found].astype(np.float64)
            keep = (best > 0) & (best >= bounds[0]) & (best <= (np.inf if bounds[1] is None else bounds[1]))
            queries = np.broadcast_to(names[start : start + len(scores), None], found.shape)[keep]
            columns = [pa.array(queries, pa.string()), pa.array(names[found][keep], pa.string()), pa.array(best[keep])]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            written += int(keep.sum())
            if progress:
                progress(min(start + BLOCK, len(ids)), len(ids), "")
    return written
