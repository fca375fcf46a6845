"""Items in several files: a folder of Parquet or tar shards stands for one file of items."""

from __future__ import annotations

from pathlib import Path

from n2kit.errors import BadInput

ENDINGS = (".parquet", ".tar")


def shards_of(path: Path) -> list[Path]:
    """List the files that a path of items stands for: itself, or the shards in a folder, by name.

    Raises:
        BadInput: no such file, or a folder without shards, or with shards of two kinds.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadInput(f"no items file {path}", "give a CSV, TSV, JSONL or Parquet file, or a folder of shards")
    found = {ending: sorted(f for f in path.glob(f"[!.]*{ending}") if f.is_file()) for ending in ENDINGS}
    if all(found.values()):
        raise BadInput(f"{path} has shards of Parquet and of tar", "give a folder of one kind")
    if not any(found.values()):
        hint = (
            f"a data folder: --data {path}"
            if any(path.glob("items*"))
            else "Parquet or tar files, as n2kit data pack writes them"
        )
        raise BadInput(f"{path} is a folder without shards of items", hint)
    return [file for files in found.values() for file in files]
