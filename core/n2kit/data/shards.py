"""Items in several files: a folder of Parquet or tar shards stands for one file of items."""

from __future__ import annotations

from pathlib import Path

from n2kit.data.folder import has_pictures, other_tables
from n2kit.errors import BadInput, counted, truncate_list
from n2kit.utils.files import read_json

ENDINGS = (".parquet", ".tar")
REPORT, WORK = "pack.json", ".pack"  # beside the shards of a packed data folder: what it has, and what is still to do


def shards_of(path: Path) -> list[Path]:
    """List the files that a path of items stands for: itself, or the shards in a folder, by name.

    Raises:
        BadInput: no such file, or a folder without shards, with shards of two kinds, or with fewer than were packed.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadInput(f"no items file {path}", "give a CSV, TSV, JSONL or Parquet file, or a folder of shards")
    found = {ending: sorted(f for f in path.glob(f"[!.]*{ending}") if f.is_file()) for ending in ENDINGS}
    if all(found.values()):
        raise BadInput(f"{path} has shards of Parquet and of tar", "give a folder of one kind")
    if not any(found.values()):
        raise BadInput(f"{path} is a folder without shards of items", _instead(path))
    shards = [file for files in found.values() for file in files]
    _check_whole(path, len(shards))
    return shards


def _instead(path: Path) -> str:
    """Write what may be meant by a folder that has no shards."""
    if any(path.glob("items*")):
        return f"a data folder: --data {path}"
    if other := other_tables(path):
        return f"it has {truncate_list(other)}: --items {path / other[0]}, if that is the catalogue"
    if has_pictures(path):
        return "n2kit data import images makes items of its pictures"
    return "Parquet or tar files, as n2kit data pack writes them"


def _check_whole(path: Path, count: int) -> None:
    """Check that all shards are there that `n2kit data pack` says it wrote.

    Raises:
        BadInput: the packing was not finished, or a shard is missing.
    """
    if (path.parent / WORK).is_dir():
        raise BadInput(f"{path.parent} is not packed to its end", "give the same n2kit data pack again")
    report = path.parent / REPORT
    packed = read_json(report).get("shards") if report.is_file() else None
    if isinstance(packed, int) and packed != count:
        raise BadInput(
            f"{path} has {counted(count, 'shard')}, and {packed} were packed", "copy them all, or pack again"
        )
