"""Files of a log, of any format: each as a table that DuckDB reads, or as rows of our own reader where its reader gives up."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from n2kit.data.delimited import SAMPLE_LINES, delimited_rows, sniff, usual_separator
from n2kit.data.tables import Kind, json_rows, jsonl_rows, kind_of, parquet_schema
from n2kit.data.text_files import GZIP, opened
from n2kit.data.values import id_of
from n2kit.errors import BadInput
from n2kit.mining.engine import column, quoted, tables
from n2kit.mining.event_columns import FIELDS, EventColumns, find_columns

BATCH = 50_000  # rows of our own reader at a time
FIRST = 100  # objects of JSON whose keys are the columns


@dataclass
class EventFile:
    """A file of a log, and the columns that are read from it. separator: of delimited text."""

    path: Path
    kind: Kind
    columns: EventColumns
    types: dict[str, str] = field(default_factory=dict)  # of Parquet's columns: number, time, or text
    header: list[str] = field(default_factory=list)
    separator: str = ","

    @property
    def table(self) -> str:
        """Return the file as a table of SQL, as DuckDB's own readers read it."""
        if self.kind == "parquet":
            return tables(self.path)
        packed = "gzip" if _is_gzip(self.path) else "none"
        if self.kind == "jsonl":
            wanted = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in dict.fromkeys(self.named.values()))
            how = f"format='newline_delimited', compression='{packed}', columns={{{wanted}}}"
            return f"read_json({quoted(self.path)}, {how})"
        quote = "" if self.separator == "\t" == usual_separator(self.path) else '"'
        columns = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in self.header)
        how = f"auto_detect=false, header=true, delim={quoted(self.separator)}, quote='{quote}', escape='{quote}'"
        return f"read_csv({quoted(self.path)}, {how}, compression='{packed}', strict_mode=true, columns={{{columns}}})"

    @property
    def is_plain(self) -> bool:
        """Tell whether DuckDB has a reader for it that reads what ours does; a JSON array is read whole by ours."""
        return self.kind in ("parquet", "jsonl") or (
            self.kind == "delimited" and len(set(self.header)) == len(self.header)
        )

    @property
    def named(self) -> dict[str, str]:
        """Map the fields that the file has to their columns."""
        return {name: found for name in FIELDS if (found := getattr(self.columns, name)) is not None}

    def select(self) -> str:
        """Write the query of the file's events, every field a text but times and numbers of Parquet."""
        parts = [f"{self._cell(name)} AS {name}_" for name in FIELDS]
        return f"SELECT {', '.join(parts)} FROM {self.table}"

    def _cell(self, name: str) -> str:
        if name not in self.named:
            return "NULL"
        cell = column(self.named[name])
        kind = self.types.get(name)
        if kind == "float" and name in ("user", "item"):  # pandas makes floats of ids where one is missing
            whole = f"{cell} = floor({cell}) AND abs({cell}) < 9e15"
            return f"CASE WHEN {whole} THEN CAST(CAST({cell} AS BIGINT) AS VARCHAR) ELSE CAST({cell} AS VARCHAR) END"
        if kind == "time" and name == "time":
            return f"CAST({cell} AS TIMESTAMP)"
        if self.kind == "jsonl" and name in ("user", "item"):
            return rf"regexp_replace({cell}, '^(\d{{1,15}})\.0$', '\1')"
        return f"CAST({cell} AS VARCHAR)"


def find_files(patterns: Iterable[str | Path]) -> list[Path]:
    """List the files that paths, patterns and folders name, each once, in order.

    Raises:
        BadInput: one of them names none.
    """
    found: dict[Path, None] = {}
    for pattern in map(str, patterns):
        path = Path(pattern)
        if path.is_dir():
            names = sorted(path.rglob("*"))
        else:
            names = [path] if path.exists() else sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207
        files = [f for f in names if f.is_file() and not f.name.startswith((".", "_"))]
        if not files:
            raise BadInput(f"no events file {pattern}", "give CSV, TSV, JSONL or Parquet files, or a pattern in quotes")
        found |= dict.fromkeys(files)
    return list(found)


