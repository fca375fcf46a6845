"""The interface of a nearest-neighbour index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
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

    @classmethod
    def build_from(cls, pieces: Callable[[], Iterable[np.ndarray]], count: int, width: int, config: Any) -> Self:
        """Build an index of vectors that come in pieces [n, width], `count` in all, as often as `pieces` is called.

        By default they are put together in memory; an index that can do without that overrides it.
        """
        import numpy as np

        return cls.build(np.concatenate(list(pieces())), config)

    def updated(self, rows: np.ndarray, vectors: np.ndarray, config: Any) -> Self:
        """Make an index of these of its rows [n], in this order, and of further vectors [m, d] behind them.

        By default it is built anew; an index that was trained may keep that.
        """
        import numpy as np

        return self.build(np.concatenate([self.vectors(rows), vectors]) if len(rows) else vectors, config)

    @abstractmethod
    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest vectors of queries [q, d]: scores [q, k] and rows [q, k], best first; row -1 where there are fewer."""

    @abstractmethod
    def vector(self, row: int) -> np.ndarray:
        """Return the stored vector [d] of a row."""

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return the stored vectors [n, d] of rows [n]; by default one by one."""
        import numpy as np

        return np.stack([self.vector(int(row)) for row in rows])

    @property
    def width(self) -> int:
        """Return the number of numbers a vector has."""
        return len(self.vector(0))

    @property
    def rows(self) -> int | None:
        """Return the number of vectors; None where the index does not tell, and its folder is not checked for it."""
        return None

    @abstractmethod
    def save(self, folder: Path) -> None: ...

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self: ...
