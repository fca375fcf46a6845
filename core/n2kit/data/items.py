"""Items of a catalogue, from a file of any format or from a program's own objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from n2kit.data.columns import FIELDS as FIELDS
from n2kit.data.columns import Columns, fields_of, proposal
from n2kit.data.delimited import delimited_rows, notellm_rows
from n2kit.data.image_source import image_of, stored_image
from n2kit.data.tables import NumberedRow, check_names, json_rows, jsonl_rows, kind_of, parquet_rows
from n2kit.data.values import field_text, text_of, topics_of
from n2kit.errors import BadInput

NOTELLM_COLUMNS = ("id", "title", "content", "image", "category")
SHOWN = 10  # problems named in full; the rest are counted


@dataclass(frozen=True)
class Item:
    """One item: an id, and whatever else it has. `image` is a path relative to the images folder, or holds an image itself."""

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
        """Make an item from a mapping with any of the fields' names, or synonyms of them.

        The image may be a path, a URL, bytes, a data URI, an image of Pillow, or an array [H, W, 3] of 8 bits.

        Raises:
            BadInput: no id, an unknown key, or a value that is no text.
        """
        return item_of(fields_of(row, f"item {row['id']!r}" if "id" in row else "an item"))


def item_of(row: Mapping[str, Any]) -> Item:
    """Make an item from field → value, of which any may be missing.

    Raises:
        BadInput: no id, or a value that is no text.
    """
    get = row.get
    item_id = field_text("id", get("id"))
    if not item_id:
        raise BadInput("no id", "every item needs one")
    return Item(
        item_id, image_of(get("image")), field_text("title", get("title")), topics_of(get("topics")),
        field_text("content", get("content")), field_text("category", get("category")),
    )  # fmt: skip


def without_image(item: Item) -> Item:
    return replace(item, image="")


def without_text(item: Item) -> Item:
    return replace(item, title="", topics=(), content="", category="")


@dataclass(repr=False)
class Items:
    """A catalogue in file order.

    dropped: rows left out when reading leniently. notes: what the reader took for granted. columns: fields that were read from a
    column of another name. unread: columns that were not read; propose: the `--map` that one of them may want.
    """

    items: list[Item]
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    propose: str | None = None

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

    def __repr__(self) -> str:
        return f"<{self.summary()}>"

    def without(self, what: Literal["image", "text"]) -> Items:
        """Copy the catalogue without images or without texts; an item that has nothing else keeps it."""
        take = {"image": without_image, "text": without_text}[what]
        return Items([take(item) if item.image and item.has_text else item for item in self.items])

    def digest(self) -> str:
        """Hash the content, which identifies a catalogue."""
        text = "\n".join(json.dumps(asdict(i), sort_keys=True, ensure_ascii=False) for i in self.items)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def counts(self) -> dict[str, int]:
        """Count the items that have each field but the id."""
        return {name: sum(bool(getattr(item, name)) for item in self.items) for name in FIELDS[1:]}

    def facts(self) -> dict[str, Any]:
        """Say what was read, as under `--json`: items, counts by field, columns, unread columns, dropped rows, notes."""
        read = {"items": len(self), "with": self.counts(), "columns": self.columns, "not_read": list(self.unread)}
        return read | {"dropped": len(self.dropped), "notes": self.notes}

    def summary(self) -> str:
        """Say in one line how many items have what, which columns were taken for it, and which were not read."""
        count = self.counts()
        parts = [f"{len(self):,} item{'s' * (len(self) != 1)}"]
        had = f"{count['image']:,} with a picture, {count['title']:,} with a title, {count['topics']:,} with topics"
        parts.append(had + f", {count['content']:,} with content" * bool(count["content"]))
        if self.columns:
            parts.append(", ".join(f"{column} read as {name}" for name, column in self.columns.items()))
        if self.unread:
            parts.append(f"not read: {', '.join(self.unread)}" + (f" ({self.propose})" if self.propose else ""))
        return " · ".join(parts)


def read_items(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    notellm: bool = False,
    lenient: bool = False,
    encoding: str | None = None,
) -> Items:
    """Read a catalogue: CSV with any separator, TSV, JSON, JSON lines or Parquet; text also compressed by gzip.

    >>> n2kit.read_items("items.jsonl")
    <24 items · 24 with a picture, 24 with a title, 24 with topics>

    Args:
        columns: field → the file's own column name (`--map title=name`). Usual other names are known, in letters of any case.
        notellm: the paper's headerless CSV: id, title, content, image, category.
        lenient: drop what cannot be used instead of refusing the file.
        encoding: of a text file that is not UTF-8, and has no byte-order mark.

    Raises:
        BadInput: no such file or format; two columns that may be one field; or rows without id, blank rows, duplicate ids, each
            with its line.
    """
    path, columns = Path(path), dict(columns or {})
    if unknown := set(columns) - set(FIELDS):
        raise BadInput(f"--map {unknown.pop()}=…: no such field", f"fields: {', '.join(FIELDS)}")
    if not path.is_file():
        raise BadInput(f"no items file {path}", "give a CSV, TSV, JSONL or Parquet file")
    found, read = Columns(columns, f"{path}:1"), None
    while read is None:
        read = _read(path, notellm, encoding, found)
    if found.names:
        found.check()
    raise_row_errors(read.dropped, lenient)
    if not len(read):
        raise BadInput(f"{path}: no items", "is this the right file?")
    return read


def _read(path: Path, notellm: bool, encoding: str | None, found: Columns) -> Items | None:
    """Read all rows; None where a late row has a name that counts more than the synonym which was read till then."""
    items: list[Item] = []
    problems: list[str] = []
    notes: list[str] = []
    seen: dict[str, int] = {}
    first: Mapping[str, Any] = {}
    for line, row in _rows(path, notellm, encoding, found, problems, notes):
        if not row.keys() <= found.names.keys() and found.learn(row):
            return None
        first = first or row
        fields = {name: row.get(column) for name, column in found.sources.items()}
        try:
            if not isinstance(image := fields.get("image"), str | None):
                fields["image"] = stored_image(image)
            item = item_of(fields)
        except BadInput as problem:
            blank = not any(map(text_of, fields.values()))
            problems.append(f"{path}:{line}: {'blank row' if blank else problem.message}")
            continue
        if item.id in seen:
            problems.append(f"{path}:{line}: duplicate id {item.id!r}, first on line {seen[item.id]}")
            continue
        seen[item.id] = line
        items.append(item)
    return Items(items, problems, notes, found.renamed, found.unread, proposal(found.sources, found.unread, first))


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
    path: Path, notellm: bool, encoding: str | None, found: Columns, problems: list[str], notes: list[str]
) -> Iterable[NumberedRow]:
    """Open a file of any format; what has a header teaches `found` its names at once."""
    if notellm:
        found.learn(NOTELLM_COLUMNS)
        return notellm_rows(path, encoding, NOTELLM_COLUMNS, problems, notes)
    kind = kind_of(path)
    if kind == "delimited":
        return _delimited(path, encoding, found, problems, notes)
    if kind == "parquet":
        return parquet_rows(path, lambda names: _learnt(found, names))
    return (jsonl_rows if kind == "jsonl" else json_rows)(path, encoding, problems)


def _learnt(found: Columns, names: list[str]) -> list[str]:
    """Learn the names of a header; return those that are read."""
    found.learn(names)
    found.check()
    return list(dict.fromkeys(found.sources.values()))


def _delimited(
    path: Path, encoding: str | None, found: Columns, problems: list[str], notes: list[str]
) -> Iterator[NumberedRow]:
    """Yield the rows of delimited text by the names of its header."""
    header: list[str] = []
    for line, cells in delimited_rows(path, encoding, partial(_has_id, found.asked), problems, notes):
        if not header:
            header = [name.strip().lstrip("\ufeff") for name in cells]
            check_names(header, f"{path}:1")
            _learnt(found, header)
        elif not any(cell.strip() for cell in cells):
            yield line, {}
        elif len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            what = f"{len(cells)} fields, the header has {len(header)}; quote a field that holds the separator"
            problems.append(f"{path}:{line}: {what}")
        else:
            yield line, dict(zip(header, cells, strict=False))


def _has_id(asked: Mapping[str, str], rows: list[list[str]]) -> bool:
    """Tell whether a first row is a header with a column for the id."""
    columns = Columns(asked, "")
    try:
        columns.learn(name.strip() for name in rows[0])
    except BadInput:  # two of them: no other separator would find more
        return True
    return columns.sources.get("id") in columns.names
