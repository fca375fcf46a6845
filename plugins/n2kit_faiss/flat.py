"""Exact dot-product search."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np

from n2kit.errors import BadInput
from n2kit_faiss.config import NoOptions
from n2kit_faiss.faiss_index import TOLERANCE, FaissIndex, faiss


class FlatIndex(FaissIndex):
    """Every query looks at every vector."""

    FILE = "flat.faiss"

    @classmethod
    def empty(cls, width: int, count: int, config: NoOptions) -> Any:
        return faiss.IndexFlatIP(width)

    @classmethod
    def is_own(cls, index: Any) -> bool:
        return isinstance(index, faiss.IndexFlat)

    @classmethod
    def load(cls, folder: Path) -> Self:
        loaded = super().load(folder)
        index = loaded.index
        vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(-1, index.d)
        with np.errstate(all="ignore"):
            if not (np.abs(np.einsum("nd,nd->n", vectors, vectors) - 1) < TOLERANCE).all():
                raise BadInput(f"{folder / cls.FILE}: a vector is not of unit length", "index again")
        return loaded
