"""Items read from a file of any format, one after the other: a catalogue may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from n2kit.data.column_map import FILE, lost_files, mapped_columns
from n2kit.data.columns import FIELDS, Columns, proposal
from n2kit.data.delimited import delimited_rows, notellm_rows, surplus_cells
from n2kit.data.image_source import stored_image
from n2kit.data.item import Item, item_of
from n2kit.data.item_readers import AUTO, NOTELLM, item_reader, plugged_rows
from n2kit.data.items_read import ItemsRead
from n2kit.data.packed import is_packed, packed_rows
from n2kit.data.seen_ids import SeenIds
from n2kit.data.several_images import first_image
from n2kit.data.shards import shards_of
from n2kit.data.tables import NumberedRow, check_names, json_rows, jsonl_rows, kind_of, parquet_rows
from n2kit.data.tar_rows import tar_rows
from n2kit.data.text_files import encoding_notes
from n2kit.data.values import text_of
from n2kit.errors import BadInput

TITLES = 20  # lines above a header that are looked at
NOTELLM_COLUMNS = ("id", "title", "content", "image", "category")


class ColumnsChangedError(Exception):
    """A late row has a name that counts more than the synonym which was read till then: the next pass knows it from the start."""


class ItemStream(ItemsRead):
    """The items of a file, or of a folder of shards. Each pass reads it anew; after one, it says what was read, as `Items` does.

    Args:
        columns, format, encoding: as for `read_items`. every_column: also read those that are no field, for `pairs`.

    Raises:
        BadInput: no such file, or no such field.
        ColumnsChangedError (in a pass): what was yielded is void, and the pass has to begin anew.
    """

    def __init__(
        self,
        path: Path,
        *,
        columns: Mapping[str, str] | None = None,
        format: str = AUTO,
        encoding: str | None = None,
        every_column: bool = False,
    ) -> None:
        if unknown := set(columns or {}) - set(FIELDS):
            raise BadInput(f"--map {unknown.pop()}=…: no such field", f"fields: {', '.join(FIELDS)}")
        self.shards = shards_of(path)
        self.path, self.format, self.encoding = path, format, encoding
        self.reader = None if format == NOTELLM else item_reader(path, format)
        self.every_column = every_column
        known = {} if format == NOTELLM else mapped_columns(path, FIELDS)
        self.lost = lost_files(path)  # of the columns' file
        self.mapped = tuple(name for name in known if name not in (columns or {}))
        self.found = Columns(known | dict(columns or {}), f"{path}:1" + f", by {FILE}" * bool(self.mapped))
        self.had = dict.fromkeys(FIELDS, 0)  # items that have each field
        self.idle: set[str] = set()  # of `dropped`: blank rows and repeated ids, which hold no other item

    def __iter__(self) -> Iterator[Item]:
        """Read the file; rows that cannot be used are in `dropped`."""
        return (item for item, _ in self.pairs())

    def pairs(self) -> Iterator[tuple[Item, Mapping[str, Any]]]:
        """Read the file, each item with its whole row."""
        self.dropped, self.notes, self.had, self.several = [], [*self.lost], dict.fromkeys(FIELDS, 0), 0
        self.idle = set()
        seen, first, number = SeenIds(), dict[str, Any](), 0
        for shard in self.shards:
            for line, row in self._rows(shard):
                number = line if len(self.shards) == 1 else number + 1
                if not row.keys() <= self.found.names.keys() and self.found.learn(row):
                    raise ColumnsChangedError
                first = first or dict(row)
                if (made := self._item(f"{shard}:{line}", row)) is None:
                    continue
                item, images = made
                if (before := seen.first_line(item.id, number)) is not None:
                    where = f"on line {before}" if len(self.shards) == 1 else f"as item {before} of {self.path}"
                    self.dropped.append(f"{shard}:{line}: duplicate id {item.id!r}, first {where}")
                    self.idle.add(self.dropped[-1])
                    continue
                for name in FIELDS:
                    self.had[name] += bool(getattr(item, name))
                self.several += images > 1
                yield item, row
        if self.found.names:
            self.found.check()
        mapped = {name: self.found.asked[name] for name in self.mapped if self.found.asked[name] != name}
        self.columns, self.unread = mapped | self.found.renamed, self.found.unread
        self.propose = proposal(self.found.sources, self.unread, first)

    def __len__(self) -> int:
        return self.had["id"]

    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.had.items() if name != "id"}

    def _item(self, where: str, row: Mapping[str, Any]) -> tuple[Item, int] | None:
        """Make the item of a row that is `where`; also return how many images it came with. None for a row that cannot be used."""
        fields = {name: row.get(column) for name, column in self.found.sources.items()}
        try:
            image, count = first_image(fields.get("image"))
            fields["image"] = image if isinstance(image, str | None) else stored_image(image)
            return item_of(fields), count
        except BadInput as problem:
            blank = not any(map(text_of, row.values()))
            self.dropped.append(f"{where}: {'blank row' if blank else problem.message}")
            if blank:
                self.idle.add(self.dropped[-1])
            return None

    def _rows(self, path: Path) -> Iterable[NumberedRow]:
        """Open a file; what has a header teaches `found` its names at once."""
        if self.format == NOTELLM:
            self.notes += encoding_notes(path, self.encoding)
            self.found.learn(NOTELLM_COLUMNS)
            return notellm_rows(path, self.encoding, NOTELLM_COLUMNS, self.dropped, self.notes)
        if self.reader is not None:
            return plugged_rows(path, self.reader)
        if path.suffix.lower() == ".tar":
            return tar_rows(path, self.dropped)
        kind = kind_of(path)
        if kind != "parquet":
            self.notes += encoding_notes(path, self.encoding)
        if kind == "delimited":
            return _delimited(path, self.encoding, self.found, self.dropped, self.notes)
        if kind == "parquet":
            return (packed_rows if is_packed(path) else parquet_rows)(path, self._wanted)
        return (jsonl_rows if kind == "jsonl" else json_rows)(path, self.encoding, self.dropped)

    def _wanted(self, names: list[str]) -> list[str]:
        """Choose the columns of a Parquet file that are read: what nobody uses may be of any type.

        Raises:
            ColumnsChangedError: a later shard has a column that counts more than the one that was read till then.
        """
        if self.found.learn(names):
            raise ColumnsChangedError
        self.found.check()
        return names if self.every_column else list(dict.fromkeys(self.found.sources.values()))


def _delimited(
    path: Path, encoding: str | None, found: Columns, problems: list[str], notes: list[str]
) -> Iterator[NumberedRow]:
    """Yield the rows of delimited text by the names of its header."""
    header: list[str] = []
    rows = delimited_rows(path, encoding, partial(_has_id, found.asked), problems, notes)
    for line, cells in rows:
        if not header:
            header = [name.strip().lstrip("\ufeff") for name in cells]
            if (below := _header_below(found.asked, header, rows)) is not None:
                raise BadInput(
                    f"{path}:1: no column id", f"line {below} looks like the header: remove what is above it"
                )
            check_names(header, f"{path}:1")
            found.learn(header)
            found.check()
        elif not any(cell.strip() for cell in cells):
            yield line, {}
        elif (surplus := surplus_cells(cells, len(header))) is not None:
            problems.append(f"{path}:{line}: {surplus}")
        else:
            yield line, dict(zip(header, cells, strict=False))


def _header_below(
    asked: Mapping[str, str], first: list[str], rows: Iterator[tuple[int, list[str]]]
) -> int | None:  # fmt: skip
    """Find the line of a header under titles and remarks, where the first row is none."""
    if _has_id(asked, [first]):
        return None
    return next((line for line, cells in islice(rows, TITLES) if len(cells) > 1 and _has_id(asked, [cells])), None)


def _has_id(asked: Mapping[str, str], rows: list[list[str]]) -> bool:
    """Tell whether a first row is a header with a column for the id."""
    columns = Columns(asked, "")
    try:
        columns.learn(name.strip() for name in rows[0])
    except BadInput:  # two of them: no other separator would find more
        return True
    return columns.sources.get("id") in columns.names
