"""GGUF files: de-quantised once to a safetensors folder in the cache (seconds to minutes), then read like any other."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import tempfile
from pathlib import Path
from typing import Any

from n2kit.contract import LLMCard, cache_folder
from n2kit.errors import BadInput, Unavailable
from n2kit_hf.traits import attention_of


def converted(file: Path) -> Path:
    """Convert a GGUF file, once: return the folder with its weights as bfloat16 safetensors, and its tokenizer.

    Raises:
        Unavailable: the `gguf` package is not installed. BadInput: a file that cannot be read.
    """
    stat = file.stat()
    key = hashlib.sha256(f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder() / "gguf" / f"{file.stem}-{key}"
    if not (folder / "config.json").is_file():
        _require()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder.parent) as aside:
            _convert(file, Path(aside) / "model")
            if not folder.exists():  # another process may have been faster
                (Path(aside) / "model").replace(folder)
    return folder


def card_of(file: Path) -> LLMCard:
    """Read the card from the file's header; no weight is read.

    Raises:
        Unavailable: the `gguf` package is not installed. BadInput: a file that is no GGUF file.
    """
    _require()
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(file))
        name = str(reader.fields["general.architecture"].contents())
        width, layers, context = (
            int(reader.fields[f"{name}.{key}"].contents())
            for key in ("embedding_length", "block_count", "context_length")
        )
    except (ValueError, KeyError, OSError, IndexError) as error:
        raise BadInput(f"{file}: not a GGUF file of a language model: {error}", "check the file") from None
    sizes = {t.name: int(t.n_elements) for t in reader.tensors}
    parameters = sum(size for key, size in sizes.items() if key not in ("output.weight", "rope_freqs.weight"))
    vocab = sizes["token_embd.weight"] // width
    return LLMCard(width, width, layers, vocab, context, parameters, attention=attention_of(name))


def _require() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise Unavailable("reading GGUF files needs the gguf package", 'pip install "n2kit[gguf]"')


def _convert(file: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from n2kit_hf.checkpoints import quietly

    where = str(file.parent)
    try:
        with quietly(), contextlib.redirect_stderr(io.StringIO()):  # its own progress bar heeds no setting
            model: Any = AutoModelForCausalLM.from_pretrained(
                where, gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
            )
            AutoTokenizer.from_pretrained(where, gguf_file=file.name).save_pretrained(out)
            model.to(torch.bfloat16).save_pretrained(out)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{file}: not a GGUF file that transformers can read: {str(error).splitlines()[0]}", "check the file"
        ) from None
