"""Exact dot-product search."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from n2kit.contract import Index
from n2kit.errors import BadInput
from n2kit_faiss.config import NoOptions

FILE = "flat.faiss"
TOLERANCE = 0.02  # of the square of a unit vector's length, as bf16 leaves it


class FlatIndex(Index):
    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def build(cls, vectors: np.ndarray, config: NoOptions) -> Self:
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(index)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = self.index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        return scores, rows

    def vector(self, row: int) -> np.ndarray:
        return np.asarray(self.index.reconstruct(row))

    @property
    def rows(self) -> int:
        return int(self.index.ntotal)

    def save(self, folder: Path) -> None:
        with (folder / FILE).open("wb") as file:  # of a full disk, faiss's own writer may say nothing
            file.write(faiss.serialize_index(self.index).data)

    @classmethod
    def load(cls, folder: Path) -> Self:
        problem = BadInput(f"{folder / FILE}: not a whole flat FAISS index of dot products", "index again")
        try:
            index = faiss.read_index(str(folder / FILE))
        except (RuntimeError, MemoryError) as error:  # a damaged size may ask for any amount of memory
            raise problem from error
        if not isinstance(index, faiss.IndexFlat) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise problem
        vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(-1, index.d)
        with np.errstate(all="ignore"):
            if not (np.abs(np.einsum("nd,nd->n", vectors, vectors) - 1) < TOLERANCE).all():
                raise BadInput(f"{folder / FILE}: a vector is not of unit length", "index again")
        return cls(index)
