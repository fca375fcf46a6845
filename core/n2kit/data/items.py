"""Items of a catalogue, from CSV, TSV, JSONL, Parquet or the paper's own headerless CSV."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from n2kit.errors import BadInput
from n2kit.utils.digests import file_digests
from n2kit.utils.files import parse_json

FIELDS = ("id", "image", "title", "topics", "content", "category")
NOTELLM_COLUMNS = ("id", "title", "content", "image", "category")
_BY_SIZE = re.compile("[0-9a-f]{16}")  # a digest of images as versions before made it
SHOWN = 10  # problems named in full; the rest are counted
NumberedRow = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True)
class Item:
    """One item: an id, and whatever else it has. `image` is a path relative to the images folder."""

    id: str
    image: str = ""
    title: str = ""
    topics: tuple[str, ...] = ()
    content: str = ""
    category: str = ""

    @property
    def has_text(self) -> bool:
        return bool(self.title or self.topics or self.content)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Item:
        """Make an item from a mapping with any of the field names; unknown keys are left out.

        Raises:
            BadInput: no id, or topics that are no texts.
        """
        text = {k: _text(row.get(k)) for k in FIELDS if k != "topics"}
        if not text["id"]:
            raise BadInput("no id", "every item needs one")
        return cls(**text, topics=_topics(row.get("topics")))


def without_image(item: Item) -> Item:
    return replace(item, image="")


def without_text(item: Item) -> Item:
    return replace(item, title="", topics=(), content="", category="")


@dataclass
class Items:
    """A catalogue in file order; `dropped` from it when reading leniently, `notes` on rows that were repaired."""

    items: list[Item]
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.position = {item.id: i for i, item in enumerate(self.items)}

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __getitem__(self, item_id: str) -> Item:
        return self.items[self.position[item_id]]

    def __contains__(self, item_id: object) -> bool:
        return item_id in self.position

    def without(self, what: Literal["image", "text"]) -> Items:
        """Copy the catalogue without images or without texts; an item that has nothing else keeps it."""
        take = {"image": without_image, "text": without_text}[what]
        return Items([take(item) if item.image and item.has_text else item for item in self.items])

    def digest(self) -> str:
        """Hash the content, which identifies a catalogue."""
        text = "\n".join(json.dumps(asdict(i), sort_keys=True, ensure_ascii=False) for i in self.items)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def images_digest(items: Iterable[Item], folder: Path | None) -> str:
    """Hash the content of all items' image files, which identifies a folder of images wherever it lies."""
    names = [item.image for item in items]
    paths = [folder / name for name in names if name] if folder is not None else []
    contents = file_digests(paths)
    digest = hashlib.sha256()
    for name in names:
        found = next(contents) if name and folder is not None else None
        digest.update(json.dumps([name, found]).encode())
    return f"content:{digest.hexdigest()[:16]}"


def is_of_sizes(digest: object) -> bool:
    """Tell whether a digest of images was made by a version that hashed the sizes of the files, and not their content."""
    return isinstance(digest, str) and _BY_SIZE.fullmatch(digest) is not None


OF_SIZES = "was written by an earlier version, which could not tell images of the same size from each other"


def read_items(
    path: str | Path, *, columns: Mapping[str, str] | None = None, notellm: bool = False, lenient: bool = False
) -> Items:
    """Read a catalogue.

    Args:
        columns: field → the file's own column name (`--map title=name`).
        notellm: the paper's headerless CSV: id, title, content, image, category.
        lenient: drop what cannot be used instead of refusing the file.

    Raises:
        BadInput: no such file or format; or rows without id, blank rows, duplicate ids, each with its line.
    """
    path, columns = Path(path), dict(columns or {})
    if unknown := set(columns) - set(FIELDS):
        raise BadInput(f"--map {unknown.pop()}=…: no such field", f"fields: {', '.join(FIELDS)}")
    items: list[Item] = []
    problems: list[str] = []
    notes: list[str] = []
    seen: dict[str, int] = {}
    for line, row in _rows(path, notellm, columns, problems, notes):
        item_id = _text(row.get("id"))
        if not any(_text(v) for v in row.values()):
            problems.append(f"{path}:{line}: blank row")
        elif (field_name := _misfit(row)) is not None:
            problems.append(f"{path}:{line}: {field_name} is a {type(row[field_name]).__name__}, not a text")
        elif not item_id:
            problems.append(f"{path}:{line}: no id")
        elif item_id in seen:
            problems.append(f"{path}:{line}: duplicate id {item_id!r}, first on line {seen[item_id]}")
        else:
            seen[item_id] = line
            try:
                items.append(Item.of(row))
            except BadInput as problem:
                problems.append(f"{path}:{line}: {problem.message}")
    raise_row_errors(problems, lenient)
    if not items:
        raise BadInput(f"{path}: no items", "is this the right file?")
    return Items(items, problems, notes)


def raise_row_errors(problems: list[str], lenient: bool) -> None:
    """Refuse the file for its problems, unless they may be dropped."""
    if problems and not lenient:
        shown = "\n".join(problems[:SHOWN])
        more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise BadInput(
            f"{len(problems)} unusable row{'s' * (len(problems) > 1)}\n{shown}{more}",
            "correct them, or --lenient drops them",
        )


def _rows(
    path: Path, notellm: bool, columns: Mapping[str, str], problems: list[str], notes: list[str]
) -> Iterable[NumberedRow]:
    if not path.is_file():
        raise BadInput(f"no items file {path}", "give a CSV, TSV, JSONL or Parquet file")
    if notellm:
        return _notellm(path, problems, notes)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        rows = _delimited(path, problems)
    elif suffix in (".jsonl", ".ndjson"):
        rows = jsonl_rows(path, problems)
    elif suffix == ".parquet":
        wanted = {columns.get(name, name) for name in FIELDS}
        rows = parquet_rows(path, lambda names: [name for name in names if name in wanted])
    else:
        known = ".csv, .tsv, .jsonl, .ndjson, .parquet"
        raise BadInput(f"{path}: unknown format {suffix or '(no ending)'}", f"known: {known}")
    return _renamed(rows, columns, path)


