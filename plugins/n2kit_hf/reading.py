"""The reading of a language model's folder: with an adapter in its weights, and by the attention that is asked for."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from n2kit.errors import Mismatch
from n2kit_hf import adapters
from n2kit_hf.cards import LLMConfig, text_config
from n2kit_hf.checkpoints import DTYPES, load_model
from n2kit_hf.traits import attention_of


def read_model(path: Path, options: LLMConfig, attention: str | None, *, head: bool) -> PreTrainedModel:
    """Read a folder's model, with its adapter put into the weights where `options` names one.

    Raises:
        BadInput: the folder holds an adapter itself, or the named one does not fit.
    """
    if options.adapter is None:
        return load_model(AutoModelForCausalLM if head else AutoModel, path, DTYPES[options.dtype], attention)
    folder = Path(options.adapter).expanduser()
    whole = head or any(name.startswith(adapters.WITH_HEAD) for name in adapters.names_in(folder))
    loaded = load_model(AutoModelForCausalLM if whole else AutoModel, path, DTYPES[options.dtype], attention)
    loaded = adapters.merged(loaded, folder)
    body: PreTrainedModel = loaded.base_model if whole and not head else loaded
    return body


def attention_asked(path: Path | None, options: LLMConfig) -> str | None:
    """Return the requested implementation of attention.

    Raises:
        Mismatch: the architecture does not have it.
    """
    kind = text_config(path, options).get("model_type")
    there = attention_of(kind)
    if options.attention is not None and options.attention not in there:
        offer = f"has {' and '.join(there)}" if there else "has no attention to choose"
        raise Mismatch(f"attention {options.attention} was asked for, and model_type {kind!r} {offer}", "leave it out")
    return options.attention
