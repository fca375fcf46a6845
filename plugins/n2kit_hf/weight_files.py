"""The safetensors files of a checkpoint's folder, read without torch."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from n2kit.contract import read_json
from n2kit.errors import BadInput, counted

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
AGAIN = "copy or download the checkpoint again"
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
PACKED = ("I8", "U8", "F8", "F4", "I4", "U4")  # types of safetensors; no model computes with these as they are


def parameter_count(folder: Path | None, belongs: Callable[[str], bool]) -> int:
    """Count the numbers that a folder's safetensors files hold under keys that `belong`; 0 where there are no files (yet)."""
    return sum(math.prod(shape) for key, shape in (tensor_shapes(folder) if folder else {}).items() if belongs(key))


def tensor_shapes(folder: Path) -> dict[str, list[int]]:
    """Map the names of the tensors in a folder's safetensors files to their shapes.

    Raises:
        BadInput: a file is no safetensors file.
    """
    return {
        key: entry["shape"]
        for file in weight_files(folder)
        for key, entry in _header(file).items()
        if key != "__metadata__"
    }


def weight_files(folder: Path) -> list[Path]:
    """List the files that transformers reads: the single one, else those of the index, else all there are.

    A folder may hold the weights twice: in shards, in half precision, or as Mistral's `consolidated.safetensors`.
    """
    if (whole := folder / WHOLE).is_file():
        return [whole]
    if (index := folder / INDEX).is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise BadInput(f"{index}: no weight_map that names files", AGAIN)
        return [file for name in sorted(set(names.values())) if (file := folder / Path(name).name).is_file()]
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))


def packed_tensor(folder: Path) -> str | None:
    """Name the first weight whose numbers are packed into a byte or less each, and its type; None where there is none.

    Masks of that type, as older models keep them, are called otherwise.
    """
    found = ((key, str(entry.get("dtype"))) for file in weight_files(folder) for key, entry in _header(file).items())
    return next(
        (f"{key} is {dtype}" for key, dtype in found if key.endswith("weight") and dtype.startswith(PACKED)), None
    )


def files_problem(folder: Path) -> BadInput | None:
    """Find what is wrong with a folder's weight files: missing, cut short, or pickles; None where they are whole.

    Raises:
        BadInput: one is no safetensors file, or the index names none.
    """
    files, index = weight_files(folder), folder / INDEX
    if index.is_file() and not (folder / WHOLE).is_file():
        names = sorted({Path(name).name for name in read_json(index)["weight_map"].values()})
        if lost := [name for name in names if not (folder / name).is_file()]:
            what = f"{folder} lacks {counted(len(lost), 'file')} of {len(names)} that {INDEX} names, the first is {lost[0]}"
            return BadInput(what, AGAIN)
    elif shard := next((file.name for file in files if _SHARD.search(file.name)), None):
        return BadInput(f"{folder} holds {shard}, and lacks {INDEX}, which says what is in it", AGAIN)
    elif any(file.name != WHOLE for file in files):
        what = f"{folder} holds no {WHOLE}, but {files[0].name}"
        return BadInput(what, f"rename it, if these are the weights: {WHOLE}")
    for file in files:
        if lacking := _missing_bytes(file):
            return BadInput(f"{file}: cut short by {counted(lacking, 'byte')}", AGAIN)
    pickles = sorted(file.name for ending in ("bin", "pt", "pth") for file in folder.glob(f"*.{ending}"))
    if pickles and not files:
        what = f"{folder} holds its weights in {pickles[0]} alone, and n2kit opens no pickles"
        return BadInput(what, "save it again with transformers: safe_serialization=True")
    return None


def _missing_bytes(file: Path) -> int:
    """Count the bytes that a safetensors file's header promises, and that are not there."""
    with file.open("rb") as content:
        before = 8 + int.from_bytes(content.read(8), "little")
    ends = [entry.get("data_offsets", [0])[-1] for key, entry in _header(file).items() if key != "__metadata__"]
    return max(0, before + max(ends, default=0) - file.stat().st_size)


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as content:
            (length,) = struct.unpack("<Q", content.read(8))
            header = json.loads(content.read(length))
    except (struct.error, ValueError, MemoryError, OverflowError, RecursionError):
        header = None
    entries = [entry for key, entry in header.items() if key != "__metadata__"] if isinstance(header, dict) else [None]
    if not all(isinstance(entry, dict) and _is_shape(entry.get("shape")) for entry in entries):
        raise BadInput(f"{file}: not a safetensors file", AGAIN)
    return dict(header or {})


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(isinstance(side, int) for side in shape)
