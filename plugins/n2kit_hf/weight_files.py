"""The safetensors files of a checkpoint's folder, read without torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from n2kit.contract import read_json
from n2kit.errors import BadInput


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
    if (whole := folder / "model.safetensors").is_file():
        return [whole]
    if (index := folder / "model.safetensors.index.json").is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise BadInput(f"{index}: no weight_map that names files", "copy or download the checkpoint again")
        return [file for name in sorted(set(names.values())) if (file := folder / Path(name).name).is_file()]
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as content:
            (length,) = struct.unpack("<Q", content.read(8))
            header = json.loads(content.read(length))
    except (struct.error, ValueError, MemoryError, OverflowError, RecursionError):
        header = None
    entries = [entry for key, entry in header.items() if key != "__metadata__"] if isinstance(header, dict) else [None]
    if not all(isinstance(entry, dict) and _is_shape(entry.get("shape")) for entry in entries):
        raise BadInput(f"{file}: not a safetensors file", "copy or download the checkpoint again")
    return dict(header or {})


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(isinstance(side, int) for side in shape)
