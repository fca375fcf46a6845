"""Loading and initialising transformers models: strictly, quietly, and without code from the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from n2kit.contract import read_json
from n2kit.errors import BadInput, counted
from n2kit_hf.bodies import tied_elsewhere
from n2kit_hf.weight_files import files_problem, weight_files

NOT_HASHED = ("_name_or_path", "architectures", "dtype")  # what no output hangs on but through the weights
HEAD = "lm_head.weight"
POINTER, LONGEST_POINTER = b"version https://git-lfs", 1024  # bytes
DTYPES: dict[str, Any] = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(
    cls: Any, folder: Path, dtype: Any, attention: str | None = None, *, saved: bool = False
) -> PreTrainedModel:
    """Load by `from_pretrained`, safetensors only, strictly: a weight that the checkpoint lacks is an error, not a random number.

    Args:
        attention: the implementation, chosen here because some classes (Falcon) cannot change it later; None: their default.
        saved: the folder holds what n2kit saved of this very class: a weight that is left over is an error too.

    Raises:
        BadInput: the folder is no checkpoint of that class, or one with missing weights.
    """
    try:
        with quietly(), torch.random.fork_rng(devices=[]):  # what is missing is drawn first
            model, info = cls.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True, local_files_only=True,
                trust_remote_code=False, attn_implementation=attention,
            )  # fmt: skip
    except Exception as error:  # of transformers, of safetensors, of a quantiser: each raises its own
        if "MemoryError" in type(error).__name__ or "can't allocate memory" in str(error):
            raise
        raise _problem(cls, folder, error) from None
    # A pooler that the checkpoint never had is not used by a language model or a CLIP-like tower.
    missing = sorted(k for k in info["missing_keys"] if "pooler" not in k)
    if missing and not tied_elsewhere(model, missing, lambda: _tensors(folder, HEAD)):
        raise BadInput(
            f"{folder} lacks {counted(len(missing), 'weight')}, the first is {missing[0]}",
            "is it a checkpoint of this family?",
        )
    if saved and (extra := sorted(info["unexpected_keys"])):
        raise BadInput(
            f"{folder} has {counted(len(extra), 'weight')} that its model has not, the first is {extra[0]}",
            "save it again",
        )
    loaded: PreTrainedModel = model.eval()
    return loaded


def settings_of(model: Any) -> str:
    """Write down a model's configuration, in so far as its outputs hang on it with the same weights."""
    facts = {k: v for k, v in model.config.to_dict().items() if k not in NOT_HASHED}
    return f"{model.config._attn_implementation} {json.dumps(facts, sort_keys=True, default=str)}"


def _problem(cls: Any, folder: Path, error: Exception) -> BadInput:
    """Say why a folder cannot be loaded: a pointer in a file's place, tensors of other shapes, else what transformers says."""
    if problem := pointer_problem(folder) or files_problem(folder):
        return problem
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if "custom code" in reason:
        kind = read_json(folder / "config.json").get("model_type")
        return BadInput(
            f"{folder}: model_type {kind!r} needs code of its own, and n2kit runs no code of a checkpoint",
            "another model",
        )
    if "ignore_mismatched_sizes" in str(error):
        with quietly(), suppress(Exception):
            _, info = cls.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, local_files_only=True, trust_remote_code=False,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
            name, stored, wanted = sorted(info["mismatched_keys"])[0]
            reason = f"{name} is {list(stored)} in the weights, and {list(wanted)} by config.json"
            return BadInput(f"{folder}: {reason}", "give the config.json that belongs to these weights")
    return BadInput(f"{folder}: not a checkpoint that transformers can read: {reason}", "check the folder")


def pointer_problem(folder: Path) -> BadInput | None:
    """Find a file of which only the pointer of git-lfs was copied."""
    for file in sorted(folder.glob("*")) if folder.is_dir() else []:
        if file.is_file() and file.stat().st_size < LONGEST_POINTER and file.read_bytes().startswith(POINTER):
            return BadInput(
                f"{file}: a pointer of git-lfs, and not the file itself", "git lfs pull, or copy the folder again"
            )
    return None


def _tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Read one tensor of a folder by its name, where it is there."""
    for file in weight_files(folder):
        with safe_open(file, "pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118
                return {name: tensors.get_tensor(name)}
    return {}


def random_model(cls: Any, config: Any, options: Any) -> PreTrainedModel:
    """Build a model with seeded random weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(options.seed)
        model: PreTrainedModel = cls.from_config(config) if hasattr(cls, "from_config") else cls(config)
        model.eval()
    return model


@contextmanager
def quietly() -> Iterator[None]:
    """Silence progress bars and warnings of transformers; n2kit prints its own."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
