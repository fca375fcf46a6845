"""Shards: the parts of a vectors file that an interrupted `embed` has finished, each checked when it is taken up."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from n2kit.embed.encode import Encoded
from n2kit.embed.vectors_file import Vectors, read_table, write_table
from n2kit.errors import BadInput, Failed
from n2kit.utils.folders import parts_folder


@dataclass(frozen=True)
class Shards:
    """The folder of the shards of one vectors file, for one run of `embed`."""

    folder: Path
    fingerprint: str
    visual: bool

    @classmethod
    def of(cls, out: Path, run: dict[str, object]) -> Shards:
        """Name the folder, and remove those that another command left for the same file; the caller has its lock."""
        return cls(parts_folder(out, run), str(run["fingerprint"]), bool(run["visual"]))

    def file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"

    def left(self, number: int) -> bool:
        """Tell whether anything is in a shard's place."""
        return os.path.lexists(self.file(number))

    def read(self, number: int, ids: list[str]) -> Vectors | None:
        """Read a shard; None if it is not there, not whole, or not of these items in this order."""
        try:
            found = read_table(self.file(number))
        except BadInput:
            return None
        used = set(found.ids)  # of the skipped items too, where an item without its image still has a text
        wanted = [i for i in ids if i in used or i not in found.skipped]
        ours = found.fingerprint == self.fingerprint and (found.visual is not None) == self.visual
        return found if ours and found.ids == wanted and found.skipped.keys() <= set(ids) else None

    def write(self, number: int, encoded: Encoded) -> None:
        """Write a shard, whose place may be taken by anything."""
        if self.file(number).is_dir() and not self.file(number).is_symlink():
            shutil.rmtree(self.file(number))
        visual = encoded.visual if encoded.visual is not None else encoded.vectors[:0]
        rows = Vectors(encoded.ids, encoded.vectors, self.fingerprint, visual if self.visual else None, encoded.skipped)
        write_table(rows, self.file(number))

    def whole(self, parts: list[list[str]]) -> Vectors:
        """Read all shards into one.

        Raises:
            Failed: one is not what was written. BadInput: there is no row.
        """
        found = []
        for number, ids in enumerate(parts):
            if (shard := self.read(number, ids)) is None:
                raise Failed(f"{self.file(number)} cannot be read back", "the same command computes it again")
            found.append(shard)
        ids = [i for shard in found for i in shard.ids]
        if not ids:
            raise BadInput("every item had to be skipped", "check --images and --on-bad-image")
        skipped = {i: reason for shard in found for i, reason in shard.skipped.items()}
        rows = [shard for shard in found if shard.ids]
        visual = np.concatenate([v for shard in rows if (v := shard.visual) is not None]) if self.visual else None
        return Vectors(ids, np.concatenate([shard.vectors for shard in rows]), self.fingerprint, visual, skipped)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
