"""Changes of an index by ids: new and changed items in, others out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from n2kit.embed.reading import open_vectors
from n2kit.embed.vectors_file import Vectors
from n2kit.errors import BadInput, suggest
from n2kit.index.facts import Facts
from n2kit.index.folder import StoredIndex, load_index
from n2kit.index.store import check_unit_length, choose_index, save_index
from n2kit.index.titles import Titles
from n2kit.utils.locks import output_lock


@dataclass(frozen=True)
class Updated:
    """An index that was changed, and by how many items."""

    stored: StoredIndex
    added: int
    replaced: int
    deleted: int


def update_index(
    folder: Path,
    vectors: Path | Vectors | None = None,
    *,
    delete: Sequence[str] = (),
    titles: Titles | None = None,
    facts: Facts | None = None,
) -> Updated:
    """Put vectors into an index, in place of those of the same ids, and delete others. The folder is replaced in one step.

    Args:
        vectors: a file of vectors, or the vectors themselves.
        titles, facts: of the new items.

    Raises:
        BadInput: vectors of another model; an id to delete that is not there; no item is left.
    """
    with output_lock(folder):
        before = load_index(folder)
        new = _checked(before, vectors) if isinstance(vectors, Vectors) else _read(before, vectors)
        if unknown := [item_id for item_id in delete if item_id not in before.position]:
            more = f" ({len(unknown)} such ids)" if len(unknown) > 1 else ""
            hint = suggest(unknown[0], before.ids) or "delete what is there"
            raise BadInput(f"item {unknown[0]!r} is not in the index{more}", hint)
        ids = new.ids if new is not None else []
        changed = updated(before, new, delete)
        changed = replace(changed, titles=_titles(before.titles, titles, changed.ids))
        if before.facts is not None or facts is not None:
            changed = replace(changed, facts=(before.facts or Facts([], {})).with_newer(facts, changed.ids))
        save_index(changed, folder, force=True)
    replaced = sum(item_id in before.position for item_id in ids)
    return Updated(changed, len(ids) - replaced, replaced, len(set(delete) - set(ids)))


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
    return StoredIndex(before.index.updated(stay, vectors, config), ids, before.fingerprint, before.made_by)


def _read(before: StoredIndex, path: Path | None) -> Vectors | None:
    if path is None:
        return None
    source = open_vectors(path)
    _check(before, source.fingerprint, source.width, str(path))
    batches = list(source.batches())
    ids = [item_id for batch in batches for item_id in batch.ids]
    table = Vectors(ids, np.concatenate([batch.vectors for batch in batches]), source.fingerprint)
    return _checked(before, table, str(path))


def _checked(before: StoredIndex, table: Vectors, where: str = "the new vectors") -> Vectors:
    _check(before, table.fingerprint, table.vectors.shape[1], where)
    check_unit_length(table, where)
    return table


def _check(before: StoredIndex, fingerprint: str, width: int, where: str) -> None:
    if fingerprint != before.fingerprint:
        raise BadInput(
            f"the index is of model {before.fingerprint}, and {where} is of model {fingerprint}",
            "embed with the model that made the index, or index all anew",
        )
    if width != (own := before.width):
        raise BadInput(f"the index is {own} wide, and {where} {width}", "embed with the same --dim")


def _titles(before: Titles | None, new: Titles | None, ids: list[str]) -> Titles | None:
    """Take the new items' titles, and the others' from before."""
    if before is None or new is None:
        return new or before
    from n2kit.data.items import Items

    of = [new.items if item_id in new.items else before.items for item_id in ids]
    items = Items([some[i] for some, i in zip(of, ids, strict=True) if i in some])
    whole = new.whole | {item_id for item_id in before.whole if item_id not in new.items}
    return Titles(items, new.images or before.images, whole.intersection(ids))
