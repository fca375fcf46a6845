"""The columns of a catalogue that an index remembers, so that neighbours can be filtered by them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
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

    fields: field → its column, where the column's name does not say so: `--map category=Kategorie`.
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
        """Find the column of a field: that which it was read from, that of its name, or the only one that a synonym names."""
        if (mapped := self.fields.get(name)) in self.columns:
            return mapped
        taken = set(self.fields.values())
        named = [column for column in self.columns if column not in taken and field_of(column) == name]
        return name if name in named else named[0] if len(named) == 1 else None

    def field_of(self, key: str) -> str | None:
        """Find the field that a key names, by its column, its own name or a synonym; None where it is a user's own column."""
        columns = {name: self.column_for(name) for name in FIELDS}
        for name, column in columns.items():
            if key == column:
                return name
        named = field_of(key)
        return None if named is not None and key in self.columns and columns[named] is not None else named

    def named_as_in(self, index: Facts) -> Facts:
        """Call the column of each field as the index does, so that a field stays one column, whatever the new items' file calls it."""
        new: dict[str, str] = {}
        for name in FIELDS:
            own, there = self.column_for(name), index.column_for(name)
            if own is not None and there is not None and there not in self.columns and own not in index.columns:
                new[own] = there
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


def read_facts(stream: ItemStream, texts: Mapping[str, bool] | None = None) -> Facts:
    """Read all columns of a file of items that hold texts or numbers, but for that of the ids, which are known as `id`.

    texts: of columns that an index has already, whether they hold texts, whatever they look like, or numbers.
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
        made = {name: column_of(values, text=(texts or {}).get(name)) for name, values in found.items()}
        kept = {name: column for name, column in made.items() if column is not None}
        named, sources = Facts(ids, kept), stream.found.sources
        mapped = {name: own for name, own in sources.items() if own in kept and named.column_for(name) != own}
        return Facts(ids, kept, mapped)


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
        return Facts(table.column("id").to_pylist(), columns, fields)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise BadInput(
            f"{folder / FACTS}: not the columns of an index: {error}".splitlines()[0], "index again"
        ) from None


def _values(column: pa.ChunkedArray) -> np.ndarray:
    import pyarrow as pa

    return numbers_of(column) if pa.types.is_floating(column.type) else texts_of(column)


def texts_in_file(folder: Path) -> dict[str, bool]:
    """Tell of each column that `write_facts` wrote whether it holds texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(folder / FACTS)
    except (pa.ArrowException, OSError):  # there is none; what is damaged is said where it is read
        return {}
    return {field.name.removeprefix(PREFIX): field.type != pa.float64() for field in schema if field.name != "id"}


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
