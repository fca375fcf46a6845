"""Folders that an export writes: known again by their list of files, and nothing else is ever replaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from n2kit.errors import BadInput
from n2kit.utils.files import disk_full_guard, read_json, write_json
from n2kit.utils.folders import FolderKind, atomic_dir, ensure_writable, entries
from n2kit.utils.locks import output_lock

FILE = "n2kit.json"


def _written(folder: Path) -> set[str] | None:
    try:
        files = read_json(folder / FILE).get("files")
    except (BadInput, OSError):
        return None
    return {FILE, *map(str, files)} if isinstance(files, list) else None


KIND = FolderKind("an export", _written)


@contextmanager
def exported(out: Path, force: bool, facts: dict[str, Any]) -> Iterator[Path]:
    """Give an empty folder to write into, which takes the place of `out` with a list of its files and these facts.

    Raises:
        BadInput: something is in the way, or an export and `force` not set.
    """
    ensure_writable(out, KIND, force=force)
    with disk_full_guard(f"{out} cannot be written", "free some space, and export again"), output_lock(out):
        ensure_writable(out, KIND, force=force)
        with atomic_dir(out) as staged:
            yield staged
            write_json(staged / FILE, facts | {"files": sorted(entries(staged))})
