"""Folders of pictures into a data folder: with a table beside, with the metadata of the datasets library, or alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from n2kit.data.columns import SYNONYMS, normal
from n2kit.data.folder import other_tables
from n2kit.datasets.imports.rows import Row, first, table_rows
from n2kit.datasets.imports.run import ITEM, REPORT, Counts, Imported, finish, link_images, staged, write_rows
from n2kit.datasets.imports.sets import any_item
from n2kit.errors import BadInput, truncate_list
from n2kit.utils.files import write_json

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def import_images(images: Path, out: Path, *, table: Path | None = None) -> Imported:
    """Make an item of each picture below a folder; its id is its path without the ending.

    Args:
        table: rows whose file name, or id, is a picture's; they give it title, topics and the rest. Without it, the folder's own
            metadata.csv or metadata.jsonl is taken, and a picture's folder is its category.

    Raises:
        BadInput: no such folder, no picture in it, or a table of which no row is one of them.
    """
    if not images.is_dir():
        raise BadInput(f"no folder {images}", "give the folder of the pictures")
    table = table or next((images / name for name in METADATA if (images / name).is_file()), None)
    files = sorted(
        f.relative_to(images).as_posix() for f in images.rglob("*") if f.suffix.lower() in PICTURES and f.is_file()
    )
    if not files:
        raise BadInput(f"{images}: no pictures", f"known endings: {', '.join(sorted(PICTURES))}")
    found, unreadable = Imported(out), list[str]()
    count = found.counts["items"] = Counts()
    with staged(out) as place:
        link_images(out, images)
        rows = _of_table(files, table, count, unreadable) if table is not None else _alone(files, count)
        write_rows(place / "items.parquet", ITEM, rows)
        finish(count, unreadable, table or images, "item", "images")
        if table is None and (other := other_tables(images)):
            found.notes.append(
                f"{truncate_list(other)} in the folder is not read: --table {images / other[0]} takes texts of it"
            )
        if unreadable:
            found.notes.append(f"could not be read: {truncate_list(unreadable)}")
        found.files.append("items.parquet")
        write_json(place / REPORT, {"set": "images", **found.facts()})
    return found


def _alone(files: list[str], count: Counts) -> Iterator[dict[str, Any]]:
    for file in files:
        count.read += 1
        count.written += 1
        path = Path(file)
        category = path.parent.as_posix() if path.parent.name else ""
        yield {
            "id": path.with_suffix("").as_posix(),
            "image": file,
            "title": "",
            "topics": [],
            "content": "",
            "category": category,
        }


def _of_table(files: list[str], table: Path, count: Counts, unreadable: list[str]) -> Iterator[dict[str, Any]]:
    names: dict[str, str] = {}
    for file in reversed(files):
        path = Path(file)
        for name in (path.stem, path.name, path.with_suffix("").as_posix(), file):
            names[name] = file
    used: set[str] = set()
    for row in table_rows(table, unreadable):
        count.read += 1
        picture = _picture(row, names)
        item = any_item(row)
        if picture is None:
            count.drop("whose picture is not in the folder")
        elif picture in used:
            count.drop("of a picture that had a row before")
        else:
            used.add(picture)
            count.written += 1
            yield item | {"id": str(item["id"] or Path(picture).with_suffix("").as_posix()), "image": picture}
    if left := len(files) - len(used):
        count.read += left
        count.drop("a picture without a row", left)


def _picture(row: Row, names: dict[str, str]) -> str | None:
    """Find the picture of a row: by its column of images, else by its id."""
    named = {normal(name): value for name, value in row.items()}
    for value in (first(named, "file_name", "image", *SYNONYMS["image"]), first(named, "id", *SYNONYMS["id"])):
        if value is not None and (file := names.get(str(value).strip().replace("\\", "/"))) is not None:
            return file
    return None
