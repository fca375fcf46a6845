"""The change of an index to the vectors of another model: the two compared, and switched when the new ones are whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from n2kit.embed.reading import VectorSource, cut, cut_width, open_vectors
from n2kit.errors import BadInput
from n2kit.index.choice import choose_index, is_store
from n2kit.index.comparing import K, Piece, exact_neighbours, sample_of, shared
from n2kit.index.facts import Facts
from n2kit.index.folder import StoredIndex, load_index
from n2kit.index.store import build_index
from n2kit.index.store_building import close
from n2kit.index.titles import Titles, newer_titles
from n2kit.index.unit_length import check_unit_length
from n2kit.utils.locks import output_lock

BLOCK = 8192  # vectors that are read together


@dataclass(frozen=True)
class Migration:
    """Two models' vectors of one catalogue, compared.

    missing: ids of the index that have no new vector. added: new ids. compared: items whose K exact neighbours were looked at, among those
    that both have; overlap: the mean share of them that is the same; first: the share of items whose nearest is the same.
    """

    before: str
    after: str
    items: int
    added: int
    missing: list[str]
    compared: int
    overlap: float
    first: float
    switched: bool
    dim: int | None  # to which the new vectors were cut


def migrate(
    folder: Path,
    vectors: Path,
    *,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    titles: Titles | None = None,
    facts: Facts | None = None,
    dim: int | None = None,
) -> Migration:
    """Compare an index with another model's vectors, and build it anew of those in its place, if no item of it is missing.

    Args:
        name, options: of the new index; by default those of the one that is there.
        titles, facts: newer ones; what the index remembers stays. dim: the first numbers of each new vector; None: as many as the index
            was cut to, if it was.

    Raises:
        BadInput: vectors of the same model; two that have no two items in common; a store whose table would be replaced in its place.
    """
    with output_lock(folder):
        before, whole = load_index(folder), open_vectors(vectors)
        dim = before.cut_width(whole.width) if dim is None else dim
        source = cut(whole, dim)
        if source.fingerprint == before.fingerprint:
            raise BadInput(f"{vectors} is of the model that made the index", "--upsert puts its vectors in")
        kind = before.made_by.component if name is None else name
        own = {**before.made_by.options, **(options or {})} if name is None else dict(options or {})
        _check_place(before, kind, own)
        new = _ids(source, str(vectors))
        missing = [item_id for item_id in before.ids if item_id not in new]
        compared, overlap, first = _compare(before, source, new)
        added = len(new) - (len(before.ids) - len(missing))
        if not missing:
            ids = list(new)
            merged = facts if before.facts is None else before.facts.with_newer(facts, ids)
            named = newer_titles(before.titles, titles, ids)
            close(before)
            close(build_index(vectors, folder, name=kind, options=own, titles=named, facts=merged, dim=dim, force=True))
    return Migration(
        before.fingerprint,
        source.fingerprint,
        len(new),
        added,
        missing,
        compared,
        overlap,
        first,
        not missing,
        cut_width(source),
    )


def _check_place(before: StoredIndex, kind: str, options: Mapping[str, Any]) -> None:
    """Refuse a store elsewhere that would be emptied before the new one is whole.

    Raises:
        BadInput: it is one.
    """
    component = choose_index(kind, options)
    same = dict(before.made_by.options) == component.config().model_dump(mode="json")
    if is_store(component) and same and options.get("url"):
        raise BadInput(
            f"the new vectors would take the place of the old ones at {options['url']} before they are whole",
            f"another table or collection: --type {kind} --set index.url=… and its name",
        )


def _ids(source: VectorSource, where: str) -> dict[str, int]:
    """Number the ids of vectors, which must be of unit length."""
    ids: dict[str, int] = {}
    for batch in source.batches():
        check_unit_length(batch, where)
        for item_id in batch.ids:
            ids[item_id] = len(ids)
    return ids


def _compare(before: StoredIndex, source: VectorSource, new: Mapping[str, int]) -> tuple[int, float, float]:
    """Compare the exact neighbours of a sample: its size, the mean overlap, and the share whose nearest is the same."""
    common = np.array([row for row, item_id in enumerate(before.ids) if item_id in new], np.int64)
    if len(common) < 2:
        raise BadInput(
            "the index and the new vectors have no two items in common", "give vectors of the same catalogue"
        )
    sample = sample_of(common)
    k = min(K, len(common) - 1)
    old = exact_neighbours(sample, lambda: _rows_of(before, common), k)
    renewed = exact_neighbours(sample, lambda: _batches_of(source, before), k)
    return len(sample), shared(old, renewed), float((old[:, 0] == renewed[:, 0]).mean())


def _rows_of(before: StoredIndex, rows: np.ndarray) -> Iterator[Piece]:
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        yield some, before.index.vectors(some)


def _batches_of(source: VectorSource, before: StoredIndex) -> Iterator[Piece]:
    """Yield the vectors of items that the index has too, by its rows."""
    for batch in source.batches():
        rows = np.array([before.position.get(item_id, -1) for item_id in batch.ids], np.int64)
        yield rows[rows >= 0], batch.vectors[rows >= 0]
