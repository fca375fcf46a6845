"""A low-rank adapter as peft saves it, put into its base's weights when they are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from n2kit.contract import read_json
from n2kit.errors import BadInput, counted

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
WITH_HEAD = "base_model.model.model."  # names of an adapter of a model with its head begin so
SAYS_BASE = "base_model_name_or_path"


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder that holds an adapter: transformers would apply it to the weights beside it without a word.

    Raises:
        BadInput: it is one, alone or beside full weights.
    """
    if not (folder / CONFIG).is_file():
        return
    hint = f"--llm BASE --adapter {folder} puts it into its base"
    if weights := sorted(f.name for f in folder.glob("*.safetensors") if f.name != WEIGHTS):
        raise BadInput(
            f"{folder} holds an adapter ({CONFIG}) beside full weights ({weights[0]})",
            f"move one of them away; {hint}",
        )
    base = read_json(folder / CONFIG).get(SAYS_BASE)
    what = f"an adapter of {base}" if base else "an adapter"
    raise BadInput(f"{folder} is {what}, and no model", hint.replace("BASE", str(base)) if base else hint)


def names_in(folder: Path) -> list[str]:
    """List the names of an adapter's tensors.

    Raises:
        BadInput: the folder holds none in safetensors.
    """
    from safetensors import SafetensorError, safe_open

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            pickled = name == WEIGHTS and (folder / PICKLED).is_file()
            hint = (
                "save it again with safe_serialization=True"
                if pickled
                else "give a folder that peft's save_pretrained wrote"
            )
            beside = f", but {PICKLED}, and n2kit opens no pickles" if pickled else ""
            raise BadInput(f"{folder} holds no {name}{beside}", hint)
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{folder / WEIGHTS}: not a safetensors file: {error}", "copy or download it again") from None


def merged(model: Any, folder: Path) -> Any:
    """Return a transformers model with an adapter in its weights.

    Raises:
        BadInput: the adapter is of another model, or of a kind that cannot be merged.
    """
    import torch
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    if broken := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise BadInput(
            f"{folder / WEIGHTS}: {broken} has numbers that are NaN or infinite", "copy or download it again"
        )
    try:
        with torch.random.fork_rng(devices=[]):  # peft draws weights first
            config = PeftConfig.from_pretrained(str(folder), local_files_only=True)
            if config.is_prompt_learning:
                what = f"{folder}: an adapter of kind {config.peft_type}, which adds tokens, and nothing to any weight"
                raise BadInput(what, "an adapter that can be merged, as LoRA's")
            joined = get_peft_model(model, config)
        loaded: Any = set_peft_model_state_dict(joined, tensors)
        if unknown := loaded.unexpected_keys:
            raise ValueError(
                f"no place for {len(unknown)} of its {counted(len(tensors), 'tensor')}, the first is {unknown[0]}"
            )
        lacking = [name for name, tensor in joined.named_parameters() if "lora_" in name and _name(name) not in tensors]
        if lacking:
            raise ValueError(f"it has nothing for {counted(len(lacking), 'layer')}, the first is {lacking[0]}")
        return joined.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
        raise BadInput(
            f"{folder}: no adapter of this model: {reason}", "give the base that it was trained on"
        ) from None


def _name(parameter: str) -> str:
    """Name a parameter as an adapter's file does, without the name of the adapter in it."""
    name = parameter.replace(".default.", ".")
    return name.removesuffix(".weight") if "lora_magnitude_vector" in name else name  # DoRA's is a module of one tensor
