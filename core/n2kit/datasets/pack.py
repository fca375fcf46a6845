"""A data folder packed: pictures beside their rows in Parquet shards or tars of WebDataset, in place of a million small files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from n2kit.data.column_map import FILE as COLUMNS
from n2kit.data.column_map import copied_columns, mapped_encoding, write_columns
from n2kit.data.columns import FIELDS
from n2kit.data.folder import PACKED, data_file, needed_file
from n2kit.data.image_source import name_of
from n2kit.data.images import UnreadableImage, image_content
from n2kit.data.item import Item, without_image
from n2kit.data.item_readers import AUTO
from n2kit.data.item_stream import ColumnsChangedError, ItemStream
from n2kit.data.items import check_rows
from n2kit.data.packed import DIGEST
from n2kit.data.shards import REPORT, WORK, shards_of
from n2kit.datasets.pack_formats import Form, Row, writer_of
from n2kit.errors import BadInput, counted
from n2kit.utils.digests import file_digests
from n2kit.utils.files import atomic_write, disk_full_guard, read_json, remove_temporaries, write_json
from n2kit.utils.locks import output_lock

COPIED = ("train", "val", "test", "pool", "pairs")  # of a data folder, beside the items; its log stays where it is
SHARD_ITEMS = 2000
OnBadImage = Literal["error", "skip", "text-only"]
Described = tuple[Item, Mapping[str, Any]]  # an item, and its columns that are no fields


@dataclass
class PackedSet:
    """The result of a packing. bytes: of the pictures; bad: items whose picture cannot be read, with the reason; rows: that were
    dropped, with where and why."""

    folder: Path
    form: Form
    shards: int = 0
    items: int = 0
    images: int = 0
    bytes: int = 0
    skipped: int = 0
    text_only: int = 0
    dropped: int = 0
    copied: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    done_before: bool = False

    def sentence(self) -> str:
        """Say in one line what was packed."""
        size = f"{self.bytes / 1e6:,.1f} MB" if self.bytes < 1e9 else f"{self.bytes / 1e9:,.2f} GB"
        parts = [
            f"{counted(self.items, 'item')}, {counted(self.images, 'picture')} of {size}, in {counted(self.shards, 'shard')}"
        ]
        parts += [f"{self.skipped:,} skipped"] * bool(self.skipped)
        parts += [f"{self.text_only:,} without their picture"] * bool(self.text_only)
        parts += [f"{counted(self.dropped, 'row')} dropped"] * bool(self.dropped)
        return " · ".join(parts)


def pack(
    folder: Path,
    out: Path,
    *,
    form: Form = "parquet",
    shard_items: int = SHARD_ITEMS,
    on_bad_image: OnBadImage = "error",
    lenient: bool = False,
    columns: Mapping[str, str] | None = None,
    item_format: str = AUTO,
    encoding: str | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PackedSet:
    """Write the items of a data folder with their pictures into `out`/items, and copy its pairs; the same call again goes on.

    Pictures are copied byte by byte. Every column of an item is kept; each shard is written whole or not at all.

    Args:
        columns, item_format, encoding: of the items, as for `read_items`.

    Raises:
        BadInput: rows that cannot be used, a picture that cannot be read, or `out` holds something else.
        Unavailable: the disk is full.
    """
    source, images = needed_file(folder, "items"), data_file(folder, "images")
    if out.resolve() == folder.resolve():
        raise BadInput(f"{out} is the folder that is packed", "give another -o")
    stream = _checked(
        ItemStream(source, columns=columns, format=item_format, encoding=encoding, every_column=True), lenient
    )
    read = [stream.found.sources, item_format, encoding or mapped_encoding(source), lenient]
    how = [
        form,
        shard_items,
        on_bad_image,
        read,
        str(images and images.resolve()),
        list(file_digests(shards_of(source))),
    ]
    key = hashlib.sha256(json.dumps(how).encode()).hexdigest()[:16]
    made, total = PackedSet(out, form, dropped=len(stream.dropped), rows=stream.dropped), len(stream)
    beside = [data_file(folder, role) for role in COPIED]
    copied = [file for file in beside if file is not None]
    with output_lock(out / PACKED), disk_full_guard(str(out), "free some space; the same command goes on"):
        if not force and _is_finished(out, key):
            return replace(made, **_counts(read_json(out / REPORT)), done_before=True)
        _begin(out, key, force)
        remove_temporaries(out, REPORT, COLUMNS, *(file.name for file in copied))
        remove_temporaries(out / PACKED)
        with _nothing_left(out):
            for number, batch in enumerate(_batches(_pairs(stream), shard_items)):
                mark = out / WORK / f"{number:05d}.json"
                if not mark.is_file():
                    write_json(mark, _write_shard(out / PACKED, number, batch, images, made.form, on_bad_image))
                _add(made, read_json(mark))
                if progress:
                    progress(min((number + 1) * shard_items, total), total)
        for file in copied:
            with atomic_write(out / file.name) as temporary:
                shutil.copyfile(file, temporary)
            made.copied.append(file.name)
        if pairs := copied_columns(folder, made.copied):
            write_columns(out, pairs)
            made.copied.append(COLUMNS)
        write_json(out / REPORT, {"key": key} | _counts(asdict(made)))
        shutil.rmtree(out / WORK)
    return made


@contextlib.contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Remove what a packing that fails before its first shard has begun; after that, the same command goes on with it."""
    try:
        yield
    except BadInput:
        if not any((out / PACKED).iterdir()):
            for made in (out / PACKED, out / WORK):
                shutil.rmtree(made)
        raise


