"""Positive pairs: two id columns, header optional."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from n2kit.data.items import jsonl_rows, opened, parquet_rows, settle
from n2kit.errors import BadInput

# A first row of such words, none of them an item's id, is a header.
_HEADER = re.compile(
    r"(query|target|left|right|source|anchor|positive|item|note|product|doc|id)s?[ _-]?(id|[ab12])?", re.I
)
_NAMES = (("query", "target"), ("left", "right"), ("anchor", "positive"), ("source", "target"))


@dataclass
class Pairs:
    """Pairs in file order, with what was dropped from them when reading leniently."""

    pairs: list[tuple[str, str]]
    dropped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    def graph(self) -> dict[str, set[str]]:
        """Id → its known positives, in both directions."""
        out: dict[str, set[str]] = defaultdict(set)
        for left, right in self.pairs:
            out[left].add(right)
            out[right].add(left)
        return dict(out)

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.pairs).encode()).hexdigest()[:16]


def read_pairs(path: Path, known: Container[str], *, lenient: bool = False) -> Pairs:
    """Read pairs whose ids are all `known`.

    Raises:
        BadInput: no such file; rows that are blank, not of two ids, unknown, or an item with itself, each with its line.
    """
    pairs: list[tuple[str, str]] = []
    problems: list[str] = []
    for count, (line, cells) in enumerate(_cells(path, problems)):
        if count == 0 and _is_header(cells, known):
            continue
        if not any(cells):
            problems.append(f"{path}:{line}: blank row")
        elif len(cells) < 2 or not (cells[0] and cells[1]):
            problems.append(f"{path}:{line}: expected two ids")
        elif unknown := [c for c in cells[:2] if c not in known]:
            problems.append(f"{path}:{line}: unknown id {unknown[0]!r}")
        elif cells[0] == cells[1]:
            problems.append(f"{path}:{line}: {cells[0]!r} is paired with itself")
        else:
            pairs.append((cells[0], cells[1]))
    settle(problems, lenient)
    if not pairs:
        raise BadInput(f"{path}: no pairs", "is this the right file?")
    return Pairs(pairs, problems)


def read_ids(path: Path, known: Container[str], *, lenient: bool = False) -> list[str]:
    """The first column of a file as ids, header optional; duplicates count once."""
    ids: dict[str, None] = {}
    problems: list[str] = []
    for count, (line, cells) in enumerate(_cells(path, problems)):
        if count == 0 and _is_header(cells, known):
            continue
        if not cells or not cells[0]:
            problems.append(f"{path}:{line}: blank row")
        elif cells[0] not in known:
            problems.append(f"{path}:{line}: unknown id {cells[0]!r}")
        else:
            ids[cells[0]] = None
    settle(problems, lenient)
    if not ids:
        raise BadInput(f"{path}: no ids", "is this the right file?")
    return list(ids)


def _is_header(cells: list[str], known: Container[str]) -> bool:
    return bool(cells) and not any(c in known for c in cells[:2]) and all(_HEADER.fullmatch(c) for c in cells[:2])


def _cells(path: Path, problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    if not path.is_file():
        raise BadInput(f"no pairs file {path}", "give a CSV, TSV, JSONL or Parquet file of two id columns")
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".jsonl", ".ndjson"):
        rows = parquet_rows(path) if suffix == ".parquet" else jsonl_rows(path, problems)
        for number, row in rows:
            names = next((n for n in _NAMES if set(n) <= set(row)), tuple(row))
            yield number, ["" if row[k] is None else str(row[k]).strip() for k in names]
        return
    with opened(path) as file:
        reader = csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",")
        order: tuple[int, ...] = ()
        for count, raw in enumerate(reader):
            cells = [c.strip() for c in raw]
            if count == 0:  # a header may name the columns in another order
                lower = [c.lower() for c in cells]
                order = next((tuple(map(lower.index, n)) for n in _NAMES if set(n) <= set(lower)), ())
            yield reader.line_num, [cells[i] for i in order] if order and len(cells) > max(order) else cells
