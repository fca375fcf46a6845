"""Vectors read from a finished folder, a shard in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from n2kit.embed.dataset.columns import matrix_from
from n2kit.embed.dataset.format import Manifest, ShardEntry, read_manifest
from n2kit.embed.dataset.shard import read_shard
from n2kit.embed.vectors_file import UNREADABLE, Vectors, check_rows
from n2kit.errors import BadInput
from n2kit.utils.arrow import numbers_of
from n2kit.utils.digests import file_digest


@dataclass(frozen=True)
class Dataset:
    """A finished folder of vectors."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Open a folder.

        Raises:
            BadInput: it is no finished folder of vectors.
        """
        return cls(folder, read_manifest(folder))

    @property
    def fingerprint(self) -> str:
        return self.manifest.run.fingerprint

    @property
    def width(self) -> int:
        return self.manifest.run.dim

    def __len__(self) -> int:
        return self.manifest.items

    def tables(self) -> Iterator[tuple[int, np.ndarray, pa.Table]]:
        """Yield each shard's place in the manifest, the rows of it that count [n], and its table.

        Raises:
            BadInput: a shard is not what the manifest says.
        """
        removed = self.removed()
        for number, entry in enumerate(self.manifest.shards):
            table = self._table(entry)
            live = np.setdiff1d(np.arange(entry.rows), removed[removed[:, 0] == number, 1])
            yield number, live, table

    def batches(self) -> Iterator[Vectors]:
        """Yield the vectors of each shard that has any.

        Raises:
            BadInput: a shard is not what the manifest says.
        """
        for number, live, whole in self.tables():
            if not len(live):
                continue
            path = self.folder / self.manifest.shards[number].name
            try:
                table = whole.take(live) if len(live) < len(whole) else whole
                visual = matrix_from(table, "visual_vector", path) if self.manifest.run.visual else None
                ids = table.column("id").to_pylist()
                found = Vectors(ids, matrix_from(table, "vector", path), self.fingerprint, visual)
            except UNREADABLE as error:
                raise BadInput(f"{path} is damaged: {error}".splitlines()[0], "embed again") from None
            check_rows(found, path)
            yield found

    def read(self) -> Vectors:
        """Read all vectors into memory."""
        found = list(self.batches())
        visual = [v for shard in found if (v := shard.visual) is not None]
        return Vectors(
            [i for shard in found for i in shard.ids],
            np.concatenate([shard.vectors for shard in found]),
            self.fingerprint,
            np.concatenate(visual) if visual else None,
            dict(self.manifest.skipped),
        )

    def removed(self) -> np.ndarray:
        """Read which rows are no longer of the catalogue: [n, 2], shard and row."""
        entry = self.manifest.removed
        if entry is None:
            return np.zeros((0, 2), np.int64)
        self._check(entry.name, entry.sha256)
        table = read_shard(self.folder / entry.name)
        return np.stack([numbers_of(table.column(name)) for name in ("shard", "row")], axis=1)

    def _table(self, entry: ShardEntry) -> pa.Table:
        self._check(entry.name, entry.sha256)
        table = read_shard(self.folder / entry.name)
        if len(table) != entry.rows:
            raise BadInput(
                f"{self.folder / entry.name} has {len(table)} rows, the manifest says {entry.rows}", "embed again"
            )
        return table

    def _check(self, name: str, sha256: str) -> None:
        file = self.folder / name
        if not file.is_file():
            raise BadInput(f"{file} is missing", "embed again")
        if file_digest(file) != sha256:
            raise BadInput(f"{file} is damaged: its content is not what was written", "embed again")
