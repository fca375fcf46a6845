"""Exact dot-product search."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from n2kit.contract import Index
from n2kit.errors import BadInput

FILE = "flat.faiss"


class FlatIndex(Index):
    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def build(cls, vectors: np.ndarray) -> Self:
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(index)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = self.index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        return scores, rows

    def vector(self, row: int) -> np.ndarray:
        return np.asarray(self.index.reconstruct(row))

    def save(self, folder: Path) -> None:
        faiss.write_index(self.index, str(folder / FILE))

    @classmethod
    def load(cls, folder: Path) -> Self:
        try:
            return cls(faiss.read_index(str(folder / FILE)))
        except RuntimeError as error:
            raise BadInput(f"{folder / FILE}: not a whole FAISS index", "index again") from error
