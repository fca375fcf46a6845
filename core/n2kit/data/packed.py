"""Images that lie in the shard of their rows: read in place, and never unpacked into files of their own."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from n2kit.data.image_source import CalledImage, GivenImage
from n2kit.data.tables import NumberedRow, parquet_rows, parquet_schema

# The column, or the key of a sample's JSON, that says an image's content without its being read; a name that no catalogue has.
DIGEST = "n2kit_image_sha256"
COLUMN = "image"  # of Parquet shards: {bytes, path}, as the datasets library has it
GROUPS = 4  # of rows of Parquet that stay in memory


@dataclass(frozen=True)
class Span:
    """An image as bytes of a file: `size` of them from `start`; a member of a tar."""

    file: Path
    start: int
    size: int

    def read(self) -> bytes:
        with self.file.open("rb") as shard:
            shard.seek(self.start)
            return shard.read(self.size)


@dataclass(frozen=True)
class Cell:
    """An image as a cell of a Parquet file: row `row` of its group of rows `group`."""

    file: Path
    group: int
    row: int

    def read(self) -> bytes:
        content = _group(self.file, self.group)[self.row].as_py()
        return content if isinstance(content, bytes) else b""


Packed = Span | Cell
KINDS: dict[str, type[Span] | type[Cell]] = {"span": Span, "cell": Cell}


def packed_bytes(image: GivenImage) -> bytes:
    """Read an image out of its shard.

    Raises:
        ValueError: it is not the content that its name says: the shard was changed since. OSError: there is no shard.
    """
    content: bytes = image.source.read()
    if image != content_name(content):
        raise ValueError(f"{image.source.file} does not hold it any more: the shard is damaged, or another")
    return content


def content_name(content: bytes) -> str:
    """Name an image by its content."""
    return f"content:{hashlib.sha256(content).hexdigest()}"


def place_of(image: str) -> list[Any] | None:
    """Write where an image is packed, so that another process can read it; None for an image that is not packed."""
    source = image.source if isinstance(image, GivenImage) else None
    if not isinstance(source, Packed):
        return None
    _, *numbers = astuple(source)
    return [type(source).__name__.lower(), str(source.file), *numbers]


def image_at(key: str, place: list[Any] | None, called: str = "") -> str:
    """Give an image of a key the place that `place_of` wrote, and the name that it is called by.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    if place is None:
        return CalledImage(key, called) if called else key
    kind, file, first, second = place
    return GivenImage(key, KINDS[kind](Path(file), int(first), int(second)), called)


@lru_cache(maxsize=GROUPS)
def _group(file: Path, number: int) -> Any:
    """Read the images of a group of rows."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, metadata=_metadata(file), memory_map=True) as shard:
        images = shard.read_row_group(number, columns=[f"{COLUMN}.bytes"])[COLUMN].combine_chunks()
    return images.field("bytes")


@lru_cache(maxsize=256)
def _metadata(file: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.read_metadata(file)


def is_packed(path: Path) -> bool:
    """Tell whether a Parquet file is a shard that `n2kit data pack` wrote.

    Raises:
        BadInput: no Parquet file.
    """
    import pyarrow as pa

    schema = parquet_schema(path)
    image = schema.field(COLUMN).type if {DIGEST, COLUMN} <= set(schema.names) else None
    return image is not None and pa.types.is_struct(image) and image.get_field_index("bytes") >= 0


def packed_rows(path: Path, wanted: Callable[[list[str]], list[str]]) -> Iterator[NumberedRow]:
    """Yield the rows of a Parquet shard; their images are places in it, and are not read.

    Raises:
        BadInput: as `parquet_rows`.
    """

    def chosen(names: list[str]) -> list[str]:
        asked = wanted([name for name in names if name != DIGEST])
        return [*(name for name in asked if name != COLUMN), f"{COLUMN}.path", DIGEST]

    place = path.resolve()
    metadata = _metadata(path)
    ends = [0]
    for group in range(metadata.num_row_groups):
        ends.append(ends[-1] + metadata.row_group(group).num_rows)
    for number, row in parquet_rows(path, chosen):
        digest = row.get(DIGEST)
        group = bisect_right(ends, number - 1) - 1
        at = Cell(place, group, number - 1 - ends[group])
        image = GivenImage(f"content:{digest}", at, (row[COLUMN] or {}).get("path") or "") if digest else None
        yield number, {name: value for name, value in row.items() if name != DIGEST} | {COLUMN: image}
