"""An index folder: the plug-in's own files, the ids, and a manifest with their hashes and the model that made the vectors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from n2kit.contract.index import Index
from n2kit.errors import BadInput, N2kitError, Unavailable, counted
from n2kit.index.choice import MANIFEST, MadeBy
from n2kit.index.facts import Facts, is_empty, load_facts, write_facts
from n2kit.index.outputs import watch
from n2kit.index.store_folder import STORE_FORMAT, TYPES, StoreManifest, opened, read_manifest, written
from n2kit.index.titles import Titles, read_titles, write_titles
from n2kit.plugins.blame import blaming
from n2kit.plugins.manager import load_target, manager
from n2kit.utils.digests import file_digest
from n2kit.utils.files import parse_json, read_json
from n2kit.utils.folders import FolderKind, differences, entries

FORMAT = 2  # 1 has no hashes: what is in such a folder cannot be checked
IDS = "ids.json"
FIRST_FORMAT = {MANIFEST, IDS, "flat.faiss"}  # the files of format 1, which has no list of them


class Neighbour(NamedTuple):
    id: str
    score: float


@dataclass
class StoredIndex:
    """An index with the ids of its rows, the fingerprint of the model that made its vectors, and what made the index.

    dim: the first numbers of vectors that `n2kit index --dim` asked for; None: all.
    """

    index: Index
    ids: list[str]
    fingerprint: str
    made_by: MadeBy
    titles: Titles | None = None  # where the index remembers them
    facts: Facts | None = None  # likewise
    dim: int | None = None

    def __post_init__(self) -> None:
        self.position = {item_id: i for i, item_id in enumerate(self.ids)}
        watch(self.index)

    @cached_property
    def id_column(self) -> np.ndarray:
        """The ids as a column for conditions: [n]."""
        return np.array(self.ids, object)

    @property
    def width(self) -> int:
        """The number of a vector's numbers."""
        return self.index.width

    def near_item(self, item_id: str, k: int) -> list[Neighbour]:
        """Find the k nearest other items.

        Raises:
            BadInput: the item is not in the index.
        """
        return self.near_vector(self.vector_of(item_id), k, without=item_id)

    def vector_of(self, item_id: str) -> np.ndarray:
        """Return the vector of an item: [d].

        Raises:
            BadInput: the item is not in the index.
        """
        if item_id not in self.position:
            from n2kit.errors import suggest

            raise BadInput(
                f"item {item_id!r} is not in the index",
                suggest(item_id, self.ids) or "embed and index it first, or describe it with --bundle and --title",
            )
        return self.index.vector(self.position[item_id])

    def cut_width(self, width: int) -> int | None:
        """Return to how many numbers new vectors of this width are to be cut, as those of the index were; None: not at all."""
        return self.dim if self.dim is not None and self.dim < width else None

    def fitted(self, vector: np.ndarray) -> np.ndarray:
        """Cut a vector of the model that made the index to the index's width, as `n2kit embed --dim` did: [d]."""
        if len(vector) <= (width := self.width):
            return vector
        unit: np.ndarray = vector[:width] / np.linalg.norm(vector[:width])
        return unit

    def near_vector(self, vector: np.ndarray, k: int, *, without: str | None = None) -> list[Neighbour]:
        """Find the k nearest items to a unit vector [d]; `without` is left out by identity, not by score."""
        most = min(len(self.ids), k + (without is not None))
        scores, rows = self.index.search(vector[None], most)
        found = [Neighbour(self.ids[r], float(s)) for s, r in zip(scores[0], rows[0], strict=True) if r >= 0]
        return [n for n in found if n.id != without][:k]

    def check_model(self, fingerprint: str, bundle: Path) -> None:
        """Check that a bundle is the model that the index was made with.

        Raises:
            BadInput: it is another one.
        """
        if fingerprint != self.fingerprint:
            raise BadInput(
                f"the index was made by model {self.fingerprint}, and {bundle} is model {fingerprint}",
                "embed and index the catalogue with this bundle, or give the bundle that made the index",
            )


