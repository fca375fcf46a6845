"""The results of a matrix, read from its folder: one row a cell, and the ranks beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from n2kit.bench.cell_row import DONE, FAILED, REFUSED, RERUN_HINT, CellRow, parse_row
from n2kit.errors import BadInput, counted
from n2kit.utils.files import parse_json, read_json

CELL = "cell.json"


class Ranking(NamedTuple):
    """Ranks [P] of the targets of `pairs` (sorted) among `pool` items; a tie counts as the worse rank."""

    pairs: tuple[tuple[str, str], ...]
    ranks: np.ndarray
    pool: int
    protocol: str


@dataclass
class Results:
    """The rows of one matrix on one data set.

    unfinished: cells that have a folder but no row yet, where no results.jsonl says which cells there are.
    notes: what was left out of `rows`, and why.
    """

    folder: Path
    rows: list[CellRow]
    unfinished: int = 0
    notes: list[str] = field(default_factory=list)
    env: dict[str, Any] = field(default_factory=dict)

    def of(self, *states: str) -> list[CellRow]:
        return [row for row in self.rows if row.state in states]

    @property
    def data(self) -> dict[str, Any]:
        """The digests of the data that all rows are about."""
        return next((row.data for row in self.rows if row.data), {})

    @property
    def counts(self) -> dict[str, int]:
        """State → how many cells, the finished states first."""
        counts = Counter(row.state for row in self.rows)
        known = {state: counts.pop(state) for state in (DONE, FAILED, REFUSED) if counts[state]}
        unfinished = sum(counts.values()) + self.unfinished
        return known | ({"unfinished": unfinished} if unfinished else {})


def read_results(folder: Path) -> Results:
    """Read the rows of a matrix: results.jsonl as it was last run, or without it what lies in `folder`/cells.

    Of two rows of one arm and seed the newer counts; so do the newest row's data.

    Raises:
        BadInput: no such folder; a damaged row or cell, with its file.
    """
    cells = folder / "cells"
    if not cells.is_dir():
        raise BadInput(f"no results in {folder}: it has no folder cells", "give the -o of n2kit bench")
    folders = [entry for entry in cells.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    files = [file for entry in folders if (file := entry / CELL).is_file()]
    listed = folder / "results.jsonl"
    rows = _listed(listed) if listed.is_file() else _found(files)
    unfinished = 0 if listed.is_file() else len(folders) - len(files)
    env = folder / "env.json"
    results = Results(folder, [], unfinished, env=read_json(env) if env.is_file() else {})
    if rows:
        _choose(results, rows)
    return results


def read_ranking(row: CellRow) -> Ranking:
    """Read the ranks of a finished cell.

    Raises:
        BadInput: the file is not there, or is not what `n2kit bench` writes.
    """
    file = row.ranks_file
    try:
        table = pq.read_table(file, columns=["query", "target", "rank"])
        ranks = table.column("rank").to_numpy()
    except FileNotFoundError:
        raise BadInput(f"{row.path}: done, but without {file.name}", RERUN_HINT) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{file}: no readable ranks: {error}".splitlines()[0], RERUN_HINT) from None
    pairs = list(zip(table.column("query").to_pylist(), table.column("target").to_pylist(), strict=True))
    if not pairs or not np.issubdtype(ranks.dtype, np.integer) or ranks.min() < 1:
        raise BadInput(f"{file}: no ranks from 1 upwards", RERUN_HINT)
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    meta = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    pool = meta.get("pool", "")
    return Ranking(
        tuple(pairs[n] for n in order), ranks[order], int(pool) if pool.isdigit() else 0, meta.get("protocol", "")
    )


def _listed(file: Path) -> list[CellRow]:
    """Read the rows of results.jsonl, with the names of the matrix that was run last; a last line that is cut short is dropped."""
    rows = []
    with file.open("rb") as lines:  # a text may hold what `splitlines` takes for the end of a line
        for number, line in enumerate(lines, 1):
            anew = "the same n2kit bench command writes it anew"
            try:
                raw = parse_json(line, file, line=number, hint=anew)
            except BadInput:
                if not line.endswith(b"\n"):
                    break
                raise
            if not isinstance(raw, dict):
                raise BadInput(f"{file}:{number}: not a JSON object", anew)
            rows.append(parse_row(raw, f"{file}:{number}", file.parent / "cells" / str(raw.get("key")) / CELL))
    return rows


def _found(files: list[Path]) -> list[CellRow]:
    """Read the rows of cells from their files, the oldest first."""
    ages = {file: file.stat().st_mtime_ns for file in files}
    return [parse_row(read_json(file), str(file), file) for file in sorted(files, key=lambda f: (ages[f], f))]


def _choose(results: Results, rows: Sequence[CellRow]) -> None:
    """Keep the newest of each arm and seed, of rows that stand oldest first, on the newest row's data."""
    newest = {(row.arm, row.seed): row for row in rows}
    last = next((row for row in reversed(rows) if row.data), rows[-1])
    same = [row for row in newest.values() if not row.data or _data_key(row) == _data_key(last)]
    if other := len(newest) - len(same):
        results.notes.append(f"left out: {counted(other, 'cell')} run on other data than the newest one")
    results.rows = sorted(same, key=lambda r: (r.arm, r.seed))


def _data_key(row: CellRow) -> str:
    return json.dumps(row.data, sort_keys=True)
