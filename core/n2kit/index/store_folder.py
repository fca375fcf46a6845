"""The folder of an index that is kept in a store: a manifest, and the store's own data where that lies on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from n2kit.contract.store import FULL_TEXT, ID, VECTOR, Store
from n2kit.data.item import Item
from n2kit.data.items import Items
from n2kit.errors import BadInput, N2kitError, Unavailable, counted
from n2kit.index.choice import MANIFEST, choose_index
from n2kit.index.facts import Facts, without_ids
from n2kit.index.in_store import InStore
from n2kit.index.titles import Titles, is_whole, item_of_row
from n2kit.plugins.manager import manager
from n2kit.utils.files import atomic_write

if TYPE_CHECKING:
    from n2kit.plugins.component import Component

STORE_FORMAT = 3
DATA = "store"  # the folder of the store's own data
TITLE, IMAGE = "n2kit_title", "n2kit_image"  # fields of what people see of an item
ROW = "n2kit_item"  # an item whose title and image's name are not enough to show it again, as JSON
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")  # names of columns that every store takes as they are, but for these words
RESERVED = frozenset(
    ("all", "and", "any", "between", "exists", "false", "in", "is", "like", "match", "not", "null", "or", "similar", "to", "true")
)  # fmt: skip
TYPES: dict[str, type] = {"text": str, "number": float}


class Column(BaseModel):
    """A column of the items, in the store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    type: Literal["text", "number"]