class Manifest(BaseModel):
    """The description of an index in its `manifest.json`; files: name → sha256."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[2]
    component: str
    distribution: str
    options: dict[str, Any] = {}  # all of them, as JSON has them
    fingerprint: str
    items: int = Field(gt=0)
    width: int = Field(gt=0)
    metric: Literal["dot product of unit vectors"]
    dtype: Literal["float32"]
    dim: int | None = Field(None, gt=0)  # as in `StoredIndex`
    files: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]


def write_index(stored: StoredIndex, folder: Path) -> None:
    """Write an index into an empty folder."""
    stored.index.save(folder)
    (folder / IDS).write_text(json.dumps(stored.ids, ensure_ascii=False), encoding="utf8")
    if stored.titles is not None:
        write_titles(stored.titles, stored.ids, folder)
    if stored.facts is not None:
        write_facts(stored.facts, folder)
    manifest = Manifest(
        format=2,
        component=stored.made_by.component,
        distribution=stored.made_by.distribution,
        options=dict(stored.made_by.options),
        fingerprint=stored.fingerprint,
        items=len(stored.ids),
        width=stored.width,
        metric="dot product of unit vectors",
        dtype="float32",
        dim=stored.dim,
        files={name: file_digest(folder / name) for name in sorted(entries(folder))},
    )
    (folder / MANIFEST).write_text(
        manifest.model_dump_json(indent=1, exclude={"dim"} if manifest.dim is None else None), encoding="utf8"
    )


def load_index(folder: str | Path) -> StoredIndex:
    """Load an index folder, whose files must be those that its manifest lists.

    Raises:
        BadInput: the folder is no index, of another format, or damaged. Unavailable: its plug-in is not installed.
    """
    folder = Path(folder)
    if (in_store := _store_manifest(folder)) is not None:
        return _in_store(folder, in_store)
    manifest = _read_manifest(folder)
    present = {name for name in entries(folder) if name != MANIFEST and not name.startswith(".")}
    wrong, more = differences(folder, manifest.files, present)
    if found := [*wrong, *more]:
        raise _damaged(folder, found[0] + (f" ({len(found)} such differences)" if len(found) > 1 else ""))
    try:
        ids = parse_json((folder / IDS).read_bytes(), folder / IDS, hint="index again")
    except OSError as error:
        raise _damaged(folder, f"{IDS}: {error}") from None
    if not isinstance(ids, list) or not all(isinstance(i, str) and i for i in ids):
        raise _damaged(folder, f"{IDS} is no list of texts")
    if len(ids) != manifest.items or len(set(ids)) != len(ids):
        raise _damaged(folder, f"{IDS} does not hold the ids of {counted(manifest.items, 'item')}")
    for registered in manager().components("index"):
        if (registered.spec.name, registered.distribution) == (manifest.component, manifest.distribution):
            index_class = load_target(registered.spec.target, owner=registered.distribution)
            index = _load(index_class, folder, manifest)
            made_by = MadeBy(manifest.component, manifest.distribution, manifest.options)
            titles, facts = read_titles(folder), load_facts(folder)
            return StoredIndex(index, ids, manifest.fingerprint, made_by, titles, facts, manifest.dim)
    needed = manifest.distribution
    raise Unavailable(f"the index needs {needed}, which is not installed", f"pip install {needed}")


def is_index(folder: Path) -> bool:
    """Tell whether a folder is that of an index, whole or damaged."""
    return (folder / MANIFEST).is_file() and "component" in read_json(folder / MANIFEST)


def typed_columns(folder: Path) -> Facts | None:
    """Return the columns whose type new items have to keep, without loading the index; None where it has none, or there is no index.

    They are without values of a store; in files, a column without values is of any type.

    Raises:
        BadInput: its manifest, or its file of columns, is damaged.
    """
    if (in_store := _store_manifest(folder)) is not None:
        types: dict[str, np.ndarray] = {
            name: np.empty(0, TYPES[column.type]) for name, column in in_store.columns.items()
        }
        return Facts([], types, in_store.mapped)
    if (facts := load_facts(folder)) is None:
        return None
    return Facts(facts.ids, {name: c for name, c in facts.columns.items() if not is_empty(c)}, facts.fields)


def _store_manifest(folder: Path) -> StoreManifest | None:
    """Read the manifest of an index in a store; None of one in files."""
    content = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    return read_manifest(folder, content) if content.get("format") == STORE_FORMAT else None


def _in_store(folder: Path, manifest: StoreManifest) -> StoredIndex:
    found = opened(folder, manifest)
    made_by = MadeBy(manifest.component, manifest.distribution, manifest.options)
    return StoredIndex(
        found.in_store, list(found.in_store.ids), manifest.fingerprint, made_by, found.titles, found.facts, manifest.dim
    )


def _read_manifest(folder: Path) -> Manifest:
    if not (folder / MANIFEST).is_file():
        raise BadInput(f"{folder} is no index: it has no {MANIFEST}", "n2kit index VECTORS.parquet -o FOLDER makes one")
    content = read_json(folder / MANIFEST)
    if "component" not in content:
        raise BadInput(f"{folder} is no index", "n2kit index VECTORS.parquet -o FOLDER makes one")
    if content.get("format") != FORMAT:
        old = content.get("format") == 1
        why = ", which has no hashes to check it by" if old else ""
        hint = "index again, with --force or into another folder" if old else "update n2kit, or index again"
        raise BadInput(
            f"{folder} is an index of format {content.get('format')}{why}; this n2kit reads {FORMAT} and {FORMAT + 1}",
            hint,
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(folder, f"{MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _load(index_class: type[Index], folder: Path, manifest: Manifest) -> Index:
    """Load the plug-in's files, and look at the first and the last vector."""
    try:
        with blaming():
            index = index_class.load(folder)
            watch(index)
            ends = np.stack([index.vector(row) for row in (0, manifest.items - 1)])
    except N2kitError:
        raise
    except Exception as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}".splitlines()[0]) from None
    if ends.shape[1] != manifest.width or index.rows not in (None, manifest.items):
        found = f"{index.rows or manifest.items} vectors of {ends.shape[1]} numbers"
        raise _damaged(folder, f"{found}, its {MANIFEST} says {manifest.items} of {manifest.width}")
    if not np.isfinite(ends).all():
        raise _damaged(folder, "a vector is not finite")
    return index


def _damaged(folder: Path, why: str) -> BadInput:
    return BadInput(f"{folder} is damaged: {why}", "index again")


def _written(folder: Path) -> set[str] | None:
    """List the files that n2kit wrote into an index folder; None for a folder that is none."""
    try:
        content = read_json(folder / MANIFEST)
        if _store_manifest(folder) is not None:
            return {*written(folder)}
        if content.get("format") == 1 and {"component", "distribution", "fingerprint", "metric"} <= content.keys():
            return FIRST_FORMAT
        return {MANIFEST, *_read_manifest(folder).files}
    except (BadInput, OSError):
        return None


KIND = FolderKind("an index", _written)
