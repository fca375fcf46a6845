"""One process at a time: locks that end with the process that holds them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from n2kit.errors import BadInput

NO_LOCKS = (ENOSYS, ENOLCK, EOPNOTSUPP, EINVAL)  # of a file system that has none
POLL = 0.1  # seconds between two looks at a lock that another process holds
_held: set[tuple[Path, int]] = set()  # outputs, each with the thread that holds its lock


class InUseError(BadInput):
    """A lock that another process holds."""


@contextmanager
def file_lock(path: Path, what: str, *, remove: bool = False) -> Iterator[None]:
    """Hold a lock that ends with this process, however that ends; its file has the process's number in it.

    On a file system without locks nothing is held.

    Args:
        remove: remove the file at the end. By default it stays, as the lock of a folder that stays.

    Raises:
        InUseError: another process holds it.
    """
    from filelock import FileLock, Timeout  # not where nothing is locked: it takes its time to import

    lock = FileLock(path)
    held = False
    try:
        while not held:
            before, holder = _inode(path), _holder(path)
            lock.acquire(blocking=False)
            # Whoever held it may have removed the file that is locked now, and another process may have made a new one.
            held = not remove or (before is not None and before == _inode(path))
            if not held:
                lock.release()
                path.touch()
    except Timeout:
        who = f"process {holder}" if holder else "another process"
        raise InUseError(f"{what} is in use by {who}", "wait for it, or end it") from None
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    with suppress(OSError):
        if path.is_file():  # no pipe, which would wait
            path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        if remove:
            with suppress(OSError):
                path.unlink()
        lock.release()


@contextmanager
def waited_lock(path: Path, what: str, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock as `file_lock` does, once nobody else does; `waiting` is told, once, for whom it waits."""
    told = held = False
    with ExitStack() as stack:
        while not held:
            try:
                stack.enter_context(file_lock(path, what))
                held = True
            except InUseError as problem:
                if not told:
                    waiting(f"{problem.message}: waiting for it")
                told = True
                time.sleep(POLL)
        yield


@contextmanager
def output_lock(out: Path) -> Iterator[None]:
    """Hold the lock of a file or folder that is to be written, which lies beside it as long as it is held.

    A command may hold it around a call that holds it, too.

    Raises:
        BadInput: another process writes it.
    """
    place = Path(os.path.realpath(out.parent), out.name or "output")
    key = (place, threading.get_ident())
    if key in _held:
        yield
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(place.with_name(f".{place.name}.lock"), str(out), remove=True):
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _holder(path: Path) -> str:
    """Read the number of the process that holds a lock, if it could write it."""
    try:
        found = path.read_text("ascii").strip() if path.is_file() else ""
    except (OSError, ValueError):
        return ""
    return found if found.isdigit() else ""