def _checked(stream: ItemStream, lenient: bool) -> ItemStream:
    """Read the items once, before anything is written.

    Raises:
        BadInput: rows that cannot be used, unless `lenient`; a column of a name that is taken.
    """
    while True:
        with contextlib.suppress(ColumnsChangedError):
            for _ in stream:
                pass
            check_rows(stream, lenient)
            if DIGEST in stream.found.names:
                raise BadInput(f"{stream.path}: a column is called {DIGEST}, as n2kit's own is", "rename it")
            return stream


def _pairs(stream: ItemStream) -> Iterator[Described]:
    """Yield the items with those columns of their rows that are no fields; the stream knows all names from its first pass."""
    fields = {*stream.found.sources.values(), *FIELDS, DIGEST}
    for item, row in stream.pairs():
        yield item, {name: value for name, value in row.items() if name and name not in fields}


def _batches(pairs: Iterator[Described], size: int) -> Iterator[list[Described]]:
    while batch := list(islice(pairs, size)):
        yield batch


def _counts(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in ("key", "folder", "bad", "rows", "done_before")}


def _is_finished(out: Path, key: str) -> bool:
    """Tell whether the same was packed to its end, and all of its shards are there."""
    report = out / REPORT
    if not report.is_file() or not (out / PACKED).is_dir() or (out / WORK).is_dir():
        return False
    found = read_json(report)
    return found.get("key") == key and len(shards_of(out / PACKED)) == found.get("shards")


def _begin(out: Path, key: str, force: bool) -> None:
    """Make room in `out`, or keep what an interrupted packing of the same left.

    Raises:
        BadInput: items are there that are of another one.
    """
    plan = out / WORK / "plan.json"
    if not force and plan.is_file() and read_json(plan).get("key") == key:
        return
    out.mkdir(parents=True, exist_ok=True)
    place = out / PACKED
    taken = [file for role in ("items", *COPIED) if (file := data_file(out, role)) is not None]
    if taken and not force and not plan.is_file():
        raise BadInput(f"{taken[0]} exists", "give another -o, or --force to replace it")
    if other := next((file for file in taken if file.stem.partition(".")[0] == "items" and file != place), None):
        raise BadInput(f"{other} would be read in place of what is packed", "give another -o")
    if place.is_dir() and (foreign := [f.name for f in place.iterdir() if not _is_ours(f)]):
        raise BadInput(f"{place} holds {foreign[0]!r}, which was not packed", "give another -o")
    for old in (place, out / WORK):
        shutil.rmtree(old, ignore_errors=True)
    place.mkdir()
    write_json(plan, {"key": key})


def _is_ours(file: Path) -> bool:
    return file.suffix in (".parquet", ".tar", ".tmp") and file.name.lstrip(".")[:5].isdecimal()


def _write_shard(
    place: Path, number: int, batch: list[Described], images: Path | None, form: Form, bad: OnBadImage
) -> dict[str, Any]:  # fmt: skip
    """Write a shard; return what is in it."""
    counts: dict[str, Any] = {"items": 0, "images": 0, "bytes": 0, "skipped": 0, "text_only": 0, "bad": {}}

    def rows() -> Iterator[Row]:
        for item, extra in batch:
            content, ending = b"", ""
            try:
                if item.image:
                    content, ending = image_content(item, images)
            except UnreadableImage as problem:
                if bad == "error":
                    raise
                counts["bad"][item.id] = problem.message
                counts["skipped" if bad == "skip" else "text_only"] += 1
                if bad == "skip":
                    continue
                item = without_image(item)
            counts["items"] += 1
            counts["images"] += bool(content)
            counts["bytes"] += len(content)
            called = name_of(item.image) or f"{item.id}.{ending}"
            yield Row(replace(item, image=called if content else ""), extra, content, ending)

    first = next(made := rows(), None)
    if first is not None:
        names = list(dict.fromkeys(name for _, extra in batch for name in extra))
        writer_of(form)(place / f"{number:05d}.{form}", chain([first], made), names, number)
    return counts


def _add(made: PackedSet, counts: dict[str, Any]) -> None:
    made.shards += bool(counts["items"])
    for name in ("items", "images", "bytes", "skipped", "text_only"):
        setattr(made, name, getattr(made, name) + counts[name])
    made.bad |= counts["bad"]
