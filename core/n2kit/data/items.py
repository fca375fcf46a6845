"""Items of a catalogue, from a file of any format or from a program's own objects."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from n2kit.data.columns import FIELDS as FIELDS
from n2kit.data.item import Item as Item
from n2kit.data.item import item_of as item_of
from n2kit.data.item import without_image as without_image
from n2kit.data.item import without_text as without_text
from n2kit.data.item_stream import ColumnsChangedError, ItemStream
from n2kit.data.items_read import ItemsRead
from n2kit.errors import BadInput, counted

SHOWN = 10  # problems named in full; the rest are counted
CORRECT = "correct them, or --lenient drops them"


@dataclass(repr=False)
class Items(ItemsRead):
    """A catalogue in file order, with what `ItemsRead` says of it."""

    items: list[Item]
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    propose: str | None = None
    several: int = 0
    mapped: tuple[str, ...] = ()

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


def read_items(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    format: str = "auto",
    lenient: bool = False,
    encoding: str | None = None,
) -> Items:
    """Read a catalogue: CSV with any separator, TSV, JSON, JSON lines or Parquet; text also compressed by gzip.

    >>> n2kit.read_items("items.jsonl")
    <24 items · 24 with a picture, 24 with a title, 24 with topics>

    Args:
        columns: field → the file's own column name (`--map title=name`), over those of a `columns.yaml` beside the file. Usual other
            names are known, in letters of any case.
        format: `notellm`, the paper's headerless CSV: id, title, content, image, category; a plug-in's, such as `sqlite`; or
            `auto`: by the file.
        lenient: drop what cannot be used instead of refusing the file.
        encoding: of a text file that is not UTF-8, and has no byte-order mark.

    Raises:
        BadInput: no such file or format; two columns that may be one field; or rows without id, blank rows, duplicate ids, each
            with its line.
    """
    stream = ItemStream(Path(path), columns=columns, format=format, encoding=encoding)
    items: list[Item] | None = None
    while items is None:
        with contextlib.suppress(ColumnsChangedError):
            items = list(stream)
    check_rows(stream, lenient)
    return Items(
        items, stream.dropped, stream.notes, stream.columns, stream.unread, stream.propose, stream.several, stream.mapped
    )  # fmt: skip


def check_rows(stream: ItemStream, lenient: bool) -> None:
    """Check what a pass over a file has found.

    Raises:
        BadInput: rows that cannot be used, unless `lenient`; no items at all.
    """
    raise_row_errors(stream.dropped, lenient)
    if not len(stream):
        raise nothing_left(stream.path, "items", stream.dropped)


def raise_row_errors(problems: list[str], lenient: bool, remark: str = "") -> None:
    """Refuse the file for its problems, unless they may be dropped; `remark`: what is likely, said in the hint."""
    if problems and not lenient:
        raise row_errors(problems, remark + CORRECT)


def row_errors(problems: list[str], hint: str) -> BadInput:
    """Make the error of rows that cannot be used, of which the first are shown."""
    shown = "\n".join(problems[:SHOWN])
    more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return BadInput(f"{counted(len(problems), 'unusable row')}\n{shown}{more}", hint)


def nothing_left(path: Path | str, what: str, dropped: list[str], remark: str = "") -> BadInput:
    """Make the error of a file of which nothing is left: there was nothing in it, or every row was dropped."""
    if not dropped:
        return BadInput(f"{path}: no {what}", "is this the right file?")
    rows = f"{counted(len(dropped), 'row')} dropped, the first: {dropped[0]}"
    return BadInput(f"{path}: no {what} that can be used: {rows}", f"{remark}correct them; or is this another file?")
