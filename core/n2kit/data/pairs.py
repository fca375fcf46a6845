"""Pairs of items: two id columns, header optional. Columns named in the header may grade a pair, and name its hard negatives."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from n2kit.data.items import cells_of, jsonl_rows, opened, parquet_rows, raise_row_errors
from n2kit.errors import BadInput
from n2kit.utils.files import atomic_write

# A first row of such words, none of them an item's id, is a header.
_HEADER = re.compile(
    r"(query|target|left|right|source|anchor|positive|item|note|product|doc|id)s?[ _-]?(id|[ab12])?", re.I
)
_NAMES = (("query", "target"), ("left", "right"), ("anchor", "positive"), ("source", "target"))
_GRADES = ("grade", "score", "similarity", "label")  # names of the column that grades
_NEGATIVES = re.compile(r"(hard[ _-]?)?negatives?([ _-]?ids?)?([ _-]?\d+)?", re.I)  # there may be several such columns
Pair = tuple[str, str]


class PairRow(NamedTuple):
    """A line of a file: its ids, and its grade as a text and its negatives where there are such columns."""

    line: int
    ids: list[str]
    grade: str | None = None
    negatives: tuple[Any, ...] = ()  # the columns' cells: texts of one or several ids, or lists of them
    unread: tuple[str, ...] = ()  # names of the other columns


@dataclass
class Pairs:
    """Pairs in file order, with what was dropped from them when reading leniently.

    `grades` of those that have one; `negatives`, hard ones: items that are near a pair's first item, and do not belong to it.
    `unread`: columns of the file that mean nothing here; `notes`: what a reader has guessed.
    """

    pairs: list[Pair]
    dropped: list[str] = field(default_factory=list)
    grades: dict[Pair, float] = field(default_factory=dict)
    negatives: dict[Pair, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def graph(self) -> dict[str, set[str]]:
        """Map each id to its known positives, in both directions."""
        out: dict[str, set[str]] = defaultdict(set)
        for left, right in (p for p in self.pairs if self.grade(p) > 0):
            out[left].add(right)
            out[right].add(left)
        return dict(out)

    def grade(self, pair: Pair) -> float:
        """Return the grade of a pair: 1 where the file has none."""
        return self.grades.get(pair, 1.0)

    def digest(self) -> str:
        facts: list[Any] = [[*pair, self.grades.get(pair)] for pair in self.pairs] if self.grades else list(self.pairs)
        if self.negatives:
            facts.append([self.negatives.get(pair) for pair in self.pairs])
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read_pairs(
    path: str | Path, known: Container[str], *, lenient: bool = False, graded: bool = False, negatives: bool = False
) -> Pairs:
    """Read pairs whose ids are all `known`.

    Args:
        graded: pairs graded 0 or less are wanted too, for a loss that reads grades; they are no positives.
        negatives: hard negatives are wanted too; without it their columns are passed over.

    Raises:
        BadInput: no such file; rows that are blank, not of two ids, unknown, an item with itself, or with a grade that is no
            number or another one than before, each with its line; and rows with a negative that is unknown, an item of the pair
            itself, or known to belong to its first item.
    """
    path = Path(path)
    grades: dict[Pair, float] = {}
    problems: list[str] = []
    rows: list[tuple[PairRow, Pair]] = []
    unread: dict[str, None] = {}
    notes: list[str] = []
    for row in _rows(path, known, problems, notes):
        unread |= dict.fromkeys(row.unread)
        if (problem := _problem(row.ids, row.grade, known, grades)) is not None:
            problems.append(f"{path}:{row.line}: {problem}")
            continue
        if row.grade is not None and float(row.grade) <= 0 and not graded:
            problems.append(f"{path}:{row.line}: grade {row.grade}: not a pair of items that belong together")
            continue
        pair = (row.ids[0], row.ids[1])
        rows.append((row, pair))
        if row.grade is not None:
            grades[pair] = float(row.grade)
    pairs = Pairs([pair for _, pair in rows], problems, grades, unread=tuple(unread), notes=notes)
    if negatives:
        pairs = _with_negatives(pairs, rows, path, known)
    raise_row_errors(problems, lenient)
    if not len(pairs):
        raise BadInput(f"{path}: no pairs", "is this the right file?")
    return pairs


WRITTEN = (".csv", ".tsv", ".jsonl")


def check_writable(path: Path, *, force: bool = False) -> None:
    """Check that `write_pairs` can write a file.

    Raises:
        BadInput: its format is none that is written, or it exists and `force` is not set.
    """
    if path.suffix.lower() not in WRITTEN:
        raise BadInput(f"{path}: pairs are written as {', '.join(WRITTEN)}", "give another -o")
    if path.is_dir() or (path.exists() and not force):
        raise BadInput(f"{path} exists", "give another -o" + ("" if path.is_dir() else ", or --force to replace it"))


def write_pairs(pairs: Pairs, path: Path) -> None:
    """Write a file that `read_pairs` reads: query, target, and grade and negatives where there are some.

    Raises:
        BadInput: an id that a TSV cannot hold.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf8", newline="") as file:
        if path.suffix.lower() == ".jsonl":
            for query, target in pairs:
                row: dict[str, Any] = {"query": query, "target": target}
                row |= {"grade": pairs.grade((query, target))} if pairs.grades else {}
                row["negatives"] = list(pairs.negatives.get((query, target), ()))
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            most = max((len(ids) for ids in pairs.negatives.values()), default=0)
            names = ["query", "target", *["grade"] * bool(pairs.grades), *(f"negative_{n + 1}" for n in range(most))]
            tab: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}  # as they are read
            writer = csv.writer(file, lineterminator="\n", **(tab if path.suffix.lower() == ".tsv" else {}))
            rows = (
                [*pair, *([pairs.grade(pair)] if pairs.grades else []), *pairs.negatives.get(pair, ())]
                for pair in pairs
            )
            try:
                writer.writerows([names, *([*row, *[""] * (len(names) - len(row))] for row in rows)])
            except csv.Error as error:
                raise BadInput(f"{path}: an id holds a tab or ends a line: {error}", "-o FILE.csv or .jsonl") from None


