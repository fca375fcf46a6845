"""Pairs of items: two id columns, header optional; a third column, named in the header, may grade how alike they are."""

from __future__ import annotations

import csv
import hashlib
import json
import math
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
_GRADES = ("grade", "score", "similarity", "label")  # names of the third column
Row = tuple[int, list[str], str | None]  # line, ids, and the grade's text where there is such a column


@dataclass
class Pairs:
    """Pairs in file order, with what was dropped from them when reading leniently; `grades` of those that have one."""

    pairs: list[tuple[str, str]]
    dropped: list[str] = field(default_factory=list)
    grades: dict[tuple[str, str], float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    def graph(self) -> dict[str, set[str]]:
        """Id → its known positives, in both directions."""
        out: dict[str, set[str]] = defaultdict(set)
        for left, right in (p for p in self.pairs if self.grade(p) > 0):
            out[left].add(right)
            out[right].add(left)
        return dict(out)

    def grade(self, pair: tuple[str, str]) -> float:
        """How alike the two are: 1 where the file does not say."""
        return self.grades.get(pair, 1.0)

    def digest(self) -> str:
        facts = [[*pair, self.grades.get(pair)] for pair in self.pairs] if self.grades else self.pairs
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read_pairs(path: Path, known: Container[str], *, lenient: bool = False, graded: bool = False) -> Pairs:
    """Read pairs whose ids are all `known`.

    Args:
        graded: pairs graded 0 or less are wanted too, for a loss that reads grades; they are no positives.

    Raises:
        BadInput: no such file; rows that are blank, not of two ids, unknown, an item with itself, or with a grade that is no
            number or another one than before, each with its line.
    """
    pairs: list[tuple[str, str]] = []
    grades: dict[tuple[str, str], float] = {}
    problems: list[str] = []
    for line, cells, grade in _rows(path, known, problems):
        if (problem := _problem(cells, grade, known, grades)) is not None:
            problems.append(f"{path}:{line}: {problem}")
            continue
        if grade is not None and float(grade) <= 0 and not graded:
            problems.append(f"{path}:{line}: grade {grade}: not a pair of items that belong together")
            continue
        pairs.append((cells[0], cells[1]))
        if grade is not None:
            grades[pairs[-1]] = float(grade)
    settle(problems, lenient)
    if not pairs:
        raise BadInput(f"{path}: no pairs", "is this the right file?")
    return Pairs(pairs, problems, grades)


def _problem(
    cells: list[str], grade: str | None, known: Container[str], grades: dict[tuple[str, str], float]
) -> str | None:
    """Why a row is no pair."""
    if not any(cells):
        return "blank row"
    if len(cells) < 2 or not (cells[0] and cells[1]):
        return "expected two ids"
    if unknown := [c for c in cells[:2] if c not in known]:
        return f"unknown id {unknown[0]!r}"
    if cells[0] == cells[1]:
        return f"{cells[0]!r} is paired with itself"
    if grade is None:
        return None
    value = _number(grade)
    if value is None:
        return f"grade {grade!r} is no number"
    before = grades.get((cells[0], cells[1]), value)
    return None if before == value else f"grade {value:g} for a pair that had {before:g}"


def _number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_ids(path: Path, known: Container[str], *, lenient: bool = False) -> list[str]:
    """The first column of a file as ids, header optional; duplicates count once."""
    ids: dict[str, None] = {}
    problems: list[str] = []
    for line, cells, _ in _rows(path, known, problems):
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


def _rows(path: Path, known: Container[str], problems: list[str]) -> Iterator[Row]:
    """The rows of a file of any format, without its header."""
    if not path.is_file():
        raise BadInput(f"no pairs file {path}", "give a CSV, TSV, JSONL or Parquet file of two id columns")
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".jsonl", ".ndjson"):
        yield from _delimited(path, known)
        return
    for number, row in parquet_rows(path) if suffix == ".parquet" else jsonl_rows(path, problems):
        texts = {k: "" if v is None else str(v).strip() for k, v in row.items()}
        grade = next((k for k in texts if k.lower() in _GRADES), None)
        names = next((n for n in _NAMES if set(n) <= set(texts)), [k for k in texts if k != grade])
        yield number, [texts[k] for k in names], None if grade is None else texts[grade]


def _delimited(path: Path, known: Container[str]) -> Iterator[Row]:
    """A header may name the columns in another order, and one that grades."""
    with opened(path) as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        order: tuple[int, ...] = ()
        grade: int | None = None
        for count, raw in enumerate(reader):
            cells = [c.strip() for c in raw]
            if count == 0:
                lower = [c.lower() for c in cells]
                named = next((tuple(map(lower.index, n)) for n in _NAMES if set(n) <= set(lower)), ())
                if _is_header([cells[i] for i in named] or cells, known):
                    order, grade = named, next((i for i, name in enumerate(lower) if name in _GRADES), None)
                    continue
            ids = [cells[i] for i in order] if order and len(cells) > max(order) else cells
            graded = None if grade is None else "".join(cells[grade : grade + 1])
            yield reader.line_num, ids, graded