def _renamed(rows: Iterable[NumberedRow], columns: Mapping[str, str], path: Path) -> Iterator[NumberedRow]:
    """Rename the columns of rows to field names. A requested column, or `id`, that no row has is an error of the file."""
    wanted = {columns.get("id", "id"), *columns.values()}
    seen: dict[str, None] = {}
    for line, row in rows:
        seen.update(dict.fromkeys(k for k in row if k))
        yield line, {name: row.get(columns.get(name, name)) for name in FIELDS}
    if seen and (missing := sorted(wanted - set(seen))):
        have = ", ".join(seen)
        raise BadInput(f"{path}:1: no column {', '.join(missing)}", f"it has {have}; rename with --map id=COLUMN")


def cells_of(file: TextIO, path: Path) -> Any:
    """Make a `csv.reader`. A TSV has no quotes; in a CSV a quote that is never closed is an error, and does not swallow the rest."""
    if path.suffix.lower() == ".tsv":
        return csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(file, strict=True)


def _delimited(path: Path, problems: list[str]) -> Iterator[NumberedRow]:
    with opened(path) as file:
        reader = cells_of(file, path)
        header = [name.strip() for name in next(reader, [])]
        if repeated := next((n for n, count in Counter(header).items() if count > 1), None):
            raise BadInput(f"{path}:1: two columns are called {repeated!r}", "rename one of them")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                yield reader.line_num, {}
            elif len(cells) > len(header):
                what = f"{len(cells)} fields, the header has {len(header)}; quote a field that holds the separator"
                problems.append(f"{path}:{reader.line_num}: {what}")
            else:
                yield reader.line_num, dict(zip(header, cells, strict=False))


def jsonl_rows(path: Path, problems: list[str]) -> Iterator[NumberedRow]:
    """Yield JSON objects with their line numbers; a blank line is an empty row, a broken one a problem."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                yield number, {}
                continue
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
        wanted: of the file's columns, those to read; the others are null in every row. What nobody uses may be of any type.

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
    if repeated := next((name for name, count in Counter(names).items() if count > 1), None):
        raise BadInput(f"{path}: two columns are called {repeated!r}", "rename one of them")
    nothing = dict.fromkeys(names)
    number = 0
    try:
        for batch in table.iter_batches(columns=wanted(names)):
            for row in _values(batch, path, number):
                number += 1
                yield number, nothing | row
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: damaged after row {number}: {error}".splitlines()[0], "write the file again") from None


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


def _notellm(path: Path, problems: list[str], notes: list[str]) -> Iterator[NumberedRow]:
    """Yield the rows of the paper's CSV. Surplus commas of a row belong to its content."""
    with opened(path) as file:
        reader = csv.reader(file)
        for row in reader:
            if not any(cell.strip() for cell in row):
                yield reader.line_num, {}
            elif len(row) < len(NOTELLM_COLUMNS):
                problems.append(f"{path}:{reader.line_num}: {len(row)} fields, expected {len(NOTELLM_COLUMNS)}")
            else:
                if len(row) > len(NOTELLM_COLUMNS):
                    notes.append(
                        f"{path}:{reader.line_num}: {len(row)} fields; the surplus commas were read as content"
                    )
                content = ",".join(row[2:-2])
                yield reader.line_num, dict(zip(NOTELLM_COLUMNS, [*row[:2], content, *row[-2:]], strict=True))


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open a text file as UTF-8, with or without a byte-order mark.

    Raises:
        BadInput: a byte that is not UTF-8, or a row that the csv module cannot read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError:
        lines = path.read_bytes().split(b"\n")
        line = next((n for n, text in enumerate(lines, 1) if not _is_utf8(text)), 1)
        raise BadInput(f"{path}:{line}: not UTF-8", "save the file as UTF-8") from None
    except csv.Error as error:
        raise BadInput(f"{path}: not readable as CSV: {error}", "check its quotes and line ends") from None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf8")
    except UnicodeDecodeError:
        return False
    return True


def _text(value: Any) -> str:
    """Convert a value to text: empty for null and NaN, U+FFFD for half a character."""
    if value is None or value != value:
        return ""
    return str(value).encode("utf8", "replace").decode().strip()


def _misfit(row: Mapping[str, Any]) -> str | None:
    """Return the first field of a row whose value is no text, or None."""
    return next((k for k, v in row.items() if k != "topics" and isinstance(v, dict | list | bytes)), None)


def _topics(value: Any) -> tuple[str, ...]:
    """Parse topics: a list, a JSON list, or text separated by `|`, `,`, `，` or `;`.

    Raises:
        BadInput: they are no texts.
    """
    if isinstance(value, str):
        if value.startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                value = value.strip("[]").replace("'", "").replace('"', "")
            except RecursionError:
                raise BadInput("topics are nested too deep", 'write them as a|b, or as ["a", "b"]') from None
        if isinstance(value, str):
            for separator in "，;,":
                value = value.replace(separator, "|")
            value = value.split("|")
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        value = [value]
    if (odd := next((t for t in value if isinstance(t, dict | list | tuple | bytes)), None)) is not None:
        raise BadInput(f"topics hold a {type(odd).__name__}, not a text", 'write them as a|b, or as ["a", "b"]')
    return tuple(dict.fromkeys(t for t in map(_text, value) if t))
