"""GGUF files: de-quantised once to a safetensors folder in the cache (seconds to minutes), then read like any other."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from n2kit.errors import BadInput, Unavailable
from n2kit.weights import cache_folder


def converted(file: Path) -> Path:
    """The folder that holds a GGUF file's weights as bfloat16 safetensors, and its tokenizer.

    Raises:
        Unavailable: the `gguf` package is not installed. BadInput: a file that cannot be read.
    """
    stat = file.stat()
    key = hashlib.sha256(f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder() / "gguf" / f"{file.stem}-{key}"
    if not (folder / "config.json").is_file():
        if importlib.util.find_spec("gguf") is None:
            raise Unavailable(f"reading {file.name} needs the gguf package", 'pip install "n2kit[gguf]"')
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder.parent) as aside:
            _convert(file, Path(aside) / "model")
            if not folder.exists():  # another process may have been faster
                (Path(aside) / "model").replace(folder)
    return folder


def _convert(file: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from n2kit_hf.checkpoints import quietly

    where = str(file.parent)
    try:
        with quietly():
            model: Any = AutoModelForCausalLM.from_pretrained(
                where, gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
            )
            AutoTokenizer.from_pretrained(where, gguf_file=file.name).save_pretrained(out)
            model.to(torch.bfloat16).save_pretrained(out)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{file}: not a GGUF file that transformers can read: {str(error).splitlines()[0]}", "check the file"
        ) from None
