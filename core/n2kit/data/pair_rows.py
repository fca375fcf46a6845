"""Rows of a pairs file of any format: two ids each, with a grade and hard negatives where there are such columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from n2kit.data.delimited import Rows, delimited_rows, surplus_cells
from n2kit.data.pair_columns import PairColumns, check_ids, holding_ids, is_header, is_named
from n2kit.data.tables import NumberedRow, json_rows, jsonl_rows, kind_of, parquet_rows
from n2kit.data.text_files import encoding_notes
from n2kit.data.values import id_of, is_null
from n2kit.errors import BadInput

SAMPLE = 20  # rows that say which columns hold ids


class PairRow(NamedTuple):
    """A line of a file: its ids, and its grade as a text and its negatives where there are such columns."""

    line: int
    ids: list[str]
    grade: str | None = None
    negatives: tuple[Any, ...] = ()  # the columns' cells: texts of one or several ids, or lists of them
    unread: tuple[str, ...] = ()  # names of the other columns
    sure: bool = False  # the names of the ids' columns say that they hold them


class Places(NamedTuple):
    """Where rows are, for messages: `of` a file or a table, and how its n-th row is written: `train.csv:3`, `pairs[3]`.

    advice: what is to be done about rows that cannot be used.
    """

    of: str
    row: str
    advice: str

    def at(self, number: int) -> str:
        return self.of + self.row.format(number)


def given_rows(rows: Iterable[Any], places: Places) -> Iterator[PairRow]:
    """Yield the rows of pairs that a program gives: tuples of two ids, or dicts, whose columns' names say what they hold.

    Raises:
        BadInput: a row is neither; a log of users and items.
    """
    kinds: dict[tuple[str, ...], PairColumns] = {}
    for number, row in enumerate(rows):
        if isinstance(row, Mapping):
            cells = {str(name): _plain_value(value) for name, value in row.items()}
            names = tuple(cells)
            if names not in kinds:
                kinds[names] = PairColumns.of(names, {})
                check_ids(kinds[names], names, places.at(number), {}, sure=False)
            yield _by_name(number, cells, kinds[names])
            continue
        ids = (
            [id_of(_plain_value(one)) for one in row] if isinstance(row, Iterable) and not isinstance(row, str) else []
        )
        if len(ids) != 2:
            raise BadInput(
                f"{places.at(number)} is {str(row)[:60]}",
                "two ids; or a dict, whose names say what is a grade or a negative",
            )
        yield PairRow(number, ids, sure=True)


def _plain_value(value: Any) -> Any:
    """Return a value of a table as Python's own: pandas has arrays for lists, and NaN for nothing."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    return None if not isinstance(plain, list) and is_null(plain) else plain


def pair_rows(
    path: Path,
    known: Container[str],
    asked: Mapping[str, str],
    encoding: str | None,
    problems: list[str],
    notes: list[str],
    need: int = 2,
) -> Iterator[PairRow]:
    """Yield the rows of a file without its header.

    Args:
        asked: field → column, as `--map` has it. need: ids in a row: 2 of a pair, 1 of a list of ids.
    """
    if not path.is_file():
        raise BadInput(f"no pairs file {path}", "give a CSV, TSV, JSONL or Parquet file of two id columns")
    kind = kind_of(path)
    if kind != "parquet":
        notes += encoding_notes(path, encoding)
    if kind == "delimited":

        def fits(rows: list[list[str]]) -> bool:
            rows = [[c.strip() for c in row] for row in rows[:SAMPLE]]
            return is_named(rows[0]) or len(holding_ids(range(len(rows[0])), rows, known)) >= need  # type: ignore[arg-type]

        rows = delimited_rows(path, encoding, fits, problems, notes)
        yield from _by_position(rows, path, known, asked, problems, notes, need)
    elif kind == "parquet":
        columns: list[PairColumns] = []

        def wanted(names: list[str]) -> list[str]:
            columns.append(_named(names, asked, f"{path}", need))
            return [name for name in names if name not in columns[0].unread]

        for number, row in parquet_rows(path, wanted):
            yield _by_name(number, row, columns[0])
    else:
        yield from _of_objects(
            (jsonl_rows if kind == "jsonl" else json_rows)(path, encoding, problems), path, asked, need
        )


def _named(names: list[str], asked: Mapping[str, str], where: str, need: int) -> PairColumns:
    columns = PairColumns.of(names, asked, need=need)
    if need == 2:
        check_ids(columns, names, where, asked, sure=True)
    return columns


