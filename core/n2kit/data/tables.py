"""Rows of a file of any format, each with its number: delimited text, JSON, JSON lines or Parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from n2kit.data.text_files import first_bytes, opened
from n2kit.errors import BadInput
from n2kit.utils.files import parse_json

NumberedRow = tuple[int, Mapping[str, Any]]
Kind = Literal["delimited", "jsonl", "json", "parquet"]
KINDS: dict[str, Kind] = {
    ".csv": "delimited", ".tsv": "delimited", ".tab": "delimited", ".txt": "delimited", ".psv": "delimited", ".dat": "delimited",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
# What is surely no text that is cut at separators, whatever else an ending may mean.
REFUSED = {
    ".xlsx", ".xls", ".ods", ".numbers", ".pkl", ".pickle", ".npy", ".npz", ".feather", ".arrow", ".orc", ".avro", ".h5", ".hdf5",
    ".xml", ".html", ".yaml", ".yml", ".zip", ".7z", ".tar", ".zst", ".bz2", ".xz", ".db", ".sqlite", ".pt", ".safetensors", ".pdf",
}  # fmt: skip
PAGES = (b"<!do", b"<htm", b"<?xm")  # first bytes
KNOWN = ".csv, .tsv, .txt, .jsonl, .ndjson, .json, also with .gz, and .parquet"


def kind_of(path: Path) -> Kind:
    """Tell a file's format by its ending, and what only looks like it by its first bytes; any other ending is text.

    Raises:
        BadInput: none that is read.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in REFUSED:
        hint = "save it as CSV" if suffix in (".xlsx", ".xls", ".ods", ".numbers") else f"known: {KNOWN}"
        raise BadInput(f"{path}: unknown format {suffix}", hint)
    kind = KINDS.get(suffix, "delimited")
    start = first_bytes(path)
    if start == b"PAR1":
        return "parquet"
    if kind != "parquet" and start == b"PK\x03\x04":
        raise BadInput(
            f"{path}: a zip file or an Excel workbook, and no {suffix or 'table'}", "unpack it, or save it as CSV"
        )
    if kind != "parquet" and start.lower() in PAGES:
        what = f"{path}: a page of HTML or XML, and no {suffix or 'table'}"
        raise BadInput(what, "get the file itself: behind a login, a download is often the page that asks for it")
    return kind


def is_text(path: Path) -> bool:
    """Tell by a file's name whether it is of a known format of text, which has an encoding."""
    return KINDS.get(Path(path.name.lower().removesuffix(".gz")).suffix, "parquet") != "parquet"


def ensure_parquet_name(file: Path) -> None:
    """Check that a file of Parquet is not to be called as one of another format.

    Raises:
        BadInput: it is.
    """
    unpacked = file.with_suffix("") if file.suffix.lower() == ".gz" else file
    suffix = unpacked.suffix.lower()
    if suffix in REFUSED or is_text(file):
        hint = f"{unpacked.with_suffix('.parquet')}; pandas, polars and DuckDB make another format of it"
        raise BadInput(f"{file}: Parquet is written here, and no {suffix}", hint)


def json_rows(path: Path, encoding: str | None, problems: list[str]) -> Iterator[NumberedRow]:
    """Yield the objects of a JSON array, numbered from 1; a file of JSON lines under that name is read as such.

    Raises:
        BadInput: another document than an array.
    """
    with opened(path, encoding) as file:
        text = file.read()
    if text.lstrip().startswith("{"):
        lines = text.strip().splitlines()
        if len(lines) > 1 and lines[0].rstrip().endswith("}"):
            yield from jsonl_rows(path, encoding, problems)
            return
    document = parse_json(text, path, hint="a JSON array of objects: [{…}, {…}]")
    if not isinstance(document, list):
        what = f"{path}: a JSON {'object' if isinstance(document, dict) else 'value'}, and no array of objects"
        raise BadInput(what, 'write [{"id": …}, …], or one object a line as .jsonl (pandas: orient="records")')
    for number, row in enumerate(document, 1):
        if isinstance(row, dict):
            yield number, row
        else:
            problems.append(f"{path}:{number}: not a JSON object")


def jsonl_rows(path: Path, encoding: str | None, problems: list[str]) -> Iterator[NumberedRow]:
    """Yield JSON objects with their line numbers; a blank line is an empty row, a broken one a problem."""
    with opened(path, encoding) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                yield number, {}
                continue
            if number == 1 and line.strip() in ("[", "[{"):
                yield from json_rows(path, encoding, problems)
                return
            if number == 1 and line.strip() == "{":
                what = f"{path}: an object over several lines, and not one a line"
                raise BadInput(what, 'one line for each, or a .json with an array: [{"id": …}, …]')
            try:
                row = parse_json(line, path, line=number)
            except BadInput as problem:
                problems.append(problem.message)
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                problems.append(f"{path}:{number}: not a JSON object")


def parquet_rows(path: Path, wanted: Callable[[list[str]], list[str]]) -> Iterator[NumberedRow]:
    """Yield the rows of a Parquet file with their numbers from 1, a batch in memory at a time.

    Args:
        wanted: of the file's columns, those to read. What nobody uses may be of any type.

    Raises:
        BadInput: no Parquet file, a damaged one, or a value that cannot be read, with its row and column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        names = [str(name) for name in table.schema_arrow.names]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{path}: not a Parquet file: {error}".splitlines()[0], "check the file") from None
    check_names(names, str(path))
    number = 0
    try:
        for batch in table.iter_batches(columns=wanted(names)):
            for row in _values(batch, path, number):
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: damaged after row {number}: {error}".splitlines()[0], "write the file again") from None


def parquet_schema(path: Path) -> Any:
    """Read the schema of a Parquet file.

    Raises:
        BadInput: no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{path}: not a Parquet file: {error}".splitlines()[0], "check the file") from None


def check_names(names: list[str], where: str) -> None:
    """Refuse a header that names two columns alike; nameless ones are no columns that anybody could mean.

    Raises:
        BadInput: with the name.
    """
    if repeated := next((name for name, count in Counter(names).items() if name and count > 1), None):
        raise BadInput(f"{where}: two columns are called {repeated!r}", "rename one of them")


def _values(batch: Any, path: Path, before: int) -> list[dict[str, Any]]:
    """Convert a batch of Arrow to Python rows; `before` it there were so many.

    Raises:
        BadInput: a value that Python cannot hold, such as a date after 9999 or a text that is no UTF-8.
    """
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except Exception:  # whatever a type's conversion raises; found again value by value, to say where
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            for n, value in enumerate(column):
                try:
                    value.as_py()
                except Exception as error:
                    what = f"{path}: row {before + n + 1}, column {name!r}: {error}".splitlines()[0]
                    raise BadInput(what, "write the column as text") from None
        raise
    return rows
