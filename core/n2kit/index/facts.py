"""The columns of a catalogue that an index remembers, so that neighbours can be filtered by them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.data.columns import FIELDS, field_of
from n2kit.data.image_source import name_of
from n2kit.data.item_stream import ColumnsChangedError, ItemStream
from n2kit.data.values import id_of
from n2kit.errors import BadInput
from n2kit.utils.arrow import array_of, numbers_of, read_parquet, strings_of, texts_of

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = "facts.parquet"
PREFIX = "column:"  # of a column's name in that file
META = b"n2kit"  # of the file: its `fields`, as JSON
LONGEST = 200  # characters of a text that is kept: longer ones are descriptions, which nobody compares
_CODE = re.compile(r"\s*[-+]?0\d|.*_")  # a text that would be a number, and names something: 00042, -012, 1_000


@dataclass(frozen=True)
class Facts:
    """Columns of items by the items' ids: texts, empty where there is none, or numbers, NaN where there is none.

    fields: field → the column of the items' file that it was read from, also where that column is not kept: that of the ids is not, and
        no column of long texts is. Empty of an index that an n2kit of before made.
    """

    ids: list[str]
    columns: dict[str, np.ndarray]
    fields: Mapping[str, str] = field(default_factory=dict)

    def of(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the columns in the order of `ids`; an id that is not known has no values."""
        if ids is self.ids:
            return self.columns
        rows = np.fromiter((self._place.get(i, -1) for i in ids), np.int64, len(ids))
        return {name: np.where(rows >= 0, column[rows], _nothing(column)) for name, column in self.columns.items()}

    def column_for(self, name: str) -> str | None:
        """Find the column of a field: that which it was read from or, where that is not known, that of its name, or the only synonym."""
        return self._columns_of_fields.get(name)

    def field_of(self, key: str) -> str | None:
        """Find the field that a key names, by its column, its own name or a synonym; None where it is a user's own column."""
        if key in self.columns:
            return self._fields_of_columns[key]
        return next((name for name, column in self.fields.items() if column == key), None) or field_of(key)

    @cached_property
    def _columns_of_fields(self) -> dict[str, str]:
        """The column of each field that has one; the ids have none."""
        taken, found, named = set(self.fields.values()), dict[str, str](), dict[str, list[str]]()
        for column in self.columns:
            if column not in taken and (called := field_of(column)) is not None:
                named.setdefault(called, []).append(column)
        for name in FIELDS:
            if name == "id":
                continue
            if name in self.fields:
                if self.fields[name] in self.columns:
                    found[name] = self.fields[name]
            elif name in (columns := named.get(name, [])) or len(columns) == 1:
                found[name] = name if name in columns else columns[0]
        return found

    @cached_property
    def _fields_of_columns(self) -> dict[str, str | None]:
        """The field of each column: its own or, of a field whose column is not known, one that may be it."""
        own = {column: name for name, column in self._columns_of_fields.items()}
        known = {"id", *self.fields, *own.values()}
        return {
            column: own.get(column, name if (name := field_of(column)) not in known else None)
            for column in self.columns
        }

    def named_as_in(self, index: Facts) -> Facts:
        """Call the column of each field as the index does, so that a field stays one column, whatever the new items' file calls it."""
        new = _names_in(index, self._columns_of_fields, self.columns)
        columns = {new.get(name, name): column for name, column in self.columns.items()}
        fields = {name: new.get(column, column) for name, column in self.fields.items()}
        return Facts(self.ids, columns, {**fields, **index.fields})

    @cached_property
    def _place(self) -> dict[str, int]:
        return {item_id: n for n, item_id in enumerate(self.ids)}

    def with_newer(self, newer: Facts | None, ids: Sequence[str]) -> Facts:
        """Return the facts of `ids`, the newer where there are any; numbers become texts in a column of texts.

        Fields stay in their columns, and a column without a value, whose items have gone, is of the type of the newer.

        Raises:
            BadInput: texts for a column of numbers.
        """
        if newer is None:
            return Facts(list(ids), self.of(ids), self.fields)
        newer = newer.named_as_in(self)
        old, new, fresh = self.of(ids), newer.of(ids), np.isin(np.asarray(ids, object), np.asarray(newer.ids, object))
        merged = {}
        for name in {**old, **new}:
            now, before = new.get(name), old.get(name)
            if now is None or before is None:
                merged[name] = old.get(name, now)
            elif now.dtype.kind != before.dtype.kind and is_empty(self.columns[name]):
                merged[name] = now
            elif before.dtype.kind == "f" and now.dtype.kind != "f":
                raise not_numbers(name)
            else:
                merged[name] = np.where(fresh, now if before.dtype.kind == "f" else _texts(now), before)
        kept = {name: column for name, column in merged.items() if column is not None}
        return Facts(list(ids), kept, {**newer.fields, **self.fields})


def is_empty(column: np.ndarray) -> bool:
    """Tell whether a column has no value: it stays, so that conditions on it go on, and binds nobody to its type."""
    return bool(np.isnan(column).all() if column.dtype.kind == "f" else (column == "").all())


def _names_in(index: Facts, fields: Mapping[str, str], columns: Collection[str]) -> dict[str, str]:
    """Name new columns as an index calls their fields, where neither has another column of that name: column → its name there.

    fields: field → its new column. columns: all that are new.
    """
    there = {own: index.column_for(name) for name, own in fields.items() if own not in index.columns}
    return {own: column for own, column in there.items() if column is not None and column not in columns}


