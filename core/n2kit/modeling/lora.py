"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft, on the linear layers of any backbone's blocks.

peft takes seconds to import: it is imported where there is an adapter, and nowhere else.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from n2kit.contract.interfaces import Part
from n2kit.errors import Mismatch, counted
from n2kit.modeling.layer_depth import called_modules
from n2kit.recipe.tuning import Tune
from n2kit.utils.files import read_json

# Where bitsandbytes is installed, peft and accelerate import it, used or not, and it warns of a kernel that n2kit does without.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda said: "gemm_4bit_forward" not in said.getMessage())

NAME = "default"  # peft's, of a part's one adapter
FOLDER, CONFIG, WEIGHTS = "adapter", "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft's, of the names in its files


def lora_config_of(part: nn.Module) -> Tune | None:
    """Return the configuration of a part's adapter, or None if it has none."""
    config = getattr(part, "peft_config", {}).get(NAME)
    return None if config is None else Tune("lora", config.r, int(config.lora_alpha))


def add(part: Part, what: str, tune: Tune, seed: int) -> None:
    """Add a new adapter, which changes no output yet; it is trained, and the part's own weights are not.

    Raises:
        Mismatch: no block of the part has a linear layer.
    """
    from peft import LoraConfig

    targets = linear_layers(part)
    if not targets:
        raise Mismatch(
            f"{what}.tune {tune} adapts linear layers, and no block of the {what} runs one", f"--tune {what}=full"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(part, LoraConfig(r=tune.number, lora_alpha=tune.alpha, lora_dropout=0.0, target_modules=targets))


def linear_layers(part: Part) -> list[str]:
    """List the names of all linear layers in a part's blocks whose forward runs, GPT-2's transposed ones included.

    An adapter on another one would be left out in silence. peft could adapt torch's attention as a whole, but adds to the
    frozen weights and subtracts again in each forward: they would not stay bit-equal.
    """
    from transformers.pytorch_utils import Conv1D

    inside = {id(module) for block in part.blocks() for module in block.modules()}
    found: dict[str, nn.Module] = {
        n: m for n, m in part.named_modules() if id(m) in inside and isinstance(m, nn.Linear | Conv1D)
    }
    return called_modules(part, found)


def save(part: Part, folder: Path) -> None:
    """Write what peft writes: adapter_config.json and adapter_model.safetensors."""
    folder.mkdir()
    config: Any = part.peft_config
    facts = config[NAME].to_dict() | {"target_modules": sorted(adapted(part)), "inference_mode": True}
    facts = {k: sorted(v) if isinstance(v, set) else v for k, v in facts.items() if k != "peft_version"}
    (folder / CONFIG).write_text(json.dumps(facts, indent=1, sort_keys=True))
    save_file({PREFIX + k: v.detach().cpu().contiguous() for k, v in _state(part).items()}, folder / WEIGHTS)


def load(part: Part, folder: Path) -> None:
    """Add the adapter that `save` wrote, bit-equal.

    Raises:
        ValueError, OSError, SafetensorError: it is not there, it is damaged, or it is another part's.
    """
    from peft import LoraConfig, set_peft_model_state_dict

    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"no {folder.name}/{CONFIG}")
    read_json(folder / CONFIG)  # what is no JSON object, peft would fail on in its own ways
    config: Any = LoraConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{folder.name}/{CONFIG} is of {config.peft_type}, not of LoRA")
    config.inference_mode = False
    _inject(part, config)
    found = {k.removeprefix(PREFIX): v for k, v in load_file(folder / WEIGHTS).items()}
    shapes = {k: v.shape for k, v in _state(part).items()}
    if wrong := sorted(k for k in shapes.keys() | found.keys() if k not in found or shapes.get(k) != found[k].shape):
        raise ValueError(f"{folder.name}/{WEIGHTS} does not fit: {counted(len(wrong), 'tensor')}, {wrong[0]} the first")
    set_peft_model_state_dict(part, found, adapter_name=NAME)


@contextmanager
def adapter_removed(part: Part) -> Iterator[None]:
    """Remove a part's adapter inside the `with` block: its own layers are back in their places."""
    layers = adapted(part)
    _replace(part, {name: layer.get_base_layer() for name, layer in layers.items()})
    try:
        yield
    finally:
        _replace(part, layers)


def merge(part: Part) -> None:
    """Add a part's adapter to its weights, which become float32, and remove it.

    Raises:
        ValueError: the sum is not finite.
    """
    layers = adapted(part.float())
    for layer in layers.values():
        layer.merge(safe_merge=True, adapter_names=[NAME])
    _replace(part, {name: layer.get_base_layer() for name, layer in layers.items()})
    del part.peft_config


def untrained_adapters(part: Part) -> tuple[list[str], int]:
    """List the adapted layers whose adapter got no gradient, and count all adapted layers.

    None at all, that is: of a new adapter the first matrix gets one of zeros, because the second one starts at zero; and stochastic
    depth may leave a whole block out of a step, with zeros too.
    """
    layers = adapted(part)
    weights = {name: [p for p in layer.parameters() if p.requires_grad] for name, layer in layers.items()}
    return [name for name, own in weights.items() if all(p.grad is None for p in own)], len(layers)


def _inject(part: Part, config: Any) -> None:
    from peft import inject_adapter_in_model

    wanted = set(config.target_modules)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # peft then sets it right
        inject_adapter_in_model(config, part, NAME)
    for weight in part.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()  # peft takes the type of the layer below, too narrow to be trained in
    if wrong := wanted ^ set(adapted(part)):
        raise ValueError(f"an adapter of other layers: {', '.join(sorted(wrong)[:3])}")


def _state(part: Part) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    found: dict[str, Tensor] = get_peft_model_state_dict(part, adapter_name=NAME, save_embedding_layers=False)
    return found


def adapted(part: Part) -> dict[str, Any]:
    """Return the layers that have an adapter, by name; none where peft was never needed."""
    if lora_config_of(part) is None:
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in part.named_modules() if isinstance(module, LoraLayer)}


def _replace(part: Part, modules: dict[str, Any]) -> None:
    for name, module in modules.items():
        parent, _, leaf = name.rpartition(".")
        setattr(part.get_submodule(parent), leaf, module)
