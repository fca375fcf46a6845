"""Folders that are written whole: known by their manifests, locked while they are written, and replaced in one step."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from n2kit.errors import BadInput
from n2kit.utils.digests import file_digest
from n2kit.utils.locks import file_lock

IN_USE, LOCK, OLD = ".in-use", ".lock", "old"  # in the folder beside the one that is replaced
BUNDLE_FILES = ("manifest.json", "recipe.yaml")  # which only a bundle has both of
BUNDLE = "bundle"  # in the folder of a run
OF_DESKTOPS = {".DS_Store", "Thumbs.db", "desktop.ini"}  # which come by looking at a folder


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that n2kit writes, such as a bundle.

    written: the names of the files that n2kit wrote into such a folder, by its manifest; None for a folder of another kind.
    """

    name: str
    written: Callable[[Path], Collection[str] | None]


def ensure_writable(folder: Path, kind: FolderKind, *, force: bool) -> None:
    """Check that a folder may be written: it is not there, empty, or with `force` one of this kind with nothing else in it.

    Raises:
        BadInput: something is in the way.
    """
    ensure_outside_bundles(folder)
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():  # a file, a pipe, a link to nothing or to itself
        raise BadInput(f"{folder} is no folder", "give another -o")
    if not (present := entries(folder)) and not any(folder.iterdir()):
        return
    written = kind.written(folder)
    if written is None:
        raise BadInput(f"{folder} exists, and n2kit did not make it as {kind.name}", "give another -o")
    if foreign := sorted(present - {*written}):
        count = f" ({len(foreign)} such)" if len(foreign) > 1 else ""
        hint = "give another -o, or move it away"
        raise BadInput(f"{folder} holds {foreign[0]!r}, which n2kit did not write{count}", hint)
    if not force:
        raise BadInput(f"{folder} exists", "give another -o, or --force to replace it")


def entries(folder: Path) -> set[str]:
    """List what a folder holds, at any depth, by path with slashes: files, links, pipes; no folders, and no desktop's files."""
    found = set()
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        found |= {
            Path(place, name).relative_to(folder).as_posix() for name in [*files, *links] if name not in OF_DESKTOPS
        }
    return found


def differences(folder: Path, listed: Mapping[str, str], present: Collection[str]) -> tuple[list[str], list[str]]:
    """Compare a folder with what its manifest lists, path → sha256: what is missing or changed, and what is too much.

    Only regular files are opened: a pipe would never end.
    """
    wrong = [f"{name} is missing" for name in listed if name not in present]
    for name in sorted(set(listed).intersection(present)):
        if not (folder / name).is_file():
            wrong.append(f"{name} is no regular file")
        elif file_digest(folder / name) != listed[name]:
            wrong.append(f"{name} has changed")
    return wrong, [f"{name} is none of its files" for name in sorted(present) if name not in listed]


def bundle_folder(folder: str | Path) -> Path:
    """Return the folder of a bundle: `folder` itself, or that in the run which `folder` is."""
    inside = Path(folder) / BUNDLE
    is_run = not (Path(folder) / BUNDLE_FILES[0]).is_file() and (inside / BUNDLE_FILES[0]).is_file()
    return inside if is_run else Path(folder)


def next_run(bundle: Path) -> str:
    """Name the run of a bundle: after its folder; after the run that it is from, counted on: `mine`, `mine-2`, `mine-3`."""
    place = bundle.resolve()
    if place.name != BUNDLE or not place.parent.name:
        return place.name
    name, number = re.fullmatch(r"(.*?)(?:-([1-9]\d*))?", place.parent.name).groups()  # type: ignore[union-attr]
    return f"{name}-{int(number or 1) + 1}"


def go_on_hint(run: Path) -> str:
    """Say what to do about an older run in the way: another folder, or a training that goes on from its bundle."""
    if bundle_folder(run) == run:
        return "give another -o"
    return f"give another -o; or go on from its bundle: n2kit train {run} -o {run.with_name(next_run(run / BUNDLE))} …"


def ensure_outside_bundles(path: Path) -> None:
    """Check that a path lies outside bundles, which hold their own files alone.

    Raises:
        BadInput: it lies inside one.
    """
    for parent in path.absolute().parents:
        if all((parent / name).is_file() for name in BUNDLE_FILES):
            raise BadInput(f"{path} lies inside the bundle {parent}", "give another -o")


@contextmanager
def atomic_dir(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which takes the place of `folder` (as `ensure_writable` allowed) if nothing fails.

    The old folder stays until then. A process that is killed leaves its half beside it, and the next one removes that.
    """
    prefix = f".{folder.name}-"
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{glob.escape(prefix)}*/{IN_USE}"):
        _remove_unlocked(left, folder)
    with _beside(folder, prefix) as beside:
        staged, old = beside / "new", beside / OLD
        staged.mkdir()
        yield staged
        _open_to_readers(staged, (beside / IN_USE).stat().st_mode)
        try:
            if folder.exists():
                folder.replace(old)
            staged.replace(folder)
        finally:
            if old.exists() and not folder.exists():
                old.replace(folder)


def _open_to_readers(folder: Path, usual: int) -> None:
    """Let whoever may read a usual file of this process read all of a folder: safetensors makes files for their owner alone."""
    wanted = usual & 0o666
    for place, _, files in os.walk(folder):
        for file in (Path(place, name) for name in files):
            mode = file.lstat().st_mode
            if stat.S_ISREG(mode) and mode & wanted != wanted:
                with contextlib.suppress(OSError):  # a file system without modes
                    file.chmod(stat.S_IMODE(mode) | wanted)


def parts_folder(out: Path, run: Mapping[str, object]) -> Path:
    """Name the folder, beside a file, of the parts of this run's work on it, and remove those that another run left there.

    It is made with the first part: a run that fails before leaves nothing.
    """
    key = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]
    prefix = f".{out.name}.parts-"
    folder = out.with_name(prefix + key)
    for left in out.parent.iterdir():
        if left != folder and re.fullmatch(re.escape(prefix) + "[0-9a-f]{12}", left.name):
            shutil.rmtree(left, ignore_errors=True)
    return folder


@contextmanager
def _beside(folder: Path, prefix: str) -> Iterator[Path]:
    """Make a folder beside `folder`, locked as long as it is in use; a file in it says whose it is, once it is locked."""
    # Another process that looks whether it is in use may put a file there while this one removes it.
    made = tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent, ignore_cleanup_errors=True)
    with made as name, file_lock(Path(name, LOCK), str(folder)):
        Path(name, IN_USE).write_text(folder.name, encoding="utf8")
        yield Path(name)


def _remove_unlocked(in_use: Path, folder: Path) -> None:
    """Remove a folder whose lock nobody holds, and put back what it was about to replace if that place is empty."""
    beside = in_use.parent
    with contextlib.suppress(OSError, ValueError, BadInput):
        if not in_use.is_file() or in_use.read_text("utf8") != folder.name:
            return  # a pipe, or of `a-b`, where those of `a` are looked for
        with file_lock(beside / LOCK, str(folder)):
            if (beside / OLD).exists() and not folder.exists():
                (beside / OLD).replace(folder)
            shutil.rmtree(beside)
