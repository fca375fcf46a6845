"""The columns of a catalogue that an index remembers, so that neighbours can be filtered by them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.data.image_source import name_of
from n2kit.data.item_stream import ColumnsChangedError, ItemStream
from n2kit.data.values import id_of
from n2kit.errors import BadInput
from n2kit.utils.arrow import numbers_of, texts_of

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = "facts.parquet"
PREFIX = "column:"  # of a column's name in that file
LONGEST = 200  # characters of a text that is kept: longer ones are descriptions, which nobody compares
_CODE = re.compile(r"\s*0\d|.*_")  # a text that would be a number, and names something: 00042, 1_000


@dataclass(frozen=True)
class Facts:
    """Columns of items by the items' ids: texts, empty where there is none, or numbers, NaN where there is none."""

    ids: list[str]
    columns: dict[str, np.ndarray]

    def of(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the columns in the order of `ids`; an id that is not known has no values."""
        if ids is self.ids:
            return self.columns
        rows = np.fromiter((self._place.get(i, -1) for i in ids), np.int64, len(ids))
        return {name: np.where(rows >= 0, column[rows], _nothing(column)) for name, column in self.columns.items()}

    @cached_property
    def _place(self) -> dict[str, int]:
        return {item_id: n for n, item_id in enumerate(self.ids)}

    def with_newer(self, newer: Facts | None, ids: Sequence[str]) -> Facts:
        """Return the facts of `ids`, the newer where there are any; numbers become texts in a column of texts.

        Raises:
            BadInput: texts for a column of numbers.
        """
        if newer is None:
            return Facts(list(ids), self.of(ids))
        old, new, fresh = self.of(ids), newer.of(ids), np.isin(np.asarray(ids, object), np.asarray(newer.ids, object))
        merged = {}
        for name in {**old, **new}:
            now, before = new.get(name), old.get(name)
            if now is None or before is None:
                merged[name] = old.get(name, now)
            elif before.dtype.kind == "f" and now.dtype.kind != "f":
                raise not_numbers(name)
            else:
                merged[name] = np.where(fresh, now if before.dtype.kind == "f" else _texts(now), before)
        return Facts(list(ids), {name: column for name, column in merged.items() if column is not None})


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
        return Facts(ids, {name: column for name, column in made.items() if column is not None})


def write_facts(facts: Facts, folder: Path) -> None:
    """Write the columns into an index's folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {f"{PREFIX}{name}": pa.array(column) for name, column in facts.columns.items()}
    pq.write_table(pa.table({"id": pa.array(facts.ids, pa.string())} | columns), folder / FACTS)


def load_facts(folder: Path) -> Facts | None:
    """Read what `write_facts` wrote; None from an index that remembers no columns.

    Raises:
        BadInput: the file is something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not (folder / FACTS).is_file():
        return None
    try:
        with pq.ParquetFile(folder / FACTS) as file:  # pq.read_table imports half a second of what nobody needs here
            table = file.read()
        columns = {
            name.removeprefix(PREFIX): _values(table.column(name)) for name in table.column_names if name != "id"
        }
        return Facts(table.column("id").to_pylist(), columns)
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
    text = any(isinstance(value, str) and _CODE.match(value) for value in there) if text is None else text
    with contextlib.suppress(ValueError, OverflowError):
        if not text:
            return np.array([float(value) if value not in (None, "") else np.nan for value in values], np.float64)
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
