"""Indexes in stores: built from vectors that are read a piece at a time, and changed in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from n2kit.embed.reading import cut_width
from n2kit.embed.vectors_file import Vectors
from n2kit.errors import BadInput
from n2kit.index.choice import MANIFEST, made_by
from n2kit.index.facts import Facts
from n2kit.index.folder import KIND, StoredIndex, load_index
from n2kit.index.in_store import InStore
from n2kit.index.store_folder import (
    DATA,
    TITLE,
    StoreManifest,
    component_of,
    finds_words,
    open_store,
    rows_of,
    with_columns,
)
from n2kit.index.titles import Titles, newer_titles
from n2kit.index.unit_length import check_unit_length
from n2kit.utils.files import disk_full_guard, read_json
from n2kit.utils.folders import atomic_dir, ensure_writable
from n2kit.utils.locks import output_lock

if TYPE_CHECKING:
    from n2kit.contract.store import Store
    from n2kit.embed.reading import VectorSource
    from n2kit.plugins.component import Component

AT_ONCE = 8192  # rows that go into a store together


def build_store(
    source: VectorSource,
    component: Component,
    folder: Path,
    where: str,
    *,
    titles: Titles | None = None,
    facts: Facts | None = None,
    force: bool = False,
) -> StoredIndex:
    """Put vectors into a new store, with what is known of their items.

    Raises:
        BadInput: vectors that are not of unit length; something is in the way. Unavailable: the store cannot be reached.
    """
    ensure_writable(folder, KIND, force=force)
    maker, images = made_by(component), titles.images if titles is not None else None
    empty = StoreManifest(
        component=maker.component, distribution=maker.distribution, options=dict(maker.options),
        fingerprint=source.fingerprint, width=source.width, dim=cut_width(source), images=None if images is None else str(images.resolve()),
    )  # fmt: skip
    manifest = with_columns(empty, facts)
    check_vectors(source, where)
    with disk_full_guard(f"{folder} cannot be written", "free some space, and index again"), output_lock(folder):
        ensure_writable(folder, KIND, force=force)
        with atomic_dir(folder) as staged:
            (staged / DATA).mkdir()
            with component.attribute_errors():
                cls = component.cls()
                store: Store = cls.create(
                    staged / DATA, source.width, manifest.fields, component.config(), replace=force
                )
                try:
                    for batch in _pieces(source):
                        store.insert(batch.ids, batch.vectors, rows_of(batch.ids, manifest, titles, facts))
                    _finish(store, component, titled=titles is not None)
                finally:
                    store.close()
            manifest.write(staged)
            close(load_index(staged))
    return load_index(folder)


def change_store(
    folder: Path,
    before: StoredIndex,
    source: VectorSource | None,
    delete: Sequence[str],
    titles: Titles | None,
    facts: Facts | None,
) -> StoredIndex:
    """Put vectors into the store of an index, and delete others. Killed, it holds some of the change; the same command finishes it.

    Raises:
        BadInput: a column of another type; no item would be left.
    """
    new = set() if source is None else {item_id for batch in source.batches() for item_id in batch.ids}
    gone = [item_id for item_id in delete if item_id not in new]
    if not new and len(set(gone)) == len(before.ids):
        raise BadInput("no item is left in the index", "remove its folder")
    facts = facts if facts is None or before.facts is None else facts.named_as_in(before.facts)
    manifest = with_columns(StoreManifest.model_validate(read_json(folder / MANIFEST)), facts)
    manifest.revision += 1
    if titles is not None and titles.images is not None:
        manifest.images = str(titles.images.resolve())
    close(before)
    component = component_of(manifest)
    store = open_store(folder, component)
    with component.attribute_errors():
        try:
            store.add_fields(manifest.fields)
            manifest.write(folder)
            for batch in _pieces(source) if source is not None else ():
                store.upsert(batch.ids, batch.vectors, _rows(batch.ids, manifest, before, titles, facts))
            for start in range(0, len(gone), AT_ONCE):
                store.delete(gone[start : start + AT_ONCE])
            _finish(store, component, titled=titles is not None or before.titles is not None)
        finally:
            store.close()
    return load_index(folder)


def _rows(
    ids: list[str], manifest: StoreManifest, before: StoredIndex, titles: Titles | None, facts: Facts | None
) -> dict[str, np.ndarray]:
    """Make the fields of rows: the new ones where there are any, and those of before."""
    merged = facts if before.facts is None else before.facts.with_newer(facts, ids)
    return rows_of(ids, manifest, newer_titles(before.titles, titles, ids), merged)


def check_vectors(source: VectorSource, where: str) -> None:
    """Check vectors before any is written.

    Raises:
        BadInput: they are not of unit length; an id is there twice.
    """
    ids: set[str] = set()
    for batch in source.batches():
        check_unit_length(batch, where)
        ids.update(batch.ids)
    if len(ids) != len(source):
        raise BadInput(f"{where}: an id is there twice", "one row an item: embed again")


def _pieces(source: VectorSource) -> Iterator[Vectors]:
    """Yield the vectors in pieces of about `AT_ONCE`: a store writes something for each."""
    held: list[Vectors] = []
    for batch in source.batches():
        for start in range(0, len(batch.ids), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            held.append(Vectors(batch.ids[some], batch.vectors[some], batch.fingerprint))
            if sum(len(one.ids) for one in held) >= AT_ONCE:
                yield _joined(held)
                held = []
    if held:
        yield _joined(held)


def _joined(held: list[Vectors]) -> Vectors:
    ids = [item_id for one in held for item_id in one.ids]
    return Vectors(ids, np.concatenate([one.vectors for one in held]), held[0].fingerprint)


def _finish(store: Store, component: Component, *, titled: bool) -> None:
    if titled and finds_words(component):
        store.index_words(TITLE)
    store.compact()


def close(stored: StoredIndex) -> None:
    """Let go of the store of an index, if it is in one."""
    if isinstance(stored.index, InStore):
        stored.index.store.close()