def _with_negatives(pairs: Pairs, rows: list[tuple[PairRow, Pair]], path: Path, known: Container[str]) -> Pairs:
    """Add the negatives of rows to pairs, and drop rows with a wrong negative. It comes last, since it needs all positives."""
    graph = pairs.graph()
    kept: list[Pair] = []
    found: dict[Pair, dict[str, None]] = defaultdict(dict)
    for row, pair in rows:
        ids = [i for cell in row.negatives for i in _ids(cell, known)]
        if (problem := _no_negative(ids, pair, graph.get(pair[0], set()), known)) is not None:
            pairs.dropped.append(f"{path}:{row.line}: {problem}")
            continue
        kept.append(pair)
        found[pair] |= dict.fromkeys(ids)
    return replace(pairs, pairs=kept, negatives={pair: tuple(ids) for pair, ids in found.items() if ids})


def _ids(cell: Any, known: Container[str]) -> list[str]:
    """Parse the ids in a cell: a list, one id, or several with `|` or spaces between them."""
    if isinstance(cell, list | tuple):
        return [text for i in cell if (text := "" if i is None else str(i).strip())]
    text = "" if cell is None else str(cell).strip()
    return [text] if text in known else [i for i in re.split(r"[|\s]+", text) if i]


def _no_negative(ids: list[str], pair: Pair, positives: set[str], known: Container[str]) -> str | None:
    """Return the reason why one of `ids` is no negative of a pair, whose first item has these `positives`; None if all are."""
    for i in ids:
        if i not in known:
            return f"unknown id {i!r} as a negative"
        if i in pair:
            return f"{i!r} is a negative of its own pair"
        if i in positives:
            return f"negative {i!r} is known to belong to {pair[0]!r}"
    return None


