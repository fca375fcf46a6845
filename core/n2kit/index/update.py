"""Changes of an index by ids: new and changed items in, others out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from n2kit.embed.reading import InMemory, VectorSource, cut, open_vectors
from n2kit.embed.vectors_file import Vectors
from n2kit.errors import BadInput
from n2kit.index.choice import choose_index
from n2kit.index.facts import Facts
from n2kit.index.folder import StoredIndex, load_index
from n2kit.index.in_store import InStore
from n2kit.index.store import save_index
from n2kit.index.store_building import change_store
from n2kit.index.titles import Titles, newer_titles
from n2kit.index.unit_length import check_unit_length
from n2kit.utils.locks import output_lock


@dataclass(frozen=True)
class Updated:
    """An index that was changed, and by how many items; unnamed: of those put in, how many the items given, or known, do not tell of."""

    stored: StoredIndex
    added: int
    replaced: int
    deleted: int
    unnamed: int = 0


def update_index(
    folder: Path,
    vectors: Path | Vectors | None = None,
    *,
    delete: Sequence[str] = (),
    titles: Titles | None = None,
    facts: Facts | None = None,
    dim: int | None = None,
    deletions: str = "",
) -> Updated:
    """Put vectors into an index, in place of those of the same ids, and delete others.

    The folder is replaced in one step; a store changes in place, and the same command finishes a change that was cut short.

    Args:
        vectors: a file of vectors, or the vectors themselves.
        titles, facts: of the new items. dim: the first numbers of each vector that the index has; None: as it was built.
        deletions: where the ids to delete come from, for people.

    Raises:
        BadInput: vectors of another model; an id to delete that is not there; no item is left.
    """
    whole, where = _source(vectors), "the new vectors" if isinstance(vectors, Vectors) else str(vectors)
    with output_lock(folder):
        before, source = load_index(folder), None
        if whole is not None:
            source = cut(whole, before.cut_width(whole.width) if dim is None else dim)
            _check(before, source, where)
        delete = _there(before, delete, deletions)
        ids = set() if source is None else {item_id for batch in source.batches() for item_id in batch.ids}
        if isinstance(before.index, InStore):
            changed = change_store(folder, before, source, delete, titles, facts)
        else:
            changed = updated(before, None if source is None else _read(source), delete)
            changed = replace(changed, titles=newer_titles(before.titles, titles, changed.ids))
            if before.facts is not None or facts is not None:
                changed = replace(changed, facts=(before.facts or Facts([], {})).with_newer(facts, changed.ids))
            save_index(changed, folder, force=True)
    replaced, known = len(ids & before.position.keys()), titles or before.titles
    unnamed = 0 if known is None else sum(item_id not in known.items for item_id in ids)
    return Updated(changed, len(ids) - replaced, replaced, len(set(delete) - ids), unnamed)


def _there(before: StoredIndex, delete: Sequence[str], where: str) -> list[str]:
    """Return the ids to delete that are there: of a store all may not be, where the same deletion was cut short.

    Raises:
        BadInput: an id is not in the index; of a store, none is.
    """
    known = [item_id for item_id in delete if item_id in before.position]
    unknown = [item_id for item_id in delete if item_id not in before.position]
    if unknown and not (known and isinstance(before.index, InStore)):
        more = f" ({len(unknown)} such ids)" if len(unknown) > 1 else ""
        raise BadInput(f"{where and f'{where}: '}item {unknown[0]!r} is not in the index{more}", "delete what is there")
    return known


def updated(before: StoredIndex, new: Vectors | None, delete: Sequence[str] = ()) -> StoredIndex:
    """Make the index without the items to delete, and with the new ones behind the others.

    Raises:
        BadInput: no item is left.
    """
    gone = {*delete, *(new.ids if new is not None else ())}
    stay = np.array([row for row, item_id in enumerate(before.ids) if item_id not in gone], np.int64)
    ids = [before.ids[row] for row in stay] + (new.ids if new is not None else [])
    if not ids:
        raise BadInput("no item is left in the index", "remove its folder")
    vectors = new.vectors if new is not None else np.zeros((0, before.width), np.float32)
    config = choose_index(before.made_by.component, before.made_by.options).config()
    index = before.index.updated(stay, vectors, config)
    return StoredIndex(index, ids, before.fingerprint, before.made_by, dim=before.dim)


def _source(vectors: Path | Vectors | None) -> VectorSource | None:
    if vectors is None:
        return None
    return InMemory(vectors) if isinstance(vectors, Vectors) else open_vectors(vectors)


def _read(source: VectorSource) -> Vectors:
    batches = list(source.batches())
    ids = [item_id for batch in batches for item_id in batch.ids]
    return Vectors(ids, np.concatenate([batch.vectors for batch in batches]), source.fingerprint)


def _check(before: StoredIndex, source: VectorSource, where: str) -> None:
    """Check that vectors are of the index's model and width, and of unit length, before any is put in."""
    if source.fingerprint != before.fingerprint:
        raise BadInput(
            f"the index is of model {before.fingerprint}, and {where} is of model {source.fingerprint}",
            "embed with the model that made the index, or index all anew",
        )
    if source.width != before.width:
        fits = (
            f"--dim {before.width}" if source.width > before.width else "embed with as many numbers, or index all anew"
        )
        raise BadInput(f"the index is {before.width} wide, and {where} {source.width}", fits)
    for batch in source.batches():
        check_unit_length(batch, where)