def _of_objects(rows: Iterator[NumberedRow], path: Path, asked: Mapping[str, str], need: int) -> Iterator[PairRow]:
    """Yield the rows of JSON objects, each by its own names; where none has two for the ids, the file is refused."""
    names: dict[str, None] = {}
    kinds: dict[tuple[str, ...], PairColumns] = {}
    for number, row in rows:
        keys = tuple(row)
        if (columns := kinds.get(keys)) is None:
            names.update(dict.fromkeys(row))
            columns = PairColumns.of(row, asked, need=need)
            kinds[keys] = columns if columns.sure else columns._replace(ids=columns.ids[:1])
        yield _by_name(number, row, kinds[keys])
    if names and need == 2:
        named = any(columns.sure for columns in kinds.values())
        check_ids(PairColumns.of(names, asked), list(names), str(path), asked, sure=not named)


def _by_name(number: int, row: Mapping[str, Any], columns: PairColumns) -> PairRow:
    texts = [id_of(row.get(name)) for name in columns.ids]
    grade = None if columns.grade is None or columns.grade not in row else _text(row[columns.grade])
    return PairRow(
        number, texts, grade, tuple(row.get(name) for name in columns.negatives), columns.unread, columns.sure
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _by_position(
    rows: Rows, path: Path, known: Container[str], asked: Mapping[str, str], problems: list[str], notes: list[str], need: int
) -> Iterator[PairRow]:  # fmt: skip
    """Yield the rows of delimited text, whose header may name the id columns in another order, a grade, and negatives."""
    first = [(line, [c.strip() for c in cells]) for line, cells in islice(rows, SAMPLE)]
    sample = [cells for _, cells in first]
    order, grade, against, unread = (0, 1), None, [], ()  # type: tuple[int, ...], int | None, list[int], tuple[str, ...]
    sure, width = False, 0
    if sample and (asked or is_header(sample[0], sample[1:], known, need)):
        header = first.pop(0)[1]
        width = len(header)
        order, grade, against, unread, sure = _header(header, sample[1:], path, known, asked, notes, need)
    elif sample:
        unread = tuple(f"column {n}, which no header names" for n in range(need + 1, len(sample[0]) + 1))
    most = max(order)
    for line, raw in chain(first, rows):
        cells = [c.strip() for c in raw]
        if width and (surplus := surplus_cells(cells, width)) is not None:
            problems.append(f"{path}:{line}: {surplus}")
            continue
        ids = [_plain(cells[i], known) for i in order] if len(cells) > most else cells[:1]
        graded = None if grade is None else "".join(cells[grade : grade + 1])
        yield PairRow(line, ids, graded, tuple(cells[i] for i in against if i < len(cells)), unread, sure)


def _header(
    header: list[str],
    sample: list[list[str]],
    path: Path,
    known: Container[str],
    asked: Mapping[str, str],
    notes: list[str],
    need: int,
) -> tuple[tuple[int, ...], int | None, list[int], tuple[str, ...], bool]:
    """Find the positions of ids, grade and negatives in a header, the names of what is not read, and whether it names the ids."""
    lower = [name.lower() for name in header]
    if repeated := next((n for n, times in Counter(lower).items() if n and times > 1), None):
        raise BadInput(f"{path}:1: two columns are called {repeated!r}", "rename one of them")
    columns = PairColumns.of(header, asked, holding_ids(header, sample, known), need)
    if need == 2:
        check_ids(columns, header, f"{path}:1", asked, sure=False)
    if len(header) > 1 and not is_named(header) and not asked:
        notes.append(f"{path}:1: {', '.join(header[:2])}: taken for a header, and not for a pair")
        if list(columns.ids) != header[: len(columns.ids)]:
            notes.append(f"{path}:1: the ids are read from {' and '.join(columns.ids)}")
    order = tuple(header.index(name) for name in columns.ids)[:need] or (0,)
    grade = None if columns.grade is None else header.index(columns.grade)
    return order, grade, [header.index(name) for name in columns.negatives], columns.unread, columns.sure


def _plain(cell: str, known: Container[str]) -> str:
    """Return an id that pandas wrote as a float, `12.0`, as what it was."""
    return cell[:-2] if cell.endswith(".0") and cell not in known and cell[:-2] in known else cell
