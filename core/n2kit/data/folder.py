"""A folder of data by convention: items, train, val, test and pool, each a file of any format that is read, and images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from n2kit.data.image_source import is_image_name
from n2kit.data.item_readers import READER
from n2kit.errors import BadInput, truncate_list
from n2kit.plugins.registries import registered

PARTS = ("train", "val", "test")
ROLES = ("items", "train", "val", "test", "pool", "pairs", "events")
IMAGES, PACKED = "images", "items"  # folders: of pictures, and of a catalogue in shards
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
    return next(_files(folder, role), None)


def _files(folder: Path, role: str, *, of_plugins: bool = True) -> Iterator[Path]:
    """Yield the files of a role, the one that counts first."""
    if role != IMAGES:
        yield from filter(Path.is_file, (folder / f"{role}{ending}" for ending in ENDINGS))
    if role == "items" and of_plugins:
        endings = (name for name in registered(READER) if name.startswith("."))  # of formats that plug-ins read
        yield from filter(Path.is_file, (folder / f"items{ending}" for ending in endings))
    if role in (IMAGES, PACKED) and (folder / role).is_dir():
        yield folder / role


def passed_over(folder: Path, roles: Iterable[str] = ROLES) -> list[str]:
    """Say of each of these roles which files of a data folder are not read, since another one counts over them.

    Formats of plug-ins are not looked for: a plug-in that is broken is no matter of a folder that does without it.
    """
    found = [list(_files(folder, role, of_plugins=False)) for role in roles]
    return [
        f"{first} counts over {', '.join(f.name for f in rest)}, which is not read"
        for first, *rest in filter(None, found)
        if rest
    ]


def other_tables(folder: Path) -> list[str]:
    """List the tables in a folder that are of no role, by name."""
    names = sorted(file.name for file in folder.iterdir() if file.name.lower().endswith(ENDINGS) and file.is_file())
    return [name for name in names if name.partition(".")[0] not in ROLES]


def has_pictures(folder: Path) -> bool:
    """Tell whether pictures lie in a folder itself."""
    return any(is_image_name(file.name) for file in folder.iterdir())


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
    elif role == "pairs" and (parts := [file for part in PARTS if (file := data_file(folder, part)) is not None]):
        ending = parts[0].name.removeprefix(parts[0].name.partition(".")[0])
        hint = f"it has {', '.join(f.name for f in parts)}; a file of all pairs that are to be divided is called pairs{ending}"
    if role in PARTS and data_file(folder, "pairs") is not None:
        hint = f"n2kit data split {folder} makes it of its pairs"
    elif role in (*PARTS, "pairs") and data_file(folder, "events") is not None:
        hint = f"n2kit data mine --events {data_file(folder, 'events')} -o {folder} --split time makes it of its events"
    raise BadInput(f"{folder} has no {role} file", hint)