def _problem(cells: list[str], grade: str | None, known: Container[str], grades: dict[Pair, float]) -> str | None:
    """Return the reason why a row is no pair, or None."""
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
    """Parse a finite number; None if it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_ids(path: str | Path, known: Container[str], *, lenient: bool = False) -> list[str]:
    """Read the first column of a file as ids, header optional; duplicates count once."""
    path = Path(path)
    ids: dict[str, None] = {}
    problems: list[str] = []
    for line, cells, *_ in _rows(path, known, problems, []):
        if not cells or not cells[0]:
            problems.append(f"{path}:{line}: blank row")
        elif cells[0] not in known:
            problems.append(f"{path}:{line}: unknown id {cells[0]!r}")
        else:
            ids[cells[0]] = None
    raise_row_errors(problems, lenient)
    if not ids:
        raise BadInput(f"{path}: no ids", "is this the right file?")
    return list(ids)


def _is_header(cells: list[str], known: Container[str]) -> bool:
    return bool(cells) and not any(c in known for c in cells[:2]) and all(_HEADER.fullmatch(c) for c in cells[:2])


def _rows(path: Path, known: Container[str], problems: list[str], notes: list[str]) -> Iterator[PairRow]:
    """Yield the rows of a file of any format, without its header."""
    if not path.is_file():
        raise BadInput(f"no pairs file {path}", "give a CSV, TSV, JSONL or Parquet file of two id columns")
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".jsonl", ".ndjson"):
        yield from _delimited(path, known, notes)
        return
    if suffix == ".parquet":
        rows = parquet_rows(path, lambda names: [name for name in names if name not in _Columns.of(names).unread])
    else:
        rows = jsonl_rows(path, problems)
    for number, row in rows:
        columns = _Columns.of(row)
        texts = ["" if row[name] is None else str(row[name]).strip() for name in columns.ids]
        grade = None if columns.grade is None else "" if row[columns.grade] is None else str(row[columns.grade]).strip()
        yield PairRow(number, texts, grade, tuple(row[name] for name in columns.negatives), columns.unread)


class _Columns(NamedTuple):
    """The columns of a file by what they hold: two ids, a grade, hard negatives, or nothing that is read here."""

    ids: tuple[str, ...]
    grade: str | None
    negatives: tuple[str, ...]
    unread: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> _Columns:
        """Sort columns by their names; without two that are known, the first two hold the ids."""
        negatives = tuple(name for name in names if _NEGATIVES.fullmatch(name))
        others = [name for name in names if name not in negatives]
        grade = next((name for name in others if name.lower() in _GRADES), None)
        plain = tuple(name for name in others if name != grade)
        ids = next((n for n in _NAMES if set(n) <= set(plain)), plain[:2])
        return cls(ids, grade, negatives, tuple(name for name in plain if name not in ids))


def _delimited(path: Path, known: Container[str], notes: list[str]) -> Iterator[PairRow]:
    """Yield the rows of a CSV or TSV, whose header may name the id columns in another order, a grade, and negatives.

    A first row of no names that are read here is noted: it may have been a pair.
    """
    with opened(path) as file:
        reader = cells_of(file, path)
        order: tuple[int, ...] = ()
        grade: int | None = None
        against: list[int] = []
        unread: tuple[str, ...] = ()
        for count, raw in enumerate(reader):
            cells = [c.strip() for c in raw]
            if count == 0:
                lower = [c.lower() for c in cells]
                named = next((tuple(map(lower.index, n)) for n in _NAMES if set(n) <= set(lower)), ())
                if _is_header([cells[i] for i in named] or cells, known):
                    if repeated := next((n for n, times in Counter(lower).items() if n and times > 1), None):
                        raise BadInput(f"{path}:1: two columns are called {repeated!r}", "rename one of them")
                    if len(cells) > 1 and not named:
                        notes.append(f"{path}:1: {', '.join(cells[:2])}: taken for a header, and not for a pair")
                    order, grade = named, next((i for i, name in enumerate(lower) if name in _GRADES), None)
                    against = [i for i, name in enumerate(lower) if _NEGATIVES.fullmatch(name)]
                    read = {*(order or (0, 1)), grade, *against}
                    unread = tuple(name for i, name in enumerate(cells) if i not in read)
                    continue
                unread = tuple(f"column {n}, which no header names" for n in range(3, len(cells) + 1))
            ids = [cells[i] for i in order] if order and len(cells) > max(order) else cells
            graded = None if grade is None else "".join(cells[grade : grade + 1])
            yield PairRow(reader.line_num, ids, graded, tuple(cells[i] for i in against if i < len(cells)), unread)
