"""Building of indexes from embed files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from n2kit.errors import BadInput
from n2kit.index.folder import KIND, StoredIndex, load_index, write_index
from n2kit.index.titles import Titles
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.component import Component
from n2kit.utils.files import disk_full_guard
from n2kit.utils.folders import atomic_dir, ensure_writable
from n2kit.utils.locks import output_lock

if TYPE_CHECKING:
    from n2kit.embed.vectors_file import Vectors


def build_index(
    vectors_file: Path, folder: Path, *, name: str = "flat", titles: Titles | None = None, force: bool = False
) -> StoredIndex:
    """Index an embed file and write the index folder, aside and then into place.

    Args:
        titles: of the items, to be remembered with the index.
    """
    ensure_writable(folder, KIND, force=force)
    component = default_catalogue().resolve("index", name)
    with output_lock(folder):
        stored = replace(index_of(vectors_file, component), titles=titles)
        save_index(stored, component, folder, force=force)
    return stored


def save_index(stored: StoredIndex, component: Component, folder: Path, *, force: bool = False) -> None:
    """Write the folder of an index that `component` made."""
    ensure_writable(folder, KIND, force=force)
    with disk_full_guard(f"{folder} cannot be written", "free some space, and index again"), output_lock(folder):
        ensure_writable(folder, KIND, force=force)  # now that no other process writes it
        with atomic_dir(folder) as staged:
            write_index(stored, component.registered, staged)
            load_index(staged)  # a library may not say that the disk is full


def index_of(vectors_file: Path, component: Component | None = None) -> StoredIndex:
    """Index an embed file in memory; by default with an exact index.

    Raises:
        BadInput: the file is no embed file, or its vectors are not of unit length.
    """
    from n2kit.embed import read_vectors

    return index_vectors(
        read_vectors(vectors_file), component or default_catalogue().resolve("index", "flat"), str(vectors_file)
    )


def index_vectors(table: Vectors, component: Component, where: str = "vectors") -> StoredIndex:
    """Index vectors in memory.

    Raises:
        BadInput: they are not of unit length.
    """
    long = (table.vectors**2).sum(1)
    if wrong := [i for i, square in zip(table.ids, long, strict=True) if not 0.98 < square < 1.02]:
        raise BadInput(
            f"{where}: the vector of {wrong[0]!r} is not of unit length ({len(wrong)} such)",
            "n2kit embed makes unit vectors",
        )
    return StoredIndex(component.cls().build(table.vectors), table.ids, table.fingerprint)