def column_names(path: Path, encoding: str | None) -> list[str]:
    """List the columns of a table: the names in its first row, the keys of its first objects, or those of Parquet's schema.

    Raises:
        BadInput: a format that is not read, or no Parquet file.
    """
    kind = kind_of(path)
    if kind == "parquet":
        return [str(name) for name in parquet_schema(path).names]
    if kind == "delimited":
        first = next(iter(delimited_rows(path, encoding, lambda rows: len(rows[0]) > 1, [], [])), None)
        return [] if first is None else _names(first[1])
    rows = (jsonl_rows if kind == "jsonl" else json_rows)(path, encoding, [])
    return list(dict.fromkeys(name for _, row in islice(rows, FIRST) for name in row))


def open_events(path: Path, asked: Mapping[str, str], encoding: str | None) -> EventFile:
    """Look at the first rows of a file: its format, separator and columns.

    Raises:
        BadInput: no rows, an unknown format, or no columns of a user and an item.
    """
    kind = kind_of(path)
    if kind == "parquet":
        return _open_parquet(path, asked)
    if kind == "delimited":
        with opened(path, encoding) as file:
            sample = list(islice(file, SAMPLE_LINES))
        if not sample:
            raise BadInput(f"{path}: no events: the file is empty", "is this the right file?")
        separator = sniff(sample, usual_separator(path), lambda rows: _fits(rows[0], asked))
        (_, cells), *_ = delimited_rows(path, encoding, lambda rows: _fits(rows[0], asked), [], [])
        header = _names(cells)
        return EventFile(path, kind, find_columns(header, asked, f"{path}:1"), {}, header, separator)
    names = column_names(path, encoding)
    if not names:
        raise BadInput(f"{path}: no events: no object with keys", "one JSON object a line")
    return EventFile(path, kind, find_columns(names, asked, str(path)))


def own_rows(file: EventFile, encoding: str | None, unreadable: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield batches of a file's events by our own reader, which names each row that it cannot read."""
    rows = iter(_own_rows(file, encoding, unreadable))
    while batch := list(islice(rows, BATCH)):
        yield batch


def _own_rows(file: EventFile, encoding: str | None, unreadable: list[str]) -> Iterator[dict[str, Any]]:
    if file.kind != "delimited":
        for _, row in (jsonl_rows if file.kind == "jsonl" else json_rows)(file.path, encoding, unreadable):
            if row:
                yield {name: _text(row.get(found)) for name, found in file.named.items()}
        return
    place = {name: file.header.index(found) for name, found in file.named.items()}
    rows = delimited_rows(file.path, encoding, lambda rows: _names(rows[0]) == file.header, unreadable, [])
    for number, (line, cells) in enumerate(rows):
        if number == 0 or not cells:
            continue
        if len(cells) != len(file.header):
            unreadable.append(f"{file.path}:{line}: {len(cells)} of {len(file.header)} fields")
            continue
        yield {name: cells[n] for name, n in place.items()}


def _names(cells: list[str]) -> list[str]:
    return [name.strip().lstrip("\ufeff") for name in cells]


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, dict | list) else id_of(value)


def _fits(header: list[str], asked: Mapping[str, str]) -> bool:
    try:
        find_columns(_names(header), asked, "")
    except BadInput as problem:
        return "which?" in problem.message
    return True


def _open_parquet(path: Path, asked: Mapping[str, str]) -> EventFile:
    import pyarrow as pa

    schema = parquet_schema(path)
    found = EventFile(path, "parquet", find_columns(map(str, schema.names), asked, str(path)))
    for name, source in found.named.items():
        kind = schema.field(source).type
        if pa.types.is_nested(kind):
            raise BadInput(f"{path}: column {source}: a {kind}, and no {name} of an event", f"--map {name}=COLUMN")
        is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        found.types[name] = "time" if is_time else "float" if pa.types.is_floating(kind) else "other"
    return found


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == GZIP
