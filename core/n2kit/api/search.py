"""An index of vectors, and recommendations from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from n2kit.api.in_python import in_python
from n2kit.api.reading import SomeItems, items_of
from n2kit.api.work import IN_MEMORY, SomeModel
from n2kit.bundle.io import load, read_manifest
from n2kit.data.items import Item
from n2kit.embed.encode import encode
from n2kit.embed.reading import read_vectors
from n2kit.embed.vectors_file import Vectors
from n2kit.errors import BadInput, counted
from n2kit.index.choice import choose_index
from n2kit.index.folder import StoredIndex, load_index
from n2kit.index.store import index_vectors, save_index
from n2kit.index.titles import Titles
from n2kit.modeling.model import Model
from n2kit.utils.folders import bundle_folder


class Recommendation(NamedTuple):
    """A similar item: its id, its cosine to the query, and its title where the index remembers it."""

    id: str
    score: float
    title: str


class Index:
    """An index of vectors, which remembers titles.

    >>> index = n2kit.Index.build("vectors.parquet", items="items.jsonl")
    >>> index.save("catalogue.index")
    >>> n2kit.Index.load("catalogue.index")
    <Index of 24 items, 16 wide, with titles>
    """

    def __init__(self, stored: StoredIndex) -> None:
        self.stored = stored

    @classmethod
    @in_python
    def build(
        cls,
        vectors: Vectors | str | Path,
        *,
        items: SomeItems | None = None,
        images: str | Path | None = None,
        kind: str = "flat",
        options: Mapping[str, Any] | None = None,
    ) -> Index:
        """Index vectors in memory.

        Args:
            items: whose titles are remembered; `images`: the folder of their pictures.
            kind: a name of `n2kit ls index`; `options`: its own.

        Raises:
            BadInput: vectors that are not of unit length; an option that the index does not take; what reading raises.
        """
        chosen = choose_index(kind, options)
        table = vectors if isinstance(vectors, Vectors) else read_vectors(Path(vectors))
        stored = index_vectors(table, chosen)
        if items is not None:
            stored.titles = Titles(items_of(items), None if images is None else Path(images))
        return cls(stored)

    @classmethod
    @in_python
    def load(cls, folder: str | Path) -> Index:
        """Load an index folder.

        Raises:
            BadInput: it is none, or damaged.
        """
        return cls(load_index(folder))

    @in_python
    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Write an index folder; `force` replaces an index that is there.

        Raises:
            BadInput: something is in the way.
        """
        save_index(self.stored, Path(folder), force=force)

    def __len__(self) -> int:
        return len(self.stored.ids)

    def __repr__(self) -> str:
        titles = "" if self.stored.titles is None else ", with titles"
        return f"<Index of {counted(len(self), 'item')}, {self.stored.width} wide{titles}>"


@in_python
def recommend(
    index: Index | str | Path,
    item: str | Mapping[str, Any] | Item | np.ndarray,
    *,
    k: int = 10,
    model: SomeModel | None = None,
    images: str | Path | None = None,
) -> list[Recommendation]:
    """List the items most similar to one: of the catalogue by its id, a new one by what it has, or a unit vector [d].

    >>> [r.id for r in n2kit.recommend("catalogue.index", "noto:3", k=2)]
    ['twemoji:3', ...]
    >>> new = {"title": "thing 3", "topics": ["topic3"], "image": "noto_3.png"}
    >>> n2kit.recommend("catalogue.index", new, model="models/tiny", images="images", k=1)[0].title
    'thing 3'

    Args:
        model: for a new item: the model that made the index. images: the folder of its image.

    Raises:
        BadInput: an id that is not in the index; a new item without its model, or with another one.
    """
    found = index if isinstance(index, Index) else Index.load(index)
    stored, titles = found.stored, found.stored.titles
    if isinstance(item, str):
        near = stored.near_item(item, k)
    else:
        near = stored.near_vector(item if isinstance(item, np.ndarray) else _vector(stored, item, model, images), k)
    return [Recommendation(n.id, n.score, "" if titles is None else titles.title(n.id)) for n in near]


def _vector(
    stored: StoredIndex, item: Mapping[str, Any] | Item, model: SomeModel | None, images: str | Path | None
) -> np.ndarray:
    """Encode a new item with the model that made the index: [d]."""
    if model is None:
        raise BadInput("a new item needs the model that made the index", "model=")
    if not isinstance(model, Model) and stored.fingerprint != IN_MEMORY:
        stored.check_model(read_manifest(bundle_folder(model)).fingerprint, Path(model))
    loaded = model if isinstance(model, Model) else load(model)
    vector: np.ndarray = encode(loaded, [item], images=images).vectors[0]
    if stored.fingerprint != IN_MEMORY and not isinstance(model, Model):
        vector = stored.fitted(vector)
    if len(vector) != stored.index.width:
        raise BadInput(
            f"the index is {stored.index.width} wide, and the model gives {len(vector)}",
            "give the model that made it",
        )
    return vector
