"""The interface of a nearest-neighbour index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np


class Index(ABC):
    """The interface of a plug-in of kind `index`. Vectors are unit length; scores are dot products, higher is nearer."""

    @classmethod
    @abstractmethod
    def build(cls, vectors: np.ndarray, config: Any) -> Self:
        """Build an index of vectors [n, d], float32, by its options: the pydantic model that its spec names, valid and complete."""

    @abstractmethod
    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest vectors of queries [q, d]: scores [q, k] and rows [q, k], best first; row -1 where there are fewer."""

    @abstractmethod
    def vector(self, row: int) -> np.ndarray:
        """Return the stored vector [d] of a row."""

    @property
    def rows(self) -> int | None:
        """Return the number of vectors; None where the index does not tell, and its folder is not checked for it."""
        return None

    @abstractmethod
    def save(self, folder: Path) -> None: ...

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self: ...
