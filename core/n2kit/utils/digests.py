"""SHA-256 of files, remembered in the cache folder: hashing gigabytes of weights, or a million images, at each start takes minutes."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from n2kit.utils.cache import cache_folder

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
MEMORY = "sha256.sqlite"  # in the cache folder
LARGE = 1 << 24  # bytes; of single files, smaller ones are read each time
SETTLED = 2.0  # seconds: a file that was changed just now may change again within one tick of its clock
BATCH = 500  # files a look into the memory, and a transaction
WAIT = 5.0  # seconds for another process that writes
_TABLE = "CREATE TABLE IF NOT EXISTS file (path BLOB PRIMARY KEY, state BLOB, content BLOB) WITHOUT ROWID"
Remembered = dict[bytes, tuple[bytes, bytes]]  # hash of the path → hash of the file's state, SHA-256 of its content


class Look(NamedTuple):
    """A file as the file system has it: hashes of its path and of its state, and when it was changed."""

    key: bytes
    state: bytes
    changed: float


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal; a large file that has not changed is not read again.

    Raises:
        OSError: it cannot be read.
    """
    if file.stat().st_size >= LARGE and (found := next(file_digests([file]))) is not None:
        return found
    return _read(file)


def file_digests(files: Iterable[Path]) -> Iterator[str | None]:
    """Yield the SHA-256 of each file's content, in hexadecimal; None of what is no file or cannot be read.

    A file that is the same by path, inode, size and both of its times (a program can set one back, but not the other) is not
    read again. Several processes may look at once; nothing is kept where the cache folder cannot be written.
    """
    paths = iter(files)
    while batch := [*itertools.islice(paths, BATCH)]:
        yield from _of_batch(batch)


def remembered_digest(about: str, state: str, compute: Callable[[], bytes]) -> bytes:
    """Return the SHA-256 that was computed earlier for `about` in this state; otherwise compute and remember it."""
    key, now = _hash(f"digest of {about}"), _hash(state)
    found = _recall([key]).get(key)
    if found is not None and found[0] == now and len(found[1]) == 32:
        return found[1]
    content = compute()
    _remember({key: (now, content)})
    return content


def _of_batch(files: list[Path]) -> list[str | None]:
    looks = [_look(file) for file in files]
    known = _recall([look.key for look in looks if look])
    fresh: Remembered = {}
    found: list[str | None] = []
    for file, look in zip(files, looks, strict=True):
        state, content = known.get(look.key, (b"", b"")) if look else (b"", b"")
        if look is None:
            found.append(None)
        elif state == look.state and len(content) == 32:
            found.append(content.hex())
        else:
            found.append(digest := _read_or_none(file))
            if digest and time.time() - look.changed > SETTLED:
                fresh[look.key] = (look.state, bytes.fromhex(digest))
    if fresh:
        _remember(fresh)
    return found


def folder_digests(folder: Path) -> dict[str, str]:
    """Map every file in a folder, by its path under it with slashes, to its SHA-256."""
    return {p.relative_to(folder).as_posix(): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def _read(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _read_or_none(file: Path) -> str | None:
    try:
        return _read(file)
    except OSError:
        return None


def _look(file: Path) -> Look | None:
    """Look at a file without reading it; None if it is none (a pipe would be waited for), or has an impossible name."""
    try:
        facts = file.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(facts.st_mode):
        return None
    state = f"{facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
    return Look(_hash(os.path.abspath(file)), _hash(state), max(facts.st_mtime, facts.st_ctime))  # noqa: PTH100 (quick)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf8", "surrogatepass")).digest()[:16]


def _in_memory(work: Callable[[sqlite3.Connection], T]) -> T | None:
    """Do something with the memory; None where there is none. One that is damaged is removed, for the next to begin anew."""
    try:
        import sqlite3
    except ImportError:  # a Python that was built without it
        return None
    file = cache_folder() / MEMORY
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(file, timeout=WAIT)) as memory, memory:
            memory.execute(_TABLE)
            return work(memory)
    except sqlite3.OperationalError:  # read-only, full, or another process writes for long
        return None
    except sqlite3.DatabaseError:
        with contextlib.suppress(OSError):
            file.unlink()
        return None
    except OSError:
        return None


def _recall(keys: list[bytes]) -> Remembered:
    def look_up(memory: sqlite3.Connection) -> Remembered:
        marks = ",".join("?" * len(keys))
        rows = memory.execute(f"SELECT path, state, content FROM file WHERE path IN ({marks})", keys)
        return {path: (state, content) for path, state, content in rows}

    return _in_memory(look_up) or {}


def _remember(fresh: Remembered) -> None:
    rows = [(key, *found) for key, found in fresh.items()]
    _in_memory(lambda memory: memory.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?)", rows))
