"""The two forms of a shard: Parquet, as the datasets library reads it, and a tar, as the WebDataset library does."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from n2kit.data.image_source import is_image_name
from n2kit.data.item import Item
from n2kit.data.packed import COLUMN, DIGEST, content_name
from n2kit.data.tar_rows import OTHER
from n2kit.utils.files import atomic_write

Form = Literal["parquet", "tar"]
GROUP_BYTES, GROUP_ROWS = 2_000_000, 256  # of pictures, and rows, that are read together to have one of them
TEXTS = ("id", "title", "content", "category")


@dataclass(frozen=True)
class Row:
    """An item, its columns that are no fields, and its picture's bytes with the ending of such files.

    `item.image` is the name of the picture, which is nowhere else.
    """

    item: Item
    extra: Mapping[str, Any]
    content: bytes
    ending: str

    @property
    def digest(self) -> str | None:
        return content_name(self.content).partition(":")[2] if self.content else None


Writer = Callable[[Path, Iterable[Row], list[str], int], None]


def writer_of(form: Form) -> Writer:
    return write_tar if form == "tar" else write_parquet


def write_parquet(file: Path, rows: Iterable[Row], extra: list[str], number: int) -> None:
    """Write a shard as Parquet: the fields, the picture as {bytes, path}, its digest, and the `extra` columns.

    Groups of rows are small, since a picture is read with its whole group; pictures are not compressed once more.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    held = list(rows)
    others = {name: _column([row.extra.get(name) for row in held]) for name in extra}
    schema = pa.schema(
        [(name, pa.string()) for name in TEXTS]
        + [("topics", pa.list_(pa.string())), (COLUMN, pa.struct({"bytes": pa.binary(), "path": pa.string()}))]
        + [(DIGEST, pa.string())]
        + [(name, column.type) for name, column in others.items()]
    )
    plain = f"{COLUMN}.bytes"
    coded = [name for name in (*TEXTS, *others) if not pa.types.is_nested(schema.field(name).type)]
    with (
        atomic_write(file) as temporary,
        pq.ParquetWriter(
            temporary, schema, compression={plain: "none"}, use_dictionary=coded, write_statistics=coded
        ) as writer,
    ):
        start = 0
        for group in _groups(held):
            columns = [pa.array([getattr(row.item, name) for row in group], pa.string()) for name in TEXTS]
            columns.append(pa.array([list(row.item.topics) for row in group], pa.list_(pa.string())))
            columns.append(pa.array([_image(row) for row in group], schema.field(COLUMN).type))
            columns.append(pa.array([row.digest for row in group], pa.string()))
            columns += [column.slice(start, len(group)) for column in others.values()]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            start += len(group)


def _groups(rows: list[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row in rows:
        if group and (size + len(row.content) > GROUP_BYTES or len(group) == GROUP_ROWS):
            yield group
            group, size = [], 0
        group.append(row)
        size += len(row.content)
    yield group


def _image(row: Row) -> dict[str, Any] | None:
    return {"bytes": row.content, "path": row.item.image} if row.content else None


def _column(values: list[Any]) -> Any:
    """Make a column of values as they are, or of their JSON where Arrow has no one type for them."""
    import pyarrow as pa

    try:
        column = pa.array(values)
        return pa.array(values, pa.string()) if pa.types.is_null(column.type) else column
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return pa.array([None if value is None else _json(value) for value in values], pa.string())


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def write_tar(file: Path, rows: Iterable[Row], extra: list[str], number: int) -> None:
    """Write a shard as a tar of samples: NUMBER.json of all columns and the picture's digest, and NUMBER.jpg, or of its format."""
    with atomic_write(file) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as archive:
        for n, row in enumerate(rows):
            name = f"{number:05d}{n:06d}"
            fields = {name: getattr(row.item, name) for name in TEXTS} | {"topics": list(row.item.topics)}
            image = {COLUMN: row.item.image, DIGEST: row.digest} if row.content else {}
            _add(archive, f"{name}.json", _json({**row.extra, **fields, **image}).encode("utf8", "replace"))
            if row.content:
                _add(archive, f"{name}.{_ending(row.ending)}", row.content)


def _ending(kind: str) -> str:
    """Name the ending of a picture's file: that of its format, or `img` where few would know it."""
    known = {"jpeg": "jpg", "mpo": "jpg"}.get(kind, kind)
    return known if is_image_name(f".{known}") else OTHER


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
