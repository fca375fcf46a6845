"""The part of a transformers model that a language model's states come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from n2kit_hf.traits import INNER


def language_body(model: PreTrainedModel) -> PreTrainedModel:
    """Return the language model inside a multimodal one, without the towers that no text runs through; else the model itself."""
    if model.config.get_text_config() is model.config:
        return model
    found = [inner for name in INNER if isinstance(inner := getattr(model, name, None), PreTrainedModel)]
    return found[0] if found else model


def text_alone(whole: PreTrainedModel) -> PreTrainedModel:
    """Return the causal language model inside a multimodal one, with the same weights; else, the model itself.

    It stays whole where transformers has no class of the language model alone, or one of another body.
    """
    inside: Any = whole.base_model
    text, body = whole.config.get_text_config(), language_body(inside)
    if text is whole.config or body is inside:
        return whole
    try:
        with torch.device("meta"):
            alone: PreTrainedModel = AutoModelForCausalLM.from_config(text)
    except ValueError:
        return whole
    if type(alone.base_model) is not type(body):
        return whole
    setattr(alone, alone.base_model_prefix, body)
    alone.set_output_embeddings(whole.get_output_embeddings())
    alone.generation_config = whole.generation_config
    alone.eval()
    return alone


def scores(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Apply what some families do to their head's output: a factor (Granite, Cohere, Falcon-H1), a soft cap (Gemma 2)."""
    for name, divides in (("logits_scaling", True), ("logit_scale", False), ("lm_head_multiplier", False)):
        if (factor := getattr(config, name, None)) is not None:
            logits = logits / factor if divides else logits * factor
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def settled(model: PreTrainedModel) -> PreTrainedModel:
    """Remove from a model what no state depends on, and what would change its weights without our knowledge."""
    if getattr(model, "pooler", None) is not None:
        model.add_module("pooler", None)
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = (
            0  # RWKV divides weights in place at its first evaluation, and a saved copy of them again
        )
    return model


def implementations(model: PreTrainedModel) -> tuple[str, ...]:
    if getattr(model, "_supports_sdpa", False):
        return ("sdpa", "eager")
    return ("eager",) if hasattr(model.config.get_text_config(), "num_attention_heads") else ()


def unused_positions(model: PreTrainedModel) -> int:
    """Count the rows at the start of the position table that no token reaches: those up to the padding's (RoBERTa)."""
    tables = [m for name, m in model.named_modules() if name.endswith("position_embeddings")]
    padding = [m.padding_idx for m in tables if isinstance(m, nn.Embedding)]
    return padding[0] + 1 if padding and padding[0] is not None else 0


def running_stack(model: nn.Module, layers: int, call: Callable[[], object]) -> str | None:
    """Name the list of `layers` modules that run in `call`; None where no such list does."""
    stacks = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == layers}
    ran: set[str] = set()
    hooks = [m[0].register_forward_hook(lambda *_, name=n: ran.add(name)) for n, m in stacks.items()]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return next((name for name in stacks if name in ran), None)


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Convert a model to float32, which is exact, inside the `with` block."""
    types = {name: tensor.dtype for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    model.float()
    try:
        yield
    finally:
        tensors = model.state_dict(keep_vars=True)
        for name, dtype in types.items():
            tensors[name].data = tensors[name].data.to(dtype)


def tied_elsewhere(model: Any, missing: Sequence[str], tensors: Callable[[], dict[str, Any]]) -> bool:
    """Fill the input table from the head that a checkpoint stores in its place, where the two are one; tell whether that was it.

    Args:
        missing: names of weights that the checkpoint lacks. tensors: reads its tensors under `lm_head.weight`, by name.
    """
    table = model.get_input_embeddings()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    names = {name for name, parameter in model.named_parameters() if parameter is table.weight}
    if not tied or set(missing) != names:
        return False
    head = next(iter(tensors().values()), None)
    if head is None or head.shape != table.weight.shape:
        return False
    table.weight.data = head.to(table.weight.dtype)
    return True
