"""Indexes whose first look is at codes in memory; the best of it are compared again by their whole vectors, which stay on disk."""

from __future__ import annotations

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np

from n2kit.contract import Index
from n2kit.errors import BadInput
from n2kit_faiss.config import RescoreOptions
from n2kit_faiss.faiss_index import BLOCK, BUFFER, faiss

VECTORS, CODES, LOOK = "vectors.npy", "codes.faiss", "look.npy"
QUERIES = 64  # whose candidates are read together


class RescoredIndex(Index):
    """Codes in memory, and vectors [n, d] on disk, mapped into memory as they are needed."""

    def __init__(self, codes: Any, vectors: np.ndarray, rescore: int, place: Any = None) -> None:
        self.codes, self.stored, self.rescore, self._place = codes, vectors, rescore, place

    @classmethod
    @abstractmethod
    def empty(cls, width: int) -> Any:
        """Make the faiss index of the codes of vectors [width]."""

    @classmethod
    @abstractmethod
    def is_own(cls, codes: Any) -> bool:
        """Tell whether codes that were read are of this kind."""

    @staticmethod
    @abstractmethod
    def coded(vectors: np.ndarray) -> np.ndarray:
        """Make of vectors [n, d] what the faiss index takes."""

    @classmethod
    def build(cls, vectors: np.ndarray, config: RescoreOptions) -> Self:
        return cls.build_from(lambda: [vectors], len(vectors), vectors.shape[1], config)

    @classmethod
    def build_from(
        cls, pieces: Callable[[], Iterable[np.ndarray]], count: int, width: int, config: RescoreOptions
    ) -> Self:
        place = tempfile.TemporaryDirectory(prefix="n2kit-", ignore_cleanup_errors=True)
        stored = np.lib.format.open_memmap(Path(place.name) / VECTORS, "w+", np.float32, (count, width))
        codes, start = cls.empty(width), 0
        for piece in pieces():
            stored[start : start + len(piece)] = piece
            start += len(piece)
        cls.train(codes, stored)
        for start in range(0, count, BLOCK):
            codes.add(cls.coded(stored[start : start + BLOCK]))
        return cls(codes, stored, config.rescore, place)

    @classmethod
    def train(cls, codes: Any, vectors: np.ndarray) -> None:
        """Fit the codes to vectors [n, d], where they are fitted."""

    def updated(self, rows: np.ndarray, vectors: np.ndarray, config: RescoreOptions) -> Self:
        def pieces() -> Iterable[np.ndarray]:
            for start in range(0, len(rows), BLOCK):
                yield self.stored[rows[start : start + BLOCK]]
            if len(vectors):
                yield vectors

        return self.build_from(pieces, len(rows) + len(vectors), self.stored.shape[1], config)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        most = min(k * self.rescore, len(self.stored))
        queries = np.ascontiguousarray(queries, np.float32)
        for start in range(0, len(queries), QUERIES):
            some = queries[start : start + QUERIES]
            near = self.codes.search(self.coded(some), most)[1]
            for n, (query, own) in enumerate(zip(some, near, strict=True), start):
                found = np.sort(own[own >= 0])
                own_scores = self.stored[found] @ query
                best = np.argsort(-own_scores, kind="stable")[:k]
                rows[n, : len(best)], scores[n, : len(best)] = found[best], own_scores[best]
        return scores, rows

    def vector(self, row: int) -> np.ndarray:
        return np.array(self.stored[row])

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        return np.array(self.stored[np.asarray(rows, np.int64)])

    @property
    def rows(self) -> int:
        return len(self.stored)

    def save(self, folder: Path) -> None:
        with (folder / CODES).open("wb") as file:  # of a full disk, faiss's own writer may say nothing
            self.write(self.codes, faiss.PyCallbackIOWriter(file.write, BUFFER))
        if isinstance(self.stored, np.memmap):
            self.stored.flush()
            shutil.copyfile(str(self.stored.filename), folder / VECTORS)
        else:
            np.save(folder / VECTORS, self.stored)
        np.save(folder / LOOK, np.array([self.rescore]))

    @staticmethod
    @abstractmethod
    def write(codes: Any, writer: Any) -> None:
        """Write the faiss index of the codes."""

    @staticmethod
    @abstractmethod
    def read(file: str) -> Any:
        """Read what `write` wrote."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        problem = BadInput(f"{folder}: not whole codes and vectors of this kind", "index again")
        try:
            codes = cls.read(str(folder / CODES))
            vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
            (rescore,) = np.load(folder / LOOK, allow_pickle=False).tolist()
        except (RuntimeError, MemoryError, OSError, ValueError) as error:
            raise problem from error
        if not cls.is_own(codes) or vectors.ndim != 2 or (codes.ntotal, codes.d) != cls.shape(vectors) or rescore < 1:
            raise problem
        return cls(codes, vectors, int(rescore))

    @classmethod
    def shape(cls, vectors: np.ndarray) -> tuple[int, int]:
        """Return the number and the width of the codes of vectors [n, d]."""
        return vectors.shape[0], vectors.shape[1]


class Int8Index(RescoredIndex):
    """The first look is at one byte a number."""

    @staticmethod
    def write(codes: Any, writer: Any) -> None:
        faiss.write_index(codes, writer)

    @staticmethod
    def read(file: str) -> Any:
        return faiss.read_index(file)

    @classmethod
    def empty(cls, width: int) -> Any:
        return faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)

    @classmethod
    def train(cls, codes: Any, vectors: np.ndarray) -> None:
        step = max(1, -(-len(vectors) // BLOCK))
        codes.train(np.ascontiguousarray(vectors[::step]))

    @classmethod
    def is_own(cls, codes: Any) -> bool:
        return isinstance(codes, faiss.IndexScalarQuantizer)

    @staticmethod
    def coded(vectors: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(vectors, np.float32)


class BinaryIndex(RescoredIndex):
    """The first look is at the signs of the numbers, one bit each."""

    @staticmethod
    def write(codes: Any, writer: Any) -> None:
        faiss.write_index_binary(codes, writer)

    @staticmethod
    def read(file: str) -> Any:
        return faiss.read_index_binary(file)

    @classmethod
    def empty(cls, width: int) -> Any:
        return faiss.IndexBinaryFlat(8 * -(-width // 8))

    @classmethod
    def is_own(cls, codes: Any) -> bool:
        return isinstance(codes, faiss.IndexBinaryFlat)

    @classmethod
    def shape(cls, vectors: np.ndarray) -> tuple[int, int]:
        return vectors.shape[0], 8 * -(-vectors.shape[1] // 8)

    @staticmethod
    def coded(vectors: np.ndarray) -> np.ndarray:
        return np.packbits(np.asarray(vectors) > 0, axis=1)
