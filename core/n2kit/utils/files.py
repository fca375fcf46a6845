"""Writing so that no half-written file is ever seen, and none of the user's files is ever replaced."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from n2kit.errors import BadInput, N2kitError, Unavailable

PARQUET = b"PAR1"  # the last bytes of such a file
POINTER = b"version https://git-lfs"  # the first bytes of what git-lfs leaves in a file's place
FULL = (errno.ENOSPC, errno.EDQUOT)
DAMAGED = "the file is damaged: make it again"
ABANDONED = 3600.0  # seconds: a temporary file that nobody has written to for so long is a killed process's


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to, and let that file take the place of `path` if nothing fails.

    It lies in the same folder, which is made, and has this process's number in its name: several processes may write the
    same file, and the last one wins. Whoever reads sees the old content or the new, and never a part.

    Args:
        durable: bring the content to the disk before the renaming, so that a power cut leaves the old or the new file, and
            remove what killed processes left of the same file. A cache that can be made again does without.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if durable:
        _remove_abandoned(path)
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.filename is None and is_disk_full(error):  # a write says no name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def temporaries_of(path: Path) -> list[Path]:
    """List the temporary files of `atomic_write(path)` that are there, those of processes that were killed among them."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*tmp"))


def remove_temporaries(folder: Path, *names: str, older: float | None = None) -> None:
    """Remove what killed processes left of the files that only the caller writes now: those of `names`, or all of a folder.

    Args:
        older: others may write them now, too: only what nobody has written to for so many seconds is removed.
    """
    for file in folder.glob(".*.tmp"):
        written = re.fullmatch(r"\.(.+)\.\d+\.tmp", file.name)
        if written is not None and (not names or written[1] in names) and file.is_file():
            if older is not None:
                _remove_older(file, older)
            else:
                file.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    for left in temporaries_of(path):
        _remove_older(left, ABANDONED)


def _remove_older(file: Path, seconds: float) -> None:
    with contextlib.suppress(OSError):  # another process removes it, too
        if time.time() - file.stat().st_mtime > seconds:
            file.unlink()


def write_once(path: Path, text: str) -> None:
    """Write a file unless it is there: of several processes the first one wins, and none sees a part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf8")
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if temporary.exists() and not path.exists():
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file by `atomic_write`."""
    with atomic_write(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf8")


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    """Write a JSON file by `atomic_write`."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False), durable=durable)


def real_path(path: Path) -> Path:
    """Resolve the links of a path; where one leads to itself, `Path.resolve` fails, and this does not."""
    return Path(os.path.realpath(path))


def sync(*paths: Path) -> None:
    """Flush files, and the entries of folders, to the disk: a power cut leaves them as they are now."""
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
    """Tell whether an error, or its cause, is a full disk, as an OSError or as a library states it."""
    if problem is None:
        return False
    named = any(f"(os error {n})" in str(problem) or os.strerror(n) in str(problem) for n in FULL)
    return named or getattr(problem, "errno", None) in FULL or is_disk_full(problem.__cause__)


@contextmanager
def disk_full_guard(what: str, hint: str) -> Iterator[None]:
    """Turn a full disk into an error of one line that says `what` could not be written.

    Raises:
        Unavailable: the disk is full, as an OSError or as a library states it.
    """
    try:
        yield
    except N2kitError:
        raise
    except Exception as error:  # each library states it in its own way
        if not is_disk_full(error):
            raise
        raise Unavailable(f"{what}: {os.strerror(getattr(error, 'errno', None) or errno.ENOSPC)}", hint) from error


def parse_json(text: str | bytes, where: object, *, line: int | None = None, hint: str = DAMAGED) -> Any:
    """Parse a JSON document.

    Args:
        where: the file that it is from, for the message; `line`: its line there, of a file that has one document a line.

    Raises:
        BadInput: it is none, is nested too deep, or an object of it has the same key twice, with the line.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        problem, at = "nested too deep", 1
    except _RepeatedKeyError as error:
        problem, at = f"the key {error.key!r} is there twice", _line_of_second(text, error.key)
    except json.JSONDecodeError as error:
        problem, at = f"not valid JSON: {error.msg}", error.lineno
    except ValueError as error:  # no UTF-8; a number of more digits than Python reads
        problem, at = f"not valid JSON: {error}", 1
    raise BadInput(f"{where}:{line or at}: {problem}", hint)


class _RepeatedKeyError(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the dict of a JSON object; Python's reader takes the last of two equal keys in silence."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedKeyError(next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1))
    return found


def _line_of_second(text: str | bytes, key: str) -> int:
    """Find the line of a key's second place; other objects may have it too, so it is where to begin to look."""
    found = text.decode("utf8", "replace") if isinstance(text, bytes) else text
    places = [match.start() for match in re.finditer(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:", found)]
    return found.count("\n", 0, places[1]) + 1 if len(places) > 1 else 1


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BadInput: the file holds none, or is no regular file: a pipe would never end.
    """
    if not path.is_file() and path.exists():
        raise BadInput(f"{path}: no regular file", "put the file itself in its place")
    text = path.read_bytes()
    if text.startswith(POINTER):
        raise BadInput(
            f"{path}: a pointer of git-lfs, and not the file itself", "git lfs pull, or copy the folder again"
        )
    content = parse_json(text, path)
    if not isinstance(content, dict):
        raise BadInput(f"{path}: not a JSON object", DAMAGED)
    return content


def is_complete_parquet(path: Path) -> bool:
    """Tell whether a file is there and ends as Parquet does; one that was cut short does not."""
    if not path.is_file() or path.stat().st_size < len(PARQUET):
        return False
    with path.open("rb") as file:
        file.seek(-len(PARQUET), os.SEEK_END)
        return file.read() == PARQUET


def ensure_writable_file(file: Path, read: Iterable[Path | None] = ()) -> None:
    """Check that a file may be written, new or in place of one: a command that reads the files `read` must not destroy them.

    Raises:
        BadInput: a folder, a device, or one of those that are read.
    """
    if file.is_dir() or not file.name:
        raise BadInput(f"{file} is a folder", "give a file")
    if file.is_symlink() and not file.exists():
        raise BadInput(f"{file} is a link to nothing, or to itself", "give a file")
    if file.exists() and not file.is_file():
        raise BadInput(f"{file} is a device or a pipe, and cannot be replaced", "give a file")
    if real_path(file) in {real_path(other) for other in read if other is not None}:
        raise BadInput(f"{file} is read here, and not to be written", "give another file")
