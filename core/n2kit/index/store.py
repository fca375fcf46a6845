"""Building of indexes from embed files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.embed.reading import InMemory, cut, cut_width, open_vectors
from n2kit.errors import BadInput
from n2kit.index.choice import choose_index, is_store, made_by
from n2kit.index.facts import Facts
from n2kit.index.folder import KIND, StoredIndex, load_index, write_index
from n2kit.index.in_store import InStore, in_its_folder
from n2kit.index.store_building import build_store
from n2kit.index.titles import Titles
from n2kit.index.unit_length import check_unit_length
from n2kit.plugins.component import Component
from n2kit.utils.files import disk_full_guard, sync_tree
from n2kit.utils.folders import atomic_dir, ensure_writable
from n2kit.utils.locks import output_lock

if TYPE_CHECKING:
    from n2kit.embed.reading import VectorSource
    from n2kit.embed.vectors_file import Vectors


def build_index(
    vectors_file: Path,
    folder: Path,
    *,
    name: str = "flat",
    options: Mapping[str, Any] | None = None,
    titles: Titles | None = None,
    facts: Facts | None = None,
    dim: int | None = None,
    force: bool = False,
) -> StoredIndex:
    """Index an embed file, or a folder of vectors, and write the index folder, aside and then into place.

    Args:
        name, options: as `choose_index` takes them. dim: the first numbers of each vector that are indexed; None: all.
        titles, facts: of the items, to be remembered with the index.
    """
    component = choose_index(name, options)
    ensure_writable(folder, KIND, force=force)
    where = str(vectors_file)
    with output_lock(folder):
        source = cut(open_vectors(vectors_file), dim)
        if is_store(component):
            return build_store(source, component, folder, where, titles=titles, facts=facts, force=force)
        stored = replace(index_source(source, component, where), titles=titles, facts=facts)
        save_index(stored, folder, force=force)
    return stored


def save_index(stored: StoredIndex, folder: Path, *, force: bool = False) -> None:
    """Write the folder of an index.

    Raises:
        BadInput: something is in the way; the index is in a store, which has a folder of its own.
    """
    if isinstance(stored.index, InStore):
        raise in_its_folder(f"index {stored.made_by.component}")
    ensure_writable(folder, KIND, force=force)
    with disk_full_guard(f"{folder} cannot be written", "free some space, and index again"), output_lock(folder):
        ensure_writable(folder, KIND, force=force)  # now that no other process writes it
        with atomic_dir(folder) as staged:
            write_index(stored, staged)
            load_index(staged)  # a library may not say that the disk is full
            sync_tree(staged)


def index_of(vectors_file: Path, component: Component | None = None) -> StoredIndex:
    """Index an embed file, or a folder of vectors, in memory; by default with an exact index.

    Raises:
        BadInput: it is neither, or its vectors are not of unit length.
    """
    return index_source(open_vectors(vectors_file), component or choose_index("flat"), str(vectors_file))


def index_vectors(table: Vectors, component: Component, where: str = "vectors") -> StoredIndex:
    """Index vectors in memory.

    Raises:
        BadInput: they are not of unit length.
    """
    return index_source(InMemory(table), component, where)


def index_source(source: VectorSource, component: Component, where: str) -> StoredIndex:
    """Index vectors that are read a piece at a time.

    Raises:
        BadInput: they are not of unit length; an id is there twice.
    """
    if is_store(component):
        raise in_its_folder(f"index {component.reference}")
    ids: list[str] = []

    def pieces() -> Iterator[np.ndarray]:
        ids.clear()
        for batch in source.batches():
            check_unit_length(batch, where)
            ids.extend(batch.ids)
            yield batch.vectors

    config, cls = component.config(), component.cls()
    with component.attribute_errors():
        index = cls.build_from(pieces, len(source), source.width, config)
    if len(set(ids)) != len(ids):
        raise BadInput(f"{where}: an id is there twice", "one row an item: embed again")
    return StoredIndex(index, ids, source.fingerprint, made_by(component), dim=cut_width(source))
