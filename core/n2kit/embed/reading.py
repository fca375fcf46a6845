"""Vectors read from a file or a folder, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from n2kit.embed.dataset.reading import Dataset
from n2kit.embed.vectors_file import Vectors
from n2kit.embed.vectors_file import read_vectors as read_vectors_file


class VectorSource(Protocol):
    """Vectors with the model that made them, read a piece at a time."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def width(self) -> int: ...

    def __len__(self) -> int: ...

    def batches(self) -> Iterator[Vectors]:
        """Yield the vectors, in order."""


@dataclass(frozen=True)
class InMemory:
    """Vectors that are in memory, as a source."""

    vectors: Vectors

    @property
    def fingerprint(self) -> str:
        return self.vectors.fingerprint

    @property
    def width(self) -> int:
        return int(self.vectors.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.vectors.ids)

    def batches(self) -> Iterator[Vectors]:
        yield self.vectors


def open_vectors(path: Path) -> VectorSource:
    """Open a vectors file, or a finished folder of vectors.

    Raises:
        BadInput: it is neither.
    """
    return Dataset.open(path) if path.is_dir() else InMemory(read_vectors_file(path))


def read_vectors(path: Path) -> Vectors:
    """Read all vectors of a file, or of a finished folder, into memory.

    Raises:
        BadInput: it is neither, or damaged.
    """
    return Dataset.open(path).read() if path.is_dir() else read_vectors_file(path)
