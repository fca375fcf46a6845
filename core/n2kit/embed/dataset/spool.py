"""The items that are to be embedded, laid down in shards: any process computes any of them without reading the catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from n2kit.data.image_source import GivenImage
from n2kit.data.item import Item
from n2kit.data.packed import image_at, place_of
from n2kit.errors import BadInput
from n2kit.utils.arrow import read_parquet
from n2kit.utils.files import atomic_write

PLACE = "place"  # of an image that is packed, as JSON
SCHEMA = pa.schema(
    {name: pa.string() for name in ("id", "image", "title", "content", "category", PLACE)}
    | {"topics": pa.list_(pa.string())}
)


def spool_file(work: Path, number: int) -> Path:
    """Name the file of a shard's items."""
    return work / f"items-{number:06d}.parquet"


def write_spool(work: Path, number: int, items: Sequence[Item]) -> None:
    """Write a shard's items.

    Raises:
        BadInput: an item holds its image itself.
    """
    places = [place_of(item.image) for item in items]
    for item, place in zip(items, places, strict=True):
        if isinstance(item.image, GivenImage) and place is None:
            raise BadInput(
                f"item {item.id!r} holds its image itself, and a folder of vectors is made of files",
                "give images by their paths, or write a .parquet file",
            )
    columns = {name: [getattr(item, name) for item in items] for name in SCHEMA.names if name != PLACE}
    columns[PLACE] = [place and json.dumps(place) for place in places]
    with atomic_write(spool_file(work, number), durable=False) as temporary:
        pq.write_table(pa.table(columns, SCHEMA), temporary)


def read_spool(work: Path, number: int) -> list[Item]:
    """Read a shard's items."""
    rows = read_parquet(spool_file(work, number)).to_pylist()
    found = []
    for row in rows:
        place = row.pop(PLACE, None)  # earlier versions wrote none
        image = image_at(row["image"], place and json.loads(place))
        found.append(Item(**row | {"image": image, "topics": tuple(row["topics"])}))
    return found


def batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last one may be shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
