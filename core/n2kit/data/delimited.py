"""CSV and its kin: the separator is found, quotes are checked, and a broken row loses itself alone."""

from __future__ import annotations

import contextlib
import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from n2kit.data.text_files import opened
from n2kit.errors import counted

SEPARATORS = (",", ";", "\t", "|")
NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars (|)"}
SAMPLE_LINES = 50
_EXCEL = re.compile(r"\ufeff?sep=([,;|:\t])\r?\n?", re.I)  # a first line that Excel writes and obeys

csv.field_size_limit(2**31 - 1)  # a cell may hold a whole page, or a picture

Rows = Iterator[tuple[int, list[str]]]
Fits = Callable[[list[list[str]]], bool]


def usual_separator(path: Path) -> str:
    """Return the separator that a file's ending names."""
    return "\t" if {".tsv", ".tab"} & set(map(str.lower, path.suffixes)) else ","


def delimited_rows(path: Path, encoding: str | None, fits: Fits, problems: list[str], notes: list[str]) -> Rows:
    """Yield the rows of a file as cells, each with the number of its last line.

    Args:
        fits: tells whether the first rows, cut at a separator, are what is looked for. The ending's own is tried first.
        problems: takes the rows that cannot be read. notes: a separator that the ending does not name.
    """
    with opened(path, encoding) as file:
        sample = list(islice(file, SAMPLE_LINES))
        usual = usual_separator(path)
        number = 0
        if sample and (excel := _EXCEL.fullmatch(sample[0])):
            separator, number = excel[1], 1
            del sample[0]
        else:
            separator = sniff(sample, usual, fits)
        if separator != usual:
            notes.append(f"{path}: read as separated by {NAMES.get(separator, repr(separator))}")
        # A TSV has no quotes, so that 24" stays what it is.
        quoted = not (separator == usual == "\t")
        yield from cell_rows(chain(sample, file), path, separator, quoted, problems, number)


def sniff(sample: list[str], usual: str, fits: Fits) -> str:
    """Choose the first separator whose rows fit; if none does, the one that cuts the first row into most cells."""
    cut = {}
    for separator in dict.fromkeys((usual, *SEPARATORS)):
        rows: list[list[str]] = []
        cut[separator] = rows
        with contextlib.suppress(csv.Error):
            rows.extend(csv.reader(sample, delimiter=separator))
        if rows and fits(rows):
            return separator
    most = max((len(rows[0]) if rows else 0 for rows in cut.values()), default=0)
    return next((s for s, rows in cut.items() if rows and len(rows[0]) == most), usual)


def cell_rows(
    lines: Iterable[str], path: Path, separator: str, quoted: bool, problems: list[str], number: int = 0
) -> Rows:
    """Yield rows of cells; one with a wrong quote is a problem of its first line, and reading goes on at the line after that.

    Without `quoted`, a quote is a character like any other. `number`: of the line before the first.
    """
    source = _Lines(lines, number)
    how = {"delimiter": separator, **({"strict": True} if quoted else {"quoting": csv.QUOTE_NONE})}
    reader = csv.reader(source, **how)  # type: ignore[arg-type]
    begin = source.row.clear
    width = None
    while True:
        begin()
        first = source.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = "a quote is opened and never closed" if "end of data" in str(error) else error
            problems.append(f"{path}:{first}: not readable as CSV: {reason}")
            source.return_to(first)
            reader = csv.reader(source, **how)  # type: ignore[arg-type]
            continue
        width = len(cells) if width is None else width
        if first < source.broken_until and len(cells) != width:  # a piece of the broken row looks like a row
            problems.append(
                f"{path}:{first}: not readable as CSV: {len(cells)} of {width} fields, behind a broken quote"
            )
            continue
        yield source.number, cells


def surplus_cells(cells: list[str], width: int) -> str | None:
    """Return the reason why a row is none of a header of `width` names: there is something beyond its last column."""
    if not any(cell.strip() for cell in cells[width:]):
        return None
    return f"{counted(len(cells), 'field')}, the header has {width}; quote a field that holds the separator"


class _Lines:
    """Numbered lines, of which those of the row that is being read can be read once more."""

    def __init__(self, lines: Iterable[str], number: int) -> None:
        self.lines, self.number = iter(lines), number
        self.row: list[str] = []
        self.again: deque[str] = deque()
        self.broken_until = 0  # the last line of a row with a wrong quote

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self.lines)
        self.row.append(line)
        self.number += 1
        return line

    def return_to(self, number: int) -> None:
        """Go back to the line after `number`, which began the row."""
        self.broken_until = max(self.broken_until, self.number + 1)
        self.again.extendleft(reversed(self.row[1:]))
        self.number = number


def notellm_rows(
    path: Path, encoding: str | None, columns: tuple[str, ...], problems: list[str], notes: list[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of the paper's own CSV, which has no header. Surplus commas of a row belong to its content."""
    with opened(path, encoding) as file:
        reader = csv.reader(file)
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in row):
                yield reader.line_num, {}
            elif len(row) < len(columns):
                problems.append(f"{where}: {counted(len(row), 'field')}, expected {len(columns)}")
            else:
                if len(row) > len(columns):
                    notes.append(f"{where}: {len(row)} fields; the surplus commas were read as content")
                content = ",".join(row[2:-2])
                yield reader.line_num, dict(zip(columns, [*row[:2], content, *row[-2:]], strict=True))
