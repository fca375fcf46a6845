"""The paper's own headerless catalogue into a data folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from n2kit.data.items import read_items
from n2kit.datasets.imports.run import ITEM, REPORT, UNREADABLE, Counts, Imported, link_images, staged, write_rows
from n2kit.errors import truncate_list
from n2kit.utils.files import write_json


def import_paper(items: Path, out: Path, *, images: Path | None = None) -> Imported:
    """Write items.parquet of a CSV of id, title, content, image, category; rows that cannot be read are counted."""
    read = read_items(items, format="notellm", lenient=True)
    found = Imported(out, {"items": Counts(len(read) + len(read.dropped), len(read))}, files=["items.parquet"])
    if read.dropped:
        found.counts["items"].drop(UNREADABLE, len(read.dropped))
        found.notes.append(f"could not be read: {truncate_list(read.dropped)}")
    with staged(out) as place:
        link_images(out, images)
        write_rows(place / "items.parquet", ITEM, (asdict(item) | {"topics": list(item.topics)} for item in read))
        write_json(place / REPORT, {"set": "notellm", **found.facts()})
    return found
