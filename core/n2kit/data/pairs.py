"""Pairs of items: two id columns, header optional. Columns named in the header may grade a pair, and name its hard negatives."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from n2kit.data.column_map import FILE, lost_files, mapped_columns
from n2kit.data.items import CORRECT, Items, nothing_left, raise_row_errors, row_errors
from n2kit.data.pair_columns import FIELDS, log_of_users
from n2kit.data.pair_rows import PairRow, Places, given_rows, pair_rows
from n2kit.errors import SHOWN, BadInput, alike

Pair = tuple[str, str]
MOSTLY = 0.9  # of the rows: a log may have a few of items that are gone


@dataclass
class Pairs:
    """Pairs in file order, with what was dropped from them when reading leniently.

    `grades` of those that have one; `negatives`, hard ones: items that are near a pair's first item, and do not belong to it.
    `unread`: columns of the file that mean nothing here; `notes`: what a reader has guessed; `strange`: the first unknown ids.
    """

    pairs: list[Pair]
    dropped: list[str] = field(default_factory=list)
    grades: dict[Pair, float] = field(default_factory=dict)
    negatives: dict[Pair, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    strange: tuple[str, ...] = ()

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
    path: str | Path,
    known: Container[str],
    *,
    columns: Mapping[str, str] | None = None,
    lenient: bool = False,
    graded: bool = False,
    negatives: bool = False,
    encoding: str | None = None,
) -> Pairs:
    """Read pairs whose ids are all `known`.

    >>> len(n2kit.read_pairs("train.csv", n2kit.read_items("items.jsonl")))
    8

    Args:
        columns: query, target, grade or negatives → the file's own column name (`--map query=left_sku`).
        graded: pairs graded 0 or less are wanted too, for a loss that reads grades; they are no positives.
        negatives: hard negatives are wanted too; without it their columns are passed over.
        encoding: of a text file that is not UTF-8, and has no byte-order mark.

    Raises:
        BadInput: no such file; a log of users and items; rows that are blank, not of two ids, unknown, an item with itself, or with a
            grade that is no number or another one than before, each with its line; and rows with a negative that is unknown, an item
            of the pair itself, or known to belong to its first item.
    """
    path, columns = Path(path), dict(columns or {})
    if wrong := set(columns) - set(FIELDS):
        raise BadInput(f"--map {wrong.pop()}=…: no such field of pairs", f"fields: {', '.join(FIELDS)}")
    mapped = {name: column for name, column in mapped_columns(path, FIELDS).items() if name not in columns}
    columns = mapped | columns
    problems: list[str] = []
    notes = [f"{path.name}: {', '.join(f'{c} read as {f}' for f, c in mapped.items())} ({FILE})"] if mapped else []
    notes += lost_files(path, unless_named=True)
    found = pair_rows(path, known, columns, encoding, problems, notes)
    return _checked(found, Places(str(path), ":{}", CORRECT), known, problems, notes, lenient, graded, negatives)


def given_pairs(rows: Iterable[Any], known: Container[str]) -> Pairs:
    """Make pairs of tuples of two ids, or of a table's rows by their columns' names; where those say nothing, the first two are ids.

    Raises:
        BadInput: what `read_pairs` raises of a file, each with its place; a row that is neither.
    """
    if not (rows := list(rows)):
        raise BadInput("no pairs", "give at least one")
    places = Places("pairs", "[{}]", "correct them, or leave them out")
    return _checked(given_rows(rows, places), places, known, [], [], False, True, True)


def _checked(
    found: Iterable[PairRow], places: Places, known: Container[str], problems: list[str], notes: list[str],
    lenient: bool, graded: bool, negatives: bool,
) -> Pairs:  # fmt: skip
    """Make pairs of rows.

    Raises:
        BadInput: what `read_pairs` raises.
    """
    grades: dict[Pair, float] = {}
    rows: list[tuple[PairRow, Pair]] = []
    unread: dict[str, None] = {}
    shapes = Counter[tuple[bool, ...]]()  # rows by which ids are known, under no names that say that all are items
    strange: dict[str, None] = {}
    beside: dict[str, None] = {}  # of them, those beside one that is known
    for row in found:
        if row.unread:
            unread |= dict.fromkeys(row.unread)
        if (problem := _problem(row.ids, row.grade, known, grades)) is not None:
            problems.append(f"{places.at(row.line)}: {problem}")
            there = tuple(item_id in known for item_id in row.ids)
            shapes[there] += not row.sure
            unknown = {item_id: None for item_id, here in zip(row.ids, there, strict=True) if item_id and not here}
            strange |= unknown
            beside |= unknown if any(there) else {}
            continue
        if row.grade is not None and float(row.grade) <= 0 and not graded:
            problems.append(f"{places.at(row.line)}: grade {row.grade}: not a pair of items that belong together")
            continue
        pair = (row.ids[0], row.ids[1])
        rows.append((row, pair))
        if row.grade is not None:
            grades[pair] = float(row.grade)
    single = max(shapes[True, False], shapes[False, True])
    is_log = not rows and single > 1 and single >= MOSTLY * len(problems)
    likely = likely_ids(strange, known) if not rows or not lenient else ""  # it looks through all that are known
    if is_log and not likely:
        raise log_of_users(places.of, None, None, list(beside))
    pairs = Pairs([pair for _, pair in rows], problems, grades, unread=tuple(unread), notes=notes)
    pairs.strange = tuple(islice(strange, SHOWN))
    if negatives:
        pairs = _with_negatives(pairs, rows, places, known)
    if problems and not lenient:
        raise row_errors(problems, likely + places.advice)
    if not len(pairs):
        raise nothing_left(places.of, "pairs", problems, likely)
    return pairs


def read_ids(
    path: str | Path, known: Container[str], *, lenient: bool = False, encoding: str | None = None
) -> list[str]:
    """Read the first column of a file as ids, header optional; duplicates count once."""
    path = Path(path)
    ids: dict[str, None] = {}
    problems: list[str] = []
    strange: dict[str, None] = {}
    for line, cells, *_ in pair_rows(path, known, {}, encoding, problems, [], need=1):
        if not cells or not cells[0]:
            problems.append(f"{path}:{line}: blank row")
        elif cells[0] not in known:
            problems.append(f"{path}:{line}: unknown id {cells[0]!r}")
            strange[cells[0]] = None
        else:
            ids[cells[0]] = None
    likely = likely_ids(strange, known) if not ids or not lenient else ""
    raise_row_errors(problems, lenient, likely)
    if not ids:
        raise nothing_left(path, "ids", problems, likely)
    return list(ids)


def likely_ids(strange: Iterable[str], known: Container[str]) -> str:
    """Write which ids of the catalogue the first unknown ones may be: a spreadsheet takes leading zeros away."""
    names: Any = known.position if isinstance(known, Items) else known
    for item_id in islice(strange, SHOWN) if isinstance(names, Iterable) else ():
        if near := alike(item_id, names):
            return f"{item_id!r} may be {near[0]!r}; "
    return ""


def _with_negatives(pairs: Pairs, rows: list[tuple[PairRow, Pair]], places: Places, known: Container[str]) -> Pairs:
    """Add the negatives of rows to pairs, and drop rows with a wrong negative. It comes last, since it needs all positives."""
    graph = pairs.graph()
    kept: list[Pair] = []
    found: dict[Pair, dict[str, None]] = defaultdict(dict)
    for row, pair in rows:
        ids = [i for cell in row.negatives for i in _ids(cell, known)]
        if (problem := _no_negative(ids, pair, graph.get(pair[0], set()), known)) is not None:
            pairs.dropped.append(f"{places.at(row.line)}: {problem}")
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
