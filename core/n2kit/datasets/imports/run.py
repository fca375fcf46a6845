"""An import: items, events and pairs written as Parquet, each row counted, the pictures where every command finds them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2kit.data.values import id_of, is_null
from n2kit.datasets.imports.sets import PublicSet, event_rows
from n2kit.errors import BadInput, counted, truncate_list
from n2kit.utils.files import atomic_write, remove_temporaries, write_json

BATCH = 20_000
REPORT, MARK, STAGING = "import.json", ".import.json", ".import"
Progress = Callable[[int, int, str], None]
ITEM = ("id", "image", "title", "topics", "content", "category", "more_images")
UNREADABLE = "unreadable row"


@dataclass
class Counts:
    """Rows of a kind: read, written, dropped by reason."""

    read: int = 0
    written: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, times: int = 1) -> None:
        self.dropped[reason] += times

    def sentence(self, noun: str) -> str:
        lost = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.dropped.items()))
        return f"{counted(self.written, noun)} of {counted(self.read, 'row')}" + (f" (dropped: {lost})" if lost else "")


@dataclass
class Imported:
    """The result of an import: what was counted of items, events and pairs, and which files were written."""

    folder: Path
    counts: dict[str, Counts] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        return {"files": self.files, "notes": self.notes} | {name: vars(count) for name, count in self.counts.items()}


@contextmanager
def unfinished(out: Path, *, force: bool) -> Iterator[None]:
    """Hold an import: the same command may replace what one that was killed, or failed later, has written.

    Raises:
        BadInput: items are there that no such import wrote.
    """
    items, mark = out / "items.parquet", out / MARK
    if items.exists() and not force and not mark.is_file():
        raise BadInput(f"{items} exists", "give another -o, or --force to replace it")
    remove_temporaries(out, MARK)
    yield
    mark.unlink(missing_ok=True)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Give a folder to write an import into; what is in it takes its place in `out` if nothing fails, the items last."""
    place = out / STAGING
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
        write_json(out / MARK, {})
        for file in sorted(place.iterdir(), key=lambda file: file.name == "items.parquet"):
            file.replace(out / file.name)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def import_set(
    chosen: PublicSet,
    out: Path,
    *,
    items: Path,
    events: Iterable[Path] = (),
    images: Path | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Write items.parquet, events.parquet and pairs.parquet of a public set's own files; `images` becomes `out`/images.

    Raises:
        BadInput: a file that is not there or not of this set: then no row of it is an item.
    """
    found = Imported(out)
    unreadable: list[str] = []
    seen: set[str] = set()
    related: list[tuple[str, str, str]] = []
    logs = list(events)
    with staged(out) as place:
        count = found.counts["items"] = Counts()
        rows = chosen.item_rows(items, unreadable)
        link_images(out, images)
        write_rows(place / "items.parquet", ITEM, _items(chosen, rows, count, seen, related, images, progress))
        finish(count, unreadable, items, "item", chosen.name)
        found.files.append("items.parquet")
        if chosen.related is not None:
            found.counts["pairs"] = pairs = Counts()
            write_rows(place / "pairs.parquet", ("query", "target", "type"), _pairs(related, seen, pairs))
            found.files.append("pairs.parquet")
        if logs:
            lost: list[str] = []
            found.counts["events"] = count = Counts()
            read = _events(chosen, logs, count, seen, lost, progress)
            write_rows(place / "events.parquet", ("user", "item", "time", "rating"), read)
            finish(count, lost, logs[0], "event", chosen.name, f"is this the right file, of the items of {items}?")
            found.files.append("events.parquet")
        if unreadable:
            found.notes.append(f"could not be read: {truncate_list(unreadable)}")
        write_json(place / REPORT, {"set": chosen.name, **found.facts()})
    return found


def link_images(out: Path, images: Path | None) -> None:
    """Let a folder of pictures stand in the data folder, by a link.

    Raises:
        BadInput: other pictures are there.
    """
    if images is None:
        return
    place = out / "images"
    if place.resolve() == images.resolve():
        return
    if place.exists() and not place.is_symlink():
        raise BadInput(f"{place} exists", "give another -o, or leave out --images")
    place.unlink(missing_ok=True)
    place.symlink_to(images.resolve(), target_is_directory=True)


def _items(
    chosen: PublicSet, rows: Iterable[Any], count: Counts, seen: set[str], related: list[tuple[str, str, str]],
    images: Path | None, progress: Progress | None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    for row in rows:
        count.read += 1
        if progress and count.read % BATCH == 0:
            progress(count.read, count.read + 1, "items")
        item = chosen.item(row)
        name = "" if is_null(item["id"]) else id_of(item["id"])
        if not name:
            count.drop("without an id")
        elif name in seen:
            count.drop("an id again")
        else:
            seen.add(name)
            if chosen.image_of is not None and images is not None:
                path = chosen.image_of(name)
                item["image"] = path if (images / path).is_file() else ""
            if chosen.related is not None:
                related += [(name, target, kind) for kind, target in chosen.related(row)]
            if not (item.get("image") or item.get("title") or item.get("content") or item.get("topics")):
                count.drop("without a picture and a text")
                seen.discard(name)
                continue
            count.written += 1
            yield item | {"id": name}


def _pairs(related: list[tuple[str, str, str]], known: set[str], count: Counts) -> Iterator[dict[str, str]]:
    written: set[tuple[str, str]] = set()
    for query, target, kind in related:
        count.read += 1
        if target not in known or query not in known:
            count.drop("an item that is not in the catalogue")
        elif query == target:
            count.drop("an item with itself")
        elif (query, target) in written:
            count.drop("a pair again")
        else:
            written.add((query, target))
            count.written += 1
            yield {"query": query, "target": target, "type": kind}


def _events(
    chosen: PublicSet,
    logs: list[Path],
    count: Counts,
    known: set[str],
    unreadable: list[str],
    progress: Progress | None,
) -> Iterator[dict[str, Any]]:
    for log in logs:
        for row in event_rows(chosen, log, unreadable):
            count.read += 1
            if progress and count.read % (10 * BATCH) == 0:
                progress(count.read, count.read + 1, "events")
            event = chosen.event(row)
            user, item = (("" if is_null(event[name]) else id_of(event[name])) for name in ("user", "item"))
            if not user or not item:
                count.drop("without a user or an item")
            elif item not in known:
                count.drop("an item that is not in the catalogue")
            else:
                count.written += 1
                rating = event["rating"]
                yield {
                    "user": user,
                    "item": item,
                    "time": id_of(event["time"]),
                    "rating": None if rating is None else str(rating),
                }


def finish(
    count: Counts, unreadable: list[str], file: Path, noun: str, name: str, hint: str = "is this the right file?"
) -> None:
    """Count the rows that no reader could read, and refuse a file of which no row was used."""
    count.read += len(unreadable)
    if unreadable:
        count.drop(UNREADABLE, len(unreadable))
    assert count.read == count.written + sum(count.dropped.values())
    if not count.written:
        raise BadInput(f"{file}: no {noun} of {name}: {count.sentence(noun)}", hint)


def write_rows(file: Path, names: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as Parquet, a batch in memory at a time; every field is a text but the lists."""
    from itertools import islice

    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = ("topics", "more_images")
    schema = pa.schema([(name, pa.list_(pa.string()) if name in lists else pa.string()) for name in names])
    source = iter(rows)
    with atomic_write(file) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        while batch := list(islice(source, BATCH)):
            rows_of = [{n: row.get(n) for n in names} for row in batch]
            try:
                table = pa.Table.from_pylist(rows_of, schema=schema)
            except UnicodeEncodeError:  # half a character, as JSON may hold
                table = pa.Table.from_pylist([{n: _whole(v) for n, v in row.items()} for row in rows_of], schema=schema)
            writer.write_table(table)


def _whole(value: Any) -> Any:
    """Replace what is half a character in a text, or in a list of texts."""
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return value.encode("utf8", "replace").decode() if isinstance(value, str) else value
