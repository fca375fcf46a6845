"""Building of indexes from embed files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.contract.index import Index
from n2kit.errors import BadInput
from n2kit.index.facts import Facts
from n2kit.index.folder import KIND, MadeBy, StoredIndex, load_index, write_index
from n2kit.index.titles import Titles
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.component import Component
from n2kit.utils.files import disk_full_guard, sync_tree
from n2kit.utils.folders import atomic_dir, ensure_writable
from n2kit.utils.locks import output_lock

if TYPE_CHECKING:
    from n2kit.embed.reading import VectorSource
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
    if not issubclass(cls := chosen.cls(), Index):
        raise chosen.fault(f"its class {cls.__name__} is no Index of n2kit.contract")
    return chosen


def build_index(
    vectors_file: Path,
    folder: Path,
    *,
    name: str = "flat",
    options: Mapping[str, Any] | None = None,
    titles: Titles | None = None,
    facts: Facts | None = None,
    force: bool = False,
) -> StoredIndex:
    """Index an embed file, or a folder of vectors, and write the index folder, aside and then into place.

    Args:
        name, options: as `choose_index` takes them.
        titles, facts: of the items, to be remembered with the index.
    """
    component = choose_index(name, options)
    ensure_writable(folder, KIND, force=force)
    with output_lock(folder):
        stored = replace(index_of(vectors_file, component), titles=titles, facts=facts)
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
            sync_tree(staged)


def index_of(vectors_file: Path, component: Component | None = None) -> StoredIndex:
    """Index an embed file, or a folder of vectors, in memory; by default with an exact index.

    Raises:
        BadInput: it is neither, or its vectors are not of unit length.
    """
    from n2kit.embed.reading import open_vectors

    return index_source(open_vectors(vectors_file), component or choose_index("flat"), str(vectors_file))


def index_vectors(table: Vectors, component: Component, where: str = "vectors") -> StoredIndex:
    """Index vectors in memory.

    Raises:
        BadInput: they are not of unit length.
    """
    from n2kit.embed.reading import InMemory

    return index_source(InMemory(table), component, where)


def index_source(source: VectorSource, component: Component, where: str) -> StoredIndex:
    """Index vectors that are read a piece at a time.

    Raises:
        BadInput: they are not of unit length; an id is there twice.
    """
    ids: list[str] = []

    def pieces() -> Iterator[np.ndarray]:
        ids.clear()
        for batch in source.batches():
            check_unit_length(batch, where)
            ids.extend(batch.ids)
            yield batch.vectors

    config, owner = component.config(), component.registered
    cls = component.cls()
    with component.attribute_errors():
        index = cls.build_from(pieces, len(source), source.width, config)
    if len(set(ids)) != len(ids):
        raise BadInput(f"{where}: an id is there twice", "one row an item: embed again")
    made_by = MadeBy(owner.spec.name, owner.distribution, config.model_dump(mode="json"))
    return StoredIndex(index, ids, source.fingerprint, made_by)


def check_unit_length(table: Vectors, where: str) -> None:
    """Check that vectors are of unit length.

    Raises:
        BadInput: some are not.
    """
    square = np.einsum("nd,nd->n", table.vectors, table.vectors)
    wrong = ~((square > 0.98) & (square < 1.02))
    if wrong.any():
        raise BadInput(
            f"{where}: the vector of {table.ids[int(wrong.argmax())]!r} is not of unit length ({int(wrong.sum())} such)",
            "n2kit embed makes unit vectors",
        )
