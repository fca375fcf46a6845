"""Outputs of frozen parts, on disk and shared by runs: one safetensors file an image or a row, named by a hash of its content."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from n2kit.utils.cache import cache_folder
from n2kit.utils.digests import remembered_digest
from n2kit.utils.files import atomic_write

SLACK = 0.05  # of the bound: freed beyond what is needed, and written before the folder is looked at again
ENCODER = ".encoder-"  # where an encoder is saved while its fingerprint is taken
DAY = 86400.0


class TensorStore(ABC):
    """A store on disk, up to `max_bytes` over all parts: hash of a content → tensors by name. The least recently used go first.

    A file is written aside and renamed, so that several processes may share the folder; one that cannot be read counts as
    absent and is written anew. `problem` says why nothing can be written, where that is so.

    Args:
        root: where the files are; by default in the user's cache folder.
    """

    def __init__(self, max_bytes: int, root: Path | None = None) -> None:
        self.max_bytes = max_bytes
        self.root = root or cache_folder() / "features"
        self.began = time.time() - 1  # what was used since is this run's, and is not thrown out by it
        self.unseen = 0  # bytes written since the folder was last measured
        self.full, self.measured = False, False
        self.problem: str | None = None
        self._folder: Path | None = None

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash all that the tensors depend on, besides the content."""

    def read(self, content: str) -> dict[str, Tensor] | None:
        """Read the tensors for the content with this hash, memory-mapped; None if there are none."""
        if (folder := self._own_folder()) is None:
            return None
        try:
            path = _path(folder, content)
            found = load_file(path)
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        return found

    def write(self, content: str, tensors: dict[str, Tensor]) -> None:
        """Store tensors, if there is room."""
        # Clones, because one is often a view of another, and safetensors writes no two views of one memory.
        tensors = {name: t.clone().contiguous() for name, t in tensors.items()}
        size = sum(t.nbytes for t in tensors.values())
        if (folder := self._own_folder()) is None or not self._room(size):
            return
        path = _path(folder, content)
        try:
            with atomic_write(path, durable=False) as temporary:
                save_file(tensors, temporary)
        except (OSError, SafetensorError) as error:
            self.problem = f"{path.parent}: {error}"
        self.unseen += size

    def _own_folder(self) -> Path | None:
        """Return this part's folder, found at the first use: a model may change its precision before."""
        if self._folder is None and self.problem is None:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                self._folder = self.root / self.fingerprint()
            except (OSError, SafetensorError) as error:
                self.problem = f"{self.root}: {error}"
        return None if self.problem else self._folder

    def _room(self, size: int) -> bool:
        """Tell whether `size` more bytes may be written. The folder is measured now and then, since other processes write there, too."""
        if not self.full and (not self.measured or self.unseen + size > SLACK * self.max_bytes):
            self.full = not self._shrink(size)
            self.measured, self.unseen = True, 0
        return not self.full

    def _shrink(self, size: int) -> bool:
        """Remove the least recently used files, but none of this run, until there is room; return whether there is."""
        files = []
        # os.walk passes over a folder that another process removes meanwhile; rglob would raise.
        for path in (Path(folder, name) for folder, _, names in os.walk(self.root) for name in names):
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
            try:
                path.unlink(missing_ok=True)
            except OSError:
                continue  # another user's, in a folder that they share
            total -= bytes_
        return total + size <= self.max_bytes * (1 - SLACK)


def digest_of(about: str, tensors: Mapping[str, Tensor], origin: str | None) -> str:
    """Hash tensors and what else decides the outputs: 24 hexadecimal digits.

    Where the files that they came from are known, the hash is remembered by these and by the tensors' quick checksum: tensors that were
    changed since are hashed, and of others the sum alone is taken, in a fifth of the time.
    """

    def compute() -> bytes:
        digest = hashlib.sha256(about.encode())
        add_tensors(digest, tensors)
        return digest.digest()

    if origin is None:
        return compute().hex()[:24]
    return remembered_digest(f"{origin} {about}", quick_checksum(tensors), compute).hex()[:24]


def quick_checksum(tensors: Mapping[str, Tensor]) -> str:
    """Compute a checksum that changes when a part is trained: names, types, shapes, and the sum of each tensor's bits.

    No sha256, for it runs at the speed of memory; it guards against forgetting that a part was trained, and against nobody's intent.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        words = raw.size // 8 * 8
        total = int(raw[:words].view(np.int64).sum()) + int(raw[words:].sum())
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} {total}\n".encode())
    return digest.hexdigest()


def add_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Add tensors with their names, types and shapes to a hash, in the order of the names."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _path(folder: Path, content: str) -> Path:
    return folder / content[:2] / f"{content}.safetensors"
