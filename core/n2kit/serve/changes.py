"""Items that are put into an index that is served, or taken out: written to its folder before the answer, several requests at once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from n2kit.data.items import Item, Items
from n2kit.embed.vectors_file import Vectors
from n2kit.errors import BadInput
from n2kit.index import StoredIndex, Titles
from n2kit.index.folder import KIND
from n2kit.index.in_store import InStore
from n2kit.index.update import update_index
from n2kit.serve.columns import Columns, facts_of
from n2kit.serve.options import LOOPBACK, ServeOptions
from n2kit.serve.problems import Problem
from n2kit.utils.folders import ensure_writable
from n2kit.utils.locks import InUseError


@dataclass(frozen=True)
class Change:
    """An item that is put in with its vector [d] and a user's own columns of it; or its id alone, of one that is taken out."""

    id: str
    item: Item | None = None
    vector: np.ndarray | None = None
    columns: Columns = field(default_factory=dict)


def write_changes(folder: Path, stored: StoredIndex, changes: Sequence[Change]) -> StoredIndex:
    """Write changes to an index folder, the last one of an id, and return the index as it is now.

    Raises:
        Problem: another process writes the folder; a text for a column of numbers. BadInput: no item would be left.
    """
    last = {change.id: change for change in changes}
    put = [change for change in last.values() if change.item is not None]
    gone = [change.id for change in last.values() if change.item is None and change.id in stored.position]
    vectors = titles = facts = None
    if put:
        items = [change.item for change in put if change.item is not None]
        ids = [item.id for item in items]
        rows = [change.vector for change in put if change.vector is not None]
        vectors = Vectors(ids, np.stack(rows), stored.fingerprint)
        titles = Titles(Items(items), whole=frozenset(ids))
        columns = {change.id: change.columns for change in put}
        facts = facts_of(
            columns, [item.category for item in items], stored.facts, typed=isinstance(stored.index, InStore)
        )
    try:
        return update_index(folder, vectors, delete=gone, titles=titles, facts=facts).stored
    except InUseError as problem:
        raise Problem(503, problem.message, "try again") from None


def why_read_only(folder: Path, options: ServeOptions) -> str | None:
    """Say why an index is not changed by requests; None where it is."""
    if options.read_only:
        return "--read-only"
    if options.api_key is None and options.host not in LOOPBACK:
        return f"anybody who reaches {options.host} could change it: --api-key"
    try:
        ensure_writable(folder, KIND, force=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.resolve().parent):
            return None
    except BadInput as problem:
        return problem.message
    except OSError as problem:
        return f"{folder.parent} cannot be written: {problem.strerror}"


def refuse_changes(name: str, reason: str | None) -> None:
    """Refuse a change of an index that is read-only.

    Raises:
        Problem: there is a reason.
    """
    if reason is not None:
        raise Problem(403, f"{name} is read-only ({reason})")
