"""Checkpoints: complete or absent, readable without unpickling anything, the last good one safe from a full disk.

A checkpoint is written to a temporary folder, flushed to the disk and renamed, so that a folder `checkpoint-STEP` always has all
its files; `state.json` has the size of each, for disks that lose data. The two newest are kept.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from n2kit.errors import BadInput
from n2kit.utils.files import atomic_write, disk_full_guard, read_json, sync, sync_tree

WEIGHTS, STATE, WEIGHTS_SUFFIX = "model.safetensors", "state.json", ".safetensors"
KEPT = 2
HINT = "free some space; the same command goes on from the last checkpoint"


def write(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
    state: dict[str, Any],
) -> None:
    """Write `folder/checkpoint-STEP` and remove all but the newest `KEPT` checkpoints, and best weights that none of them names.

    Args:
        tensors: file → its tensors. texts: file → its content. state: JSON that `read` returns.

    Raises:
        Unavailable: the disk is full; the checkpoints that were there still are.
    """
    final = folder / f"checkpoint-{step}"
    with _staged(final) as staged:
        for name, some in tensors.items():
            _save(some, staged / name)
        for name, text in texts.items():
            (staged / name).write_text(text, encoding="utf8")
        sizes = {file.name: file.stat().st_size for file in staged.iterdir()}
        (staged / STATE).write_text(json.dumps(state | {"files": sizes}), encoding="utf8")
        sync_tree(staged)
        if final.exists():  # of the same step, and damaged
            _remove(final)
        staged.rename(final)
        sync(folder)
    _remove_old(folder)


def write_best(folder: Path, step: int, weights: Mapping[str, Tensor]) -> None:
    """Write the best weights so far to `best_file(folder, step)`, and remove others that no checkpoint names.

    Raises:
        Unavailable: the disk is full; the checkpoints that were there still are.
    """
    final = best_file(folder, step)
    with disk_full_guard(f"{final} cannot be written", HINT), atomic_write(final) as temporary:
        _save(weights, temporary)
    sync(folder)
    _remove_old_best(folder, [c for c in _newest_first(folder) if _is_complete(c)], final)


def best_file(folder: Path, step: int) -> Path:
    return folder / f"best-{step}.safetensors"


def read(checkpoint: Path) -> dict[str, Any]:
    """Read the `state` that was written with a checkpoint."""
    return read_json(checkpoint / STATE)


def last(folder: Path) -> Path | None:
    """Find the newest checkpoint that is complete."""
    return next((c for c in _newest_first(folder) if _is_complete(c)), None)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders of processes that were killed."""
    for left in folder.glob(".*.tmp"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _is_complete(checkpoint: Path) -> bool:
    try:
        state = read(checkpoint)
        files = [(checkpoint / name, size) for name, size in state["files"].items()]
        best = [checkpoint.parent / state["best_file"]] if state.get("best_file") else []
        tensors = [file for file, _ in files if file.suffix == WEIGHTS_SUFFIX]
        return all(f.stat().st_size == size for f, size in files) and all(map(_readable, [*tensors, *best]))
    except (OSError, BadInput, KeyError):
        return False


def _readable(file: Path) -> bool:
    """Tell whether a file has the header of safetensors, and the length that it states."""
    try:
        with safe_open(file, "pt"):
            return True
    except SafetensorError:
        return False


def _remove_old(folder: Path) -> None:
    """Remove old checkpoints, and best weights that no checkpoint left names: a run may resume from any that is left."""
    found = _newest_first(folder)
    kept = [checkpoint for checkpoint in found if _is_complete(checkpoint)][:KEPT]
    for checkpoint in found:
        if checkpoint not in kept:
            _remove(checkpoint)
    _remove_old_best(folder, kept)


def _remove_old_best(folder: Path, checkpoints: list[Path], newest: Path | None = None) -> None:
    named = {read(checkpoint).get("best_file") for checkpoint in checkpoints}
    for file in folder.glob(f"best-*{WEIGHTS_SUFFIX}"):
        if file.name not in named and file != newest:
            file.unlink()


def _newest_first(folder: Path) -> list[Path]:
    found = [c for c in folder.glob("checkpoint-*") if c.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=step_of, reverse=True)


def _save(tensors: Mapping[str, Tensor], file: Path) -> None:
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)


@contextlib.contextmanager
def _staged(final: Path) -> Iterator[Path]:
    """Make an empty folder beside `final` to write in, which is removed afterwards.

    Raises:
        Unavailable: the disk is full.
    """
    staged = final.with_name(f".{final.name}.tmp")
    with disk_full_guard(f"{final} cannot be written", HINT):
        try:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint, renamed first so that no incomplete folder ever has its name."""
    renamed = checkpoint.with_name(f".{checkpoint.name}.old.tmp")
    checkpoint.rename(renamed)
    shutil.rmtree(renamed)
