"""SHA-256 of files. Those of large files are cached, since hashing gigabytes at each load takes longer than loading them."""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path

from n2kit.utils.cache import cache_folder
from n2kit.utils.files import write_text

LARGE = 1 << 24  # bytes; smaller files are read each time
SETTLED = 2.0  # seconds: a file that was changed just now may change again within one tick of its clock


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    A large file that is the same by path, inode, size and both of its times (a program can set one back, but not the
    other) is not read again. Nothing is kept where the cache folder cannot be written.
    """
    facts = file.stat()
    if facts.st_size < LARGE:
        return _read(file)
    identity = (file.resolve(), facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    kept = cache_folder() / "sha256" / hashlib.sha256(repr(identity).encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        if len(found := kept.read_text("ascii")) == 64:
            return found
    found = _read(file)
    if time.time() - max(facts.st_mtime, facts.st_ctime) > SETTLED:
        with contextlib.suppress(OSError):
            write_text(kept, found, durable=False)
    return found


def folder_digests(folder: Path) -> dict[str, str]:
    """Map every file in a folder, by its path under it with slashes, to its SHA-256."""
    return {p.relative_to(folder).as_posix(): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def _read(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
