"""Building of indexes from embed files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.errors import BadInput
from n2kit.index.folder import KIND, MadeBy, StoredIndex, load_index, write_index
from n2kit.index.titles import Titles
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.component import Component
from n2kit.utils.files import disk_full_guard
from n2kit.utils.folders import atomic_dir, ensure_writable
from n2kit.utils.locks import output_lock

if TYPE_CHECKING:
    from n2kit.embed.vectors_file import Vectors


def choose_index(name: str, options: Mapping[str, Any] | None = None) -> Component:
    """Resolve a reference to an index, such as `flat` or `NAME:VALUE`, before any vector is read.

    Args:
        options: of the component, over those of the reference.

    Raises:
        BadInput: an unknown name, an option that it does not have, or a value that it does not take.
        Unavailable: its plug-in or a package of it is not there.
    """
    chosen = default_catalogue().resolve("index", name)
    chosen = replace(chosen, options={**chosen.options, **(options or {})})
    chosen.config()
    chosen.cls()
    return chosen


def build_index(
    vectors_file: Path,
    folder: Path,
    *,
    name: str = "flat",
    options: Mapping[str, Any] | None = None,
    titles: Titles | None = None,
    force: bool = False,
) -> StoredIndex:
    """Index an embed file and write the index folder, aside and then into place.

    Args:
        name, options: as `choose_index` takes them.
        titles: of the items, to be remembered with the index.
    """
    component = choose_index(name, options)
    ensure_writable(folder, KIND, force=force)
    with output_lock(folder):
        stored = replace(index_of(vectors_file, component), titles=titles)
        save_index(stored, folder, force=force)
    return stored


def save_index(stored: StoredIndex, folder: Path, *, force: bool = False) -> None:
    """Write the folder of an index."""
    ensure_writable(folder, KIND, force=force)
    with disk_full_guard(f"{folder} cannot be written", "free some space, and index again"), output_lock(folder):
        ensure_writable(folder, KIND, force=force)  # now that no other process writes it
        with atomic_dir(folder) as staged:
            write_index(stored, staged)
            load_index(staged)  # a library may not say that the disk is full


def index_of(vectors_file: Path, component: Component | None = None) -> StoredIndex:
    """Index an embed file in memory; by default with an exact index.

    Raises:
        BadInput: the file is no embed file, or its vectors are not of unit length.
    """
    from n2kit.embed import read_vectors

    return index_vectors(read_vectors(vectors_file), component or choose_index("flat"), str(vectors_file))


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
    config, owner = component.config(), component.registered
    with component.attribute_errors():
        index = component.cls().build(table.vectors, config)
    made_by = MadeBy(owner.spec.name, owner.distribution, config.model_dump(mode="json"))
    return StoredIndex(index, table.ids, table.fingerprint, made_by)