class StoreManifest(BaseModel):
    """The description of an index in a store; revision: counts the changes that were begun."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[3] = 3
    component: str
    distribution: str
    options: dict[str, Any]
    fingerprint: str
    width: int = Field(gt=0)
    metric: Literal["dot product of unit vectors"] = "dot product of unit vectors"
    dtype: Literal["float32"] = "float32"
    dim: int | None = Field(None, gt=0)  # to which the vectors were cut
    images: str | None = None
    columns: dict[str, Column] = {}
    mapped: dict[str, str] = {}  # `Facts.fields`
    revision: int = 0

    @property
    def fields(self) -> dict[str, type]:
        """The fields of the store beside id and vector."""
        own = {column.field: TYPES[column.type] for column in self.columns.values()}
        return {TITLE: str, IMAGE: str, ROW: str} | own

    def write(self, folder: Path) -> None:
        with atomic_write(folder / MANIFEST) as temporary:
            # What is not needed is not written: an n2kit of before reads the manifest then.
            unsaid = {name for name in ("dim", "mapped") if not getattr(self, name)}
            temporary.write_text(self.model_dump_json(indent=1, exclude=unsaid), encoding="utf8")


class Opened(NamedTuple):
    """An index in a store, and what it remembers of its items."""

    in_store: InStore
    titles: Titles | None
    facts: Facts | None


def read_manifest(folder: Path, content: Mapping[str, Any]) -> StoreManifest:
    """Read the manifest of an index in a store.

    Raises:
        BadInput: it is damaged.
    """
    try:
        return StoreManifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{folder} is damaged: {MANIFEST}: {where}: {first['msg']}", "index again") from None


def component_of(manifest: StoreManifest) -> Component:
    """Resolve the component that made an index, with its options.

    Raises:
        Unavailable: its plug-in, or a package of it, is not installed.
    """
    for registered in manager().components("index"):
        if (registered.spec.name, registered.distribution) == (manifest.component, manifest.distribution):
            return choose_index(manifest.component, manifest.options)
    needed = manifest.distribution
    raise Unavailable(f"the index needs {needed}, which is not installed", f"pip install {needed}")


def open_store(folder: Path, component: Component) -> Store:
    """Open the store of an index.

    Raises:
        BadInput: it is not there, or damaged. Unavailable: it cannot be reached.
    """
    config = component.config()
    try:
        with component.attribute_errors():
            store: Store = component.cls().open(folder / DATA, config)
    except N2kitError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if url := getattr(config, "url", ""):
            raise Unavailable(
                f"{url} cannot be read: {reason}", "check index.url, and what it needs of the environment"
            ) from None
        raise BadInput(f"{folder} is damaged: {reason}", "index again") from None
    return store


def opened(folder: Path, manifest: StoreManifest) -> Opened:
    """Open an index in a store: its ids, and what it remembers of its items.

    Raises:
        BadInput: it is not there, damaged, or empty. Unavailable: it cannot be reached.
    """
    component = component_of(manifest)
    store = open_store(folder, component)
    found: dict[str, list[np.ndarray]] = {name: [] for name in (ID, *manifest.fields)}
    with component.attribute_errors():
        for piece in store.scan(manifest.fields):
            for name, values in found.items():
                values.append(piece[name])
    columns = {name: np.concatenate(values) if values else np.array([], object) for name, values in found.items()}
    ids: list[str] = columns[ID].tolist()
    if len(ids) != len(store) or len(set(ids)) != len(ids) or not ids:
        what = f"it counts {counted(len(store), 'row')}, and holds {len(set(ids)):,} ids in {len(ids):,}"
        raise BadInput(f"{folder} is damaged: {what}", "index again")
    fields = {name: column.field for name, column in manifest.columns.items()}
    own = {name: columns[field] for name, field in fields.items()}
    facts = without_ids(Facts(ids, own, manifest.mapped)) if fields else None
    index = InStore(store, ids, manifest.width, manifest.fields, fields)
    return Opened(index, _titles(manifest, ids, columns), facts)


def _titles(manifest: StoreManifest, ids: list[str], columns: Mapping[str, np.ndarray]) -> Titles | None:
    items, whole = list[Item](), list[str]()
    for item_id, title, image, row in zip(ids, *(columns[name].tolist() for name in (TITLE, IMAGE, ROW)), strict=True):
        if row:
            items.append(item_of_row(item_id, content := json.loads(row)))
            whole += [item_id] * is_whole(content)
        elif title or image:
            items.append(Item(item_id, image=image, title=title))
    if not items:
        return None
    return Titles(Items(items), None if manifest.images is None else Path(manifest.images), frozenset(whole))


def with_columns(manifest: StoreManifest, facts: Facts | None) -> StoreManifest:
    """Add the columns of new items to those of a store.

    Raises:
        BadInput: a column holds numbers in one, and texts in the other.
    """
    columns = dict(manifest.columns)
    for name, values in (facts.columns if facts is not None else {}).items():
        kind: Literal["text", "number"] = "number" if values.dtype.kind == "f" else "text"
        if name in columns and columns[name].type != kind:
            what = f"column {name} holds {columns[name].type}s in the index, and {kind}s in these items"
            raise BadInput(what, "mend the column, or index all anew")
        columns.setdefault(name, Column(field=_field(name, len(columns)), type=kind))
    mapped = {**(facts.fields if facts is not None else {}), **manifest.mapped}
    return manifest.model_copy(update={"columns": columns, "mapped": mapped})


def _field(name: str, number: int) -> str:
    """Name the field of a column: as the column, where every store takes that."""
    word = name.lower()
    clumsy = word in RESERVED | {ID, VECTOR} or word.startswith("n2kit") or not PLAIN.fullmatch(name)
    return f"n2kit_column_{number}" if clumsy else name


def rows_of(
    ids: list[str], manifest: StoreManifest, titles: Titles | None, facts: Facts | None
) -> dict[str, np.ndarray]:
    """Make the fields of rows: of each [n]."""
    known = {} if facts is None else facts.of(ids)
    rows = {
        TITLE: ["" if titles is None else titles.title(i) for i in ids],
        IMAGE: ["" if titles is None or i in titles.whole else titles.image(i) for i in ids],
        ROW: ["" if titles is None else _row(titles, i) for i in ids],
    }
    fields = {name: np.array(values, object) for name, values in rows.items()}
    for name, column in manifest.columns.items():
        nothing: Any = np.nan if column.type == "number" else ""
        fields[column.field] = (
            known[name] if name in known else np.full(len(ids), nothing, object if nothing == "" else float)
        )
    return fields


def _row(titles: Titles, item_id: str) -> str:
    """Write the item that no file has, or whose image is called otherwise than it is found; empty for any other."""
    if item_id not in titles.items:
        return ""
    row = titles.row(item_id)
    return json.dumps(row, ensure_ascii=False) if is_whole(row) or row["image"] != titles.image(item_id) else ""


def finds_words(component: Component) -> bool:
    return component.has_capability(FULL_TEXT)


def written(folder: Path) -> Iterable[str]:
    """List the files of an index in a store."""
    from n2kit.utils.folders import entries

    return {MANIFEST, *(name for name in entries(folder) if name.startswith(f"{DATA}/"))}
