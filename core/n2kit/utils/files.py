"""Writing so that nothing half-written is ever seen, and nothing of the user's is ever replaced."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from n2kit.errors import BadInput, Unavailable

try:
    import fcntl
except ImportError:  # Windows: what a killed process left stays
    fcntl = None  # type: ignore[assignment]

PARQUET = b"PAR1"  # the last bytes of such a file
FULL = (errno.ENOSPC, errno.EDQUOT)
LOCK, OLD = ".in-use", "old"
BUNDLE_FILES = ("manifest.json", "recipe.yaml")  # which only a bundle has both of


def write_json(path: Path, content: Any) -> None:
    """Write aside and rename."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf8")
    sync(aside)
    aside.replace(path)


def sync(*paths: Path) -> None:
    """Bring files, and the entries of folders, to the disk: after a power cut they are what they are now."""
    for path in paths:
        if path.is_dir() and os.name != "posix":
            continue  # Windows opens no folder
        handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """`sync` a folder and all that is in it."""
    sync(*folder.rglob("*"), folder)


def is_disk_full(problem: BaseException | None) -> bool:
    """Whether an error, or what it came from, is a full disk, as an OSError or as safetensors tells it."""
    if problem is None:
        return False
    told = any(f"(os error {number})" in str(problem) for number in FULL)
    return told or getattr(problem, "errno", None) in FULL or is_disk_full(problem.__cause__)


@contextmanager
def disk_full_guard(what: str, hint: str) -> Iterator[None]:
    """Say in one line that `what` could not be written.

    Raises:
        Unavailable: a full disk, as an OSError or as safetensors tells it.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        raise Unavailable(f"{what}: {os.strerror(getattr(error, 'errno', None) or errno.ENOSPC)}", hint) from error


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that ends with this process, however that ends; the file stays.

    Raises:
        BadInput: another process holds it.
    """
    with path.open("a") as handle:
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{what} is in use by another process", "wait for it, or end it") from None
        except OSError:  # a file system without locks
            pass
        yield


def read_json(path: Path) -> dict[str, Any]:
    """Raises BadInput if the file is no JSON object."""
    try:
        content = json.loads(path.read_text("utf8"))
    except ValueError as error:
        raise BadInput(f"{path}: not valid JSON: {error}", "the file is damaged: make it again") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: not a JSON object", "the file is damaged: make it again")
    return content


def is_complete_parquet(path: Path) -> bool:
    """Whether a file is there and ends as Parquet does; one that was cut short does not."""
    if not path.is_file() or path.stat().st_size < len(PARQUET):
        return False
    with path.open("rb") as file:
        file.seek(-len(PARQUET), os.SEEK_END)
        return file.read() == PARQUET


def ensure_writable(folder: Path, marker: str, *, force: bool) -> None:
    """Whether a folder may be written: it is not there, empty, or with `force` one of our own (it has `marker`).

    Raises:
        BadInput: something is in the way.
    """
    ensure_outside_bundles(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / marker).is_file():
        raise BadInput(f"{folder} exists, and n2kit did not make it", "give another -o")
    if not force:
        raise BadInput(f"{folder} exists", "give another -o, or --force to replace it")


def ensure_writable_file(file: Path, read: Iterable[Path | None] = ()) -> None:
    """Whether a file may be written, new or in place of one: a command that `read`s some must not destroy them.

    Raises:
        BadInput: a folder, a device, or one of those that are read.
    """
    if file.is_dir() or not file.name:
        raise BadInput(f"{file} is a folder", "give a file")
    if file.exists() and not file.is_file():
        raise BadInput(f"{file} is a device or a pipe, and cannot be replaced", "give a file")
    if file.resolve() in {other.resolve() for other in read if other is not None}:
        raise BadInput(f"{file} is read here, and not to be written", "give another file")


def ensure_outside_bundles(path: Path) -> None:
    """Raises BadInput for a path inside a bundle, whose files are all that it may hold."""
    for parent in path.absolute().parents:
        if all((parent / name).is_file() for name in BUNDLE_FILES):
            raise BadInput(f"{path} lies inside the bundle {parent}", "give another -o")


@contextmanager
def atomic_dir(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` (as `ensure_writable` allowed) if nothing fails.

    What was there stays until then. A process that is killed leaves its half beside it; the next one clears it away.
    """
    prefix = f".{folder.name}-"
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{glob.escape(prefix)}*/{LOCK}"):
        _clear(left, folder)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as aside, _locked(Path(aside), folder):
        staged, old = Path(aside, "new"), Path(aside, OLD)
        staged.mkdir()
        yield staged
        try:
            if folder.exists():
                folder.replace(old)
            staged.replace(folder)
        finally:
            if old.exists() and not folder.exists():
                old.replace(folder)


@contextmanager
def _locked(aside: Path, folder: Path) -> Iterator[None]:
    """Held while the folder is in use: the kernel lets go of it when the process ends, however it ends."""
    if fcntl is None:
        yield
        return
    with (aside / f"{LOCK}-").open("w", encoding="utf8") as file:
        file.write(folder.name)
        file.flush()
        with contextlib.suppress(OSError):  # a file system without locks: nothing is ever cleared there
            fcntl.flock(file, fcntl.LOCK_EX)
        (aside / f"{LOCK}-").replace(aside / LOCK)  # only under the name that others look for once it is held
        yield


def _clear(lock: Path, folder: Path) -> None:
    """Remove the folder of a lock that nobody holds; what it was about to replace goes back, if its place is empty."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError, ValueError), lock.open(encoding="utf8") as file:
        if file.read() != folder.name:
            return  # of `a-b`, looking for those of `a`
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (lock.parent / OLD).exists() and not folder.exists():
            (lock.parent / OLD).replace(folder)
        shutil.rmtree(lock.parent)
