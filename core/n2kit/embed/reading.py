"""Vectors read from a file or a folder, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from n2kit.embed.dataset.reading import Dataset
from n2kit.embed.vectors_file import Vectors
from n2kit.embed.vectors_file import read_vectors as read_vectors_file
from n2kit.errors import BadInput


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


@dataclass(frozen=True)
class Cut:
    """The first numbers of vectors, of unit length again, as models trained with loss `matryoshka` allow."""

    whole: VectorSource
    width: int

    @property
    def fingerprint(self) -> str:
        return self.whole.fingerprint

    def __len__(self) -> int:
        return len(self.whole)

    def batches(self) -> Iterator[Vectors]:
        for batch in self.whole.batches():
            short = batch.vectors[:, : self.width]
            length = np.linalg.norm(short, axis=1, keepdims=True)
            if not length.all():
                empty = batch.ids[int(length.argmin())]
                raise BadInput(f"of the vector of {empty!r} the first {self.width} numbers are 0", "a larger --dim")
            yield Vectors(batch.ids, short / length, batch.fingerprint)


def cut(source: VectorSource, width: int | None) -> VectorSource:
    """Cut vectors to their first numbers; None leaves them whole.

    Raises:
        BadInput: they have not so many.
    """
    if width is None or width == source.width:
        return source
    if not 0 < width < source.width:
        raise BadInput(f"--dim {width}: the vectors have {source.width} numbers", "give fewer than that")
    return Cut(source, width)


def cut_width(source: VectorSource) -> int | None:
    """Return to how many numbers vectors are cut; None for whole ones."""
    return source.width if isinstance(source, Cut) else None


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
