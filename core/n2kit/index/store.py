"""An index folder: the plug-in's own file, the ids, and a manifest that names the model that made the vectors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from n2kit.contract.index import Index
from n2kit.errors import BadInput, Unavailable
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.component import Component
from n2kit.plugins.manager import load_target, manager
from n2kit.utils.files import atomic_dir, ensure_writable, read_json

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
MANIFEST, IDS = "manifest.json", "ids.json"


class Neighbour(NamedTuple):
    id: str
    score: float


@dataclass
class StoredIndex:
    """An index with the ids of its rows and the fingerprint of the model that made its vectors."""

    index: Index
    ids: list[str]
    fingerprint: str

    def __post_init__(self) -> None:
        self.position = {item_id: i for i, item_id in enumerate(self.ids)}

    def near_item(self, item_id: str, k: int) -> list[Neighbour]:
        """Find the k nearest other items.

        Raises:
            BadInput: the item is not in the index.
        """
        if item_id not in self.position:
            from n2kit.errors import suggest

            raise BadInput(
                f"item {item_id!r} is not in the index",
                suggest(item_id, self.ids) or "embed and index it first, or describe it with --bundle and --title",
            )
        return self.near_vector(self.index.vector(self.position[item_id]), k, without=item_id)

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


def build_index(vectors_file: Path, folder: Path, *, name: str = "flat", force: bool = False) -> StoredIndex:
    """Index an embed file and write the index folder, aside and then into place."""
    ensure_writable(folder, MANIFEST, force=force)
    component = default_catalogue().resolve("index", name)
    stored = index_of(vectors_file, component)
    with atomic_dir(folder) as staged:
        stored.index.save(staged)
        (staged / IDS).write_text(json.dumps(stored.ids, ensure_ascii=False), encoding="utf8")
        manifest = {
            "format": FORMAT,
            "component": component.registered.spec.name,
            "distribution": component.registered.distribution,
            "fingerprint": stored.fingerprint,
            "items": len(stored.ids),
            "width": len(stored.index.vector(0)),
            "metric": "dot product of unit vectors",
        }
        (staged / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return stored


def index_of(vectors_file: Path, component: Component | None = None) -> StoredIndex:
    """Index an embed file in memory; by default with an exact index.

    Raises:
        BadInput: the file is no embed file, or its vectors are not of unit length.
    """
    from n2kit.embed import read_vectors

    table = read_vectors(vectors_file)
    long = (table.vectors**2).sum(1)
    if wrong := [i for i, square in zip(table.ids, long, strict=True) if not 0.98 < square < 1.02]:
        raise BadInput(
            f"{vectors_file}: the vector of {wrong[0]!r} is not of unit length ({len(wrong)} such)",
            "n2kit embed makes unit vectors",
        )
    component = component or default_catalogue().resolve("index", "flat")
    return StoredIndex(component.cls().build(table.vectors), table.ids, table.fingerprint)


def load_index(folder: str | Path) -> StoredIndex:
    """Load an index folder.

    Raises:
        BadInput: the folder is no index. Unavailable: its plug-in is not installed.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file() or not (folder / IDS).is_file():
        raise BadInput(f"{folder} is no index", "n2kit index VECTORS.parquet -o FOLDER makes one")
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise BadInput(
            f"{folder} is an index of format {manifest.get('format')}; this n2kit reads {FORMAT}", "index again"
        )
    try:
        ids = json.loads((folder / IDS).read_text("utf8"))
        name, distribution, fingerprint = (str(manifest[k]) for k in ("component", "distribution", "fingerprint"))
        if not isinstance(ids, list) or len(ids) != manifest["items"]:
            raise ValueError(f"{IDS} does not hold the ids of {manifest['items']} items")
    except (ValueError, KeyError) as error:
        raise BadInput(f"{folder} is damaged: {type(error).__name__}: {error}", "index again") from None
    for registered in manager().components("index"):
        if (registered.spec.name, registered.distribution) == (name, distribution):
            index: Index = load_target(registered.spec.target, owner=registered.distribution).load(folder)
            return StoredIndex(index, ids, fingerprint)
    raise Unavailable(f"the index needs {distribution}, which is not installed", f"pip install {distribution}")
