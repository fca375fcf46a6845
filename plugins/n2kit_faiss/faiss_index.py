"""An index of faiss, whatever its kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import faiss as library
import numpy as np

from n2kit.contract import Index
from n2kit.errors import BadInput

faiss: Any = library  # whose stubs lack much
MOST_TRAINED_ON = 262_144  # vectors
TOLERANCE = 0.02  # of the square of a unit vector's length, as bf16 leaves it
BUFFER = 1 << 20  # bytes that are written at a time
BLOCK = 65_536  # vectors that are read back at a time


class FaissIndex(Index):
    """A faiss index by dot product, whose row numbers are the order in which vectors were added."""

    FILE: ClassVar[str]
    TRAINS: ClassVar[bool] = False

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    @abstractmethod
    def empty(cls, width: int, count: int, config: Any) -> Any:
        """Make the faiss index for about `count` vectors [width], without any."""

    @classmethod
    @abstractmethod
    def is_own(cls, index: Any) -> bool:
        """Tell whether a faiss index that was read is of this kind."""

    @classmethod
    def build(cls, vectors: np.ndarray, config: Any) -> Self:
        return cls.build_from(lambda: [vectors], len(vectors), vectors.shape[1], config)

    @classmethod
    def build_from(cls, pieces: Callable[[], Iterable[np.ndarray]], count: int, width: int, config: Any) -> Self:
        index = cls.empty(width, count, config)
        if cls.TRAINS:
            index.train(_sample(pieces(), count))
        for piece in pieces():
            index.add(np.ascontiguousarray(piece, dtype=np.float32))
        return cls(index)

    def updated(self, rows: np.ndarray, vectors: np.ndarray, config: Any) -> Self:
        """Keep what was trained: only the vectors are laid in anew."""
        index = faiss.clone_index(self.index)
        index.reset()
        for start in range(0, len(rows), BLOCK):
            index.add(self.vectors(rows[start : start + BLOCK]))
        if len(vectors):
            index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return type(self)(index)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = self.index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        return scores, rows

    def vector(self, row: int) -> np.ndarray:
        return np.asarray(self.index.reconstruct(int(row)))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.index.reconstruct_batch(np.ascontiguousarray(rows, dtype=np.int64)))

    @property
    def rows(self) -> int:
        return int(self.index.ntotal)

    def save(self, folder: Path) -> None:
        with (folder / self.FILE).open("wb") as file:  # of a full disk, faiss's own writer may say nothing
            faiss.write_index(self.index, faiss.PyCallbackIOWriter(file.write, BUFFER))

    @classmethod
    def load(cls, folder: Path) -> Self:
        problem = BadInput(f"{folder / cls.FILE}: not a whole FAISS index of dot products of this kind", "index again")
        try:
            index = faiss.read_index(str(folder / cls.FILE))
        except (RuntimeError, MemoryError) as error:  # a damaged size may ask for any amount of memory
            raise problem from error
        if not cls.is_own(index) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise problem
        return cls(index)


def _sample(pieces: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Draw vectors to train on, evenly from all pieces."""
    step = max(1, -(-count // MOST_TRAINED_ON))
    return np.ascontiguousarray(np.concatenate([piece[::step] for piece in pieces]), dtype=np.float32)
