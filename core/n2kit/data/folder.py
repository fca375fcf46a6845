"""A folder of data by convention: items, train, val, test and pool, each a file of any format that is read, and images."""

from __future__ import annotations

from pathlib import Path

from n2kit.data.image_source import is_image_name
from n2kit.data.item_readers import READER
from n2kit.errors import BadInput, truncate_list
from n2kit.plugins.registries import registered

ROLES = ("items", "train", "val", "test", "pool", "pairs", "events")
IMAGES, PACKED = "images", "items"
ENDINGS = (".parquet", ".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz")


def data_file(folder: Path, role: str) -> Path | None:
    """Find the file of a role in a data folder: `items.parquet`, else `items.jsonl`, `items.csv` …; of images, their folder.

    Items that were packed are a folder of shards, `items`.

    Raises:
        BadInput: there is no such folder.
    """
    if not folder.is_dir():
        if folder.is_file():
            raise BadInput(f"{folder} is a file, and no data folder", f"give the folder that holds it: {folder.parent}")
        raise BadInput(f"no data folder {folder}", "n2kit data import, data mine and data split write one")
    if role == IMAGES:
        return folder / IMAGES if (folder / IMAGES).is_dir() else None
    there = next(filter(Path.is_file, (folder / f"{role}{ending}" for ending in ENDINGS)), None)
    if there is not None or role != "items":
        return there
    return _of_plugin(folder) or (folder / PACKED if (folder / PACKED).is_dir() else None)


def other_tables(folder: Path) -> list[str]:
    """List the tables in a folder that are of no role, by name."""
    names = sorted(file.name for file in folder.iterdir() if file.name.lower().endswith(ENDINGS) and file.is_file())
    return [name for name in names if name.partition(".")[0] not in ROLES]


def has_pictures(folder: Path) -> bool:
    """Tell whether pictures lie in a folder itself."""
    return any(is_image_name(file.name) for file in folder.iterdir())


def _of_plugin(folder: Path) -> Path | None:
    """Find an items file of a format that a plug-in reads."""
    endings = (name for name in registered(READER) if name.startswith("."))
    return next((file for ending in endings if (file := folder / f"items{ending}").is_file()), None)


def needed_file(folder: Path, role: str) -> Path:
    """Find the file of a role that cannot be done without.

    Raises:
        BadInput: it is not there.
    """
    if (file := data_file(folder, role)) is not None:
        return file
    hint = f"{role}.parquet, or .jsonl, .csv"
    if role == "items" and (other := other_tables(folder)):
        ending = max((one for one in ENDINGS if other[0].lower().endswith(one)), key=len)
        hint = f"it has {truncate_list(other)}: call the catalogue items{ending}"
    elif role == "items" and has_pictures(folder):
        hint = "n2kit data import images makes items of its pictures"
    if role in ("train", "val", "test") and data_file(folder, "pairs") is not None:
        hint = f"n2kit data split {folder} makes it of its pairs"
    elif role in ("train", "val", "test", "pairs") and data_file(folder, "events") is not None:
        hint = f"n2kit data mine --events {data_file(folder, 'events')} -o {folder} --split time makes it of its events"
    raise BadInput(f"{folder} has no {role} file", hint)
