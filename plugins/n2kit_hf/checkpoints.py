"""Loading and initialising transformers models: strictly, quietly, and without code from the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging

from n2kit.errors import BadInput

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
        with quietly():
            model, info = cls.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True, local_files_only=True,
                trust_remote_code=False, attn_implementation=attention,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BadInput(
            f"{folder}: not a checkpoint that transformers can read: {str(error).splitlines()[0]}", "check the folder"
        ) from None
    # A pooler that the checkpoint never had is not used by a language model or a CLIP-like tower.
    missing = sorted(k for k in info["missing_keys"] if "pooler" not in k)
    if missing:
        raise BadInput(
            f"{folder}: {len(missing)} weights are missing, the first is {missing[0]}",
            "is it a checkpoint of this family?",
        )
    if saved and (extra := sorted(info["unexpected_keys"])):
        raise BadInput(
            f"{folder}: {len(extra)} weights are none of its model's, the first is {extra[0]}", "save it again"
        )
    loaded: PreTrainedModel = model.eval()
    return loaded


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