def read_facts(stream: ItemStream, index: Facts | None = None) -> Facts:
    """Read all columns of a file of items that hold texts or numbers, but for that of the ids, which are known as `id`.

    index: that they are put into: what is a text or a number there stays one, whatever those that are new look like.

    Raises:
        BadInput: a field is read from another column than that of the index, which the file has, too.
    """
    while True:
        ids: list[str] = []
        found: dict[str, list[Any]] = {}
        try:
            for item, row in stream.pairs():
                image, own_id = stream.found.sources.get("image"), stream.found.sources["id"]
                for name, value in row.items():
                    if name == own_id:
                        continue
                    plain = name_of(item.image) if name == image and type(value) is not str else _joined(value)
                    found.setdefault(name, [None] * len(ids)).append(plain)
                ids.append(item.id)
                for values in found.values():
                    if len(values) < len(ids):
                        values.append(None)
        except ColumnsChangedError:
            continue
        known, sources = index or Facts([], {}), stream.found.sources
        _check_fields(stream, known)
        names = _names_in(known, sources, found)
        texts = {name: column.dtype.kind != "f" for name, column in known.columns.items()}
        made = {name: column_of(values, text=texts.get(names.get(name, name))) for name, values in found.items()}
        return Facts(ids, {name: column for name, column in made.items() if column is not None}, dict(sources))


def _check_fields(stream: ItemStream, index: Facts) -> None:
    """Check that no field of new items may be either of two columns: the one that they are read from, or that of the index.

    Raises:
        BadInput: one may, and `--map` does not say which.
    """
    for name, column in stream.found.sources.items():
        there = index.fields.get(name) or index.column_for(name)
        if there not in (None, column) and there in stream.found.names and name not in stream.found.asked:
            what = f"{column!r} and {there!r} are both its {name}, which the index has in {there!r}"
            raise BadInput(f"{stream.path}: {what}", f"--map {name}={there}, or leave one of them out")


def write_facts(facts: Facts, folder: Path) -> None:
    """Write the columns into an index's folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        f"{PREFIX}{name}": array_of(column) if column.dtype.kind == "f" else strings_of(column.tolist())
        for name, column in facts.columns.items()
    }
    table = pa.table({"id": strings_of(facts.ids)} | columns)
    pq.write_table(table.replace_schema_metadata({META: json.dumps({"fields": dict(facts.fields)})}), folder / FACTS)


def load_facts(folder: Path) -> Facts | None:
    """Read what `write_facts` wrote; None from an index that remembers no columns.

    Raises:
        BadInput: the file is something else.
    """
    import pyarrow as pa

    if not (folder / FACTS).is_file():
        return None
    try:
        table = read_parquet(folder / FACTS)
        columns = {
            name.removeprefix(PREFIX): _values(table.column(name)) for name in table.column_names if name != "id"
        }
        fields = json.loads((table.schema.metadata or {}).get(META, b"{}")).get("fields", {})
        return without_ids(Facts(table.column("id").to_pylist(), columns, fields))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise BadInput(
            f"{folder / FACTS}: not the columns of an index: {error}".splitlines()[0], "index again"
        ) from None


def _values(column: pa.ChunkedArray) -> np.ndarray:
    import pyarrow as pa

    return numbers_of(column) if pa.types.is_floating(column.type) else texts_of(column)


def without_ids(facts: Facts) -> Facts:
    """Leave out the column of the ids, which an n2kit of before kept, and nobody would write for new items."""
    known = facts.fields.get("id")
    for name in facts.columns if known is None else facts.columns.keys() & {known}:
        if name == known or field_of(name) == "id":
            column = facts.columns[name]
            there = np.isnan(column) if column.dtype.kind == "f" else column == ""
            values, ids = column[~there], np.asarray(facts.ids, object)[~there]
            if (known or len(values)) and _same(values, ids):
                columns = {other: values for other, values in facts.columns.items() if other != name}
                return Facts(facts.ids, columns, {**facts.fields, "id": name})
    return facts


def _same(values: np.ndarray, ids: np.ndarray) -> bool:
    """Tell whether values [n] are these ids [n], or the numbers that they were read as."""
    try:
        return bool((values == (ids.astype(np.float64) if values.dtype.kind == "f" else ids)).all())
    except ValueError:  # an id is no number
        return False


def not_numbers(name: str) -> BadInput:
    """Make the error of a column of numbers that is given texts."""
    return BadInput(
        f"column {name} holds numbers in the index, and texts in these items", "mend the column, or index all anew"
    )


def column_of(values: Iterable[Any], *, text: bool | None = None) -> np.ndarray | None:
    """Make a column of numbers if all values that are there are such, else one of texts; None where it holds other things.

    A text with a leading zero is no number, which would lose it, unless `text` says that it is one.
    """
    there = [value for value in values if value is not None and value != ""]
    if not there or not all(isinstance(value, str | int | float) for value in there):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        if not text:
            numbers = np.array([float(value) if value not in (None, "") else np.nan for value in values], np.float64)
            if text is False or not any(isinstance(value, str) and _CODE.match(value) for value in there):
                return numbers
    if any(len(str(value)) > LONGEST for value in there):
        return None
    return np.array(["" if value is None else str(value) for value in values], object)


def _joined(value: Any) -> Any:
    """Write a list of texts as the text that such lists are read from; anything else comes back as it is."""
    texts = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    return "|".join(value) if texts else value


def _texts(column: np.ndarray) -> np.ndarray:
    """Write numbers as texts; texts stay."""
    if column.dtype.kind != "f":
        return column
    return np.array(["" if np.isnan(value) else id_of(value) for value in column.tolist()], object)


def _nothing(column: np.ndarray) -> Any:
    return np.nan if column.dtype.kind == "f" else ""
