"""A frozen vision encoder's output on disk, shared by runs: one safetensors file an image, named by the image's content."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from n2kit.parts import VisionOut
from n2kit.weights import cache_folder

if TYPE_CHECKING:
    from n2kit.parts import VisionEncoder

SLACK = 0.05  # of the bound: freed beyond what is needed, and written before the folder is looked at again
ENCODER = ".encoder-"  # where an encoder is saved while its fingerprint is taken
DAY = 86400.0


class FeatureStore:
    """Content of an image → one image's `VisionOut`, up to `max_bytes` over all encoders; what was used longest ago goes first.

    A file is written aside and renamed, so that several processes may share the folder; one that cannot be read counts as
    absent and is written anew. `problem` says why nothing can be written, where that is so.

    Args:
        dtype: the encoder's outputs differ by what they are computed in, and so does their place.
        root: where the files are; by default in the user's cache folder.
    """

    def __init__(self, vision: VisionEncoder, max_bytes: int, dtype: str = "", root: Path | None = None) -> None:
        self.vision, self.max_bytes, self.dtype = vision, max_bytes, dtype
        self.root = root or cache_folder() / "features"
        self.began = time.time() - 1  # what was used since is this run's, and is not thrown out by it
        self.unseen = 0  # bytes written since the folder was last measured
        self.full, self.measured = False, False
        self.problem: str | None = None
        self._folder: Path | None = None

    def find(self, content: str) -> VisionOut | None:
        """What is kept for the image with this sha256, memory-mapped; None if nothing can be read."""
        if (folder := self._own_folder()) is None:
            return None
        try:
            path = _path(folder, content)
            found = load_file(path)
            os.utime(path)
            return VisionOut(found["tokens"], found.get("pooled"), found.get("mask"))
        except (OSError, SafetensorError, KeyError):
            return None

    def add(self, content: str, row: VisionOut) -> None:
        """Keep tokens [N, Dv], pooled [Dp] and mask [N] of the image with this sha256, if there is room."""
        # Clones, because a pooled vector is often a view of the tokens, and safetensors writes no two views of one memory.
        tensors = {name: t.clone().contiguous() for name, t in row._asdict().items() if t is not None}
        size = sum(t.nbytes for t in tensors.values())
        if (folder := self._own_folder()) is None or not self._room(size):
            return
        path = _path(folder, content)
        aside = path.with_name(f".{content}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, aside)
            aside.replace(path)
        except (OSError, SafetensorError) as error:
            self.problem = f"{path.parent}: {error}"
        self.unseen += size

    def _own_folder(self) -> Path | None:
        """This encoder's folder, found at the first use: a model may change its precision before."""
        if self._folder is None and self.problem is None:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                self._folder = self.root / fingerprint(self.vision, self.root, self.dtype)
            except (OSError, SafetensorError) as error:
                self.problem = f"{self.root}: {error}"
        return None if self.problem else self._folder

    def _room(self, size: int) -> bool:
        """Whether `size` more bytes may be written; looks at the folder now and then, for others write there too."""
        if not self.full and (not self.measured or self.unseen + size > SLACK * self.max_bytes):
            self.full = not self._shrink(size)
            self.measured, self.unseen = True, 0
        return not self.full

    def _shrink(self, size: int) -> bool:
        """Remove files, those used longest ago first and none of this run, until there is room; whether there is."""
        files = []
        for path in self.root.rglob("*"):
            try:
                facts = path.stat()
            except OSError:
                continue  # another process has removed it
            if stat.S_ISREG(facts.st_mode):
                busy = DAY if any(p.startswith(ENCODER) for p in path.parts) else 0  # another process may be at it
                files.append((facts.st_mtime + busy, facts.st_size, path))
        total = sum(bytes_ for _, bytes_, _ in files)
        if total + size <= self.max_bytes * (1 - SLACK):
            return True
        for used, bytes_, path in sorted(files):
            if used >= self.began or total + size <= self.max_bytes * (1 - 2 * SLACK):
                break
            path.unlink(missing_ok=True)
            total -= bytes_
        return total + size <= self.max_bytes * (1 - SLACK)


def _path(folder: Path, content: str) -> Path:
    return folder / content[:2] / f"{content}.safetensors"


def fingerprint(vision: VisionEncoder, room: Path, dtype: str = "") -> str:
    """A hash of all that decides an encoder's output: what it saves (weights, configuration), its transform, the precision."""
    digest = hashlib.sha256(f"{vision.transform_id} {dtype}".encode())
    with tempfile.TemporaryDirectory(prefix=ENCODER, dir=room) as aside:
        vision.save(Path(aside))
        for file in sorted(p for p in Path(aside).rglob("*") if p.is_file()):
            digest.update(file.relative_to(aside).as_posix().encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:24]
