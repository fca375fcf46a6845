"""Facts about Hugging Face checkpoints, read from their config.json and safetensors headers without torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from n2kit.contract import LLMCard, read_json
from n2kit.errors import BadInput, Unavailable
from n2kit_hf import traits
from n2kit_hf.adapters import refuse_adapter
from n2kit_hf.sentence_modules import PoolingMode, SentenceModules, modules_of
from n2kit_hf.weight_files import packed_tensor, parameter_count, tensor_shapes

Locate = Callable[[], Path | None]
# One fact, the names that architectures give it.
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
# OPT and EmbeddingGemma 2 project before they return.
_OUTPUT_WIDTH = ("word_embed_proj_dim", "embedding_dim", *_WIDTH)
_INPUT_WIDTH = ("word_embed_proj_dim", "embedding_size", *_WIDTH)
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
# Keys of a checkpoint that are no weights of the model without its head: what heads begin with, what buffers end with.
_HEADS = (
    "classifier.", "cls.", "decoder.bias", "decoder.weight", "discriminator_predictions.", "embed_out.", "generator_",
    "head.", "lm_head", "output_projection.", "pre_classifier.", "predictions.", "qa_outputs.", "score.",
    "vocab_layer_norm.", "vocab_projector.", "vocab_transform.",
)  # fmt: skip
_BUFFERS = (
    ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", "inv_freq", "layer_scalar", "position_ids",
    "token_type_ids",
)  # fmt: skip


# In a multimodal checkpoint whose language model has no name of its own: what the names of the other parts begin with.
_TOWERS = ("audio", "connector", "mm_projector", "multi_modal_projector", "vision", "visual")
# Modules that transformers reads quantised weights with, by `quant_method`; others (FP8) need none.
QUANTIZERS = {
    "aqlm": ("aqlm",), "awq": ("gptqmodel",), "bitsandbytes": ("bitsandbytes",), "compressed-tensors": ("compressed_tensors",),
    "eetq": ("kernels",), "gptq": ("optimum", "gptqmodel"), "hqq": ("hqq",), "quanto": ("optimum",), "torchao": ("torchao",),
    "vptq": ("vptq",),
}  # fmt: skip


class LLMConfig(BaseModel):
    """Options of a language model read by transformers."""

    model_config = ConfigDict(extra="forbid")
    KEEPS_CARD: ClassVar = frozenset({"seed", "dtype", "attention", "adapter"})
    pooling: PoolingMode | None = Field(
        None,
        description="of a text embedder's states; null: as its folder says (1_Pooling), else the state at the last token",
    )
    adapter: str | None = Field(
        None, description="a folder that peft wrote: a low-rank adapter to put into the weights"
    )
    attention: Literal["sdpa", "eager"] | None = Field(
        None, description="null: the model's own default; eager is faster on a CPU for rows of some 30 tokens"
    )
    config: dict[str, Any] | None = Field(None, description="the architecture of a model with random weights")
    seed: int = Field(0, description="of random weights")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the weights in memory; auto: as the checkpoint has them"
    )


class VisionConfig(BaseModel):
    """Options of a vision encoder read by transformers."""

    model_config = ConfigDict(extra="forbid")
    KEEPS_CARD: ClassVar = frozenset({"seed", "dtype", "fit"})
    config: dict[str, Any] | None = Field(None, description="the architecture of a model with random weights")
    seed: int = Field(0, description="of random weights")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the weights in memory; auto: as the checkpoint has them"
    )
    fit: Literal["crop", "squash", "pad"] | None = Field(None, description="null: as the checkpoint was trained")


def llm_card(options: LLMConfig, locate: Locate) -> LLMCard:
    """Read the card of a language model: from its folder's config.json, or from `options.config` for random weights.

    Raises:
        BadInput: no configuration, or one of an encoder with a decoder, or of no language model.
    """
    folder = locate()
    if folder is not None and folder.suffix == ".gguf":
        from n2kit_hf.gguf import card_of

        return _pooled(card_of(folder), modules_of(None, options.pooling))
    text = text_config(folder, options)
    if text.get("is_encoder_decoder"):
        raise BadInput(
            f"model_type {text.get('model_type')!r} is an encoder with a decoder", "a decoder or an encoder alone"
        )
    card = LLMCard(
        input_width=_fact(text, _INPUT_WIDTH),
        output_width=_fact(text, _OUTPUT_WIDTH),
        layers=_fact(text, _LAYERS),
        vocab=_fact(text, ("vocab_size",)),
        context=context_of(text) - traits.unused_positions(text),
        parameters=_parameters(folder, text),
        causal=traits.reads_forwards(text),
        embeds=traits.reads_embeddings(text),
        attention=traits.attention_of(text.get("model_type")),
    )
    return _pooled(card, modules_of(folder, options.pooling))


def gemma4_card(options: LLMConfig, locate: Locate) -> LLMCard:
    """Read the card of Gemma 4, whose embeddings carry those of its layers (see `n2kit_hf.gemma4`)."""
    folder = locate()
    return layered(llm_card(options, lambda: folder), text_config(folder, options))


def layered(card: LLMCard, text: Mapping[str, Any]) -> LLMCard:
    """Return the card of a Gemma 4 whose embeddings carry those of its layers."""
    return replace(card, embeds=True, input_width=card.input_width + traits.layered_width(text))


def _pooled(card: LLMCard, modules: SentenceModules | None) -> LLMCard:
    """Return the card of a text embedder with its own pooling; a folder without weights has no parameters to count."""
    if modules is None:
        return card
    layers = sum(layer.parameters for layer in modules.layers) if card.parameters else 0
    return replace(
        card,
        output_width=modules.layers[-1].outputs if modules.layers else card.output_width,
        parameters=card.parameters + layers,
        causal=card.causal and modules.pooling == "last",
        template=modules.template,
        max_tokens=min(modules.max_tokens or card.context, card.context),
    )


def text_config(folder: Path | None, options: LLMConfig) -> dict[str, Any]:
    """Return the language model's part of a folder's config.json, or `options.config` where there is no folder."""
    config = read_config(folder) if folder else dict(options.config or {})
    return dict(config.get("text_config") or config)


def context_of(config: Mapping[str, Any]) -> int:
    """Return the number of positions that a configuration states; unlimited where it states none (XLNet writes -1)."""
    context = _fact(config, _CONTEXT, default=traits.UNLIMITED)
    return context if context > 0 else traits.UNLIMITED


def _parameters(folder: Path | None, text: Mapping[str, Any]) -> int:
    """Count the numbers of a folder's language model: without its head, and without the towers beside it.

    A head that the input table shares counts where it is stored in the table's place.
    """
    keys = list(tensor_shapes(folder)) if folder is not None else []
    inside = [key for key in keys if any(f"{name}." in key for name in traits.INNER)]
    head: tuple[str, ...] = ()
    if text.get("tie_word_embeddings") and not any("embed" in key or "wte" in key for key in keys):
        head = ("lm_head.weight",)

    def belongs(key: str) -> bool:
        if key in head:
            return True
        if inside:
            return key in inside and _is_body(key)
        return _is_body(key) and not key.removeprefix("model.").startswith(_TOWERS)

    return parameter_count(folder, belongs)


def _is_body(key: str) -> bool:
    return not key.startswith(_HEADS) and not key.endswith(_BUFFERS) and "pooler." not in key


def read_config(folder: Path) -> dict[str, Any]:
    """Read a folder's config.json.

    Raises:
        BadInput: it is missing or cannot be read, or an adapter lies in the folder.
        Unavailable: the weights need a package that is not installed.
    """
    refuse_adapter(folder)
    file = folder / "config.json"
    if not file.is_file():
        raise BadInput(f"{folder} holds no config.json", "give a folder that transformers' save_pretrained wrote")
    try:
        config = read_json(file)
    except BadInput as problem:
        raise BadInput(problem.message, "copy or download the checkpoint again") from None
    _require_quantizer(folder, config)
    return config


def _require_quantizer(folder: Path, config: Mapping[str, Any]) -> None:
    """Check that the packages are installed which transformers reads quantised weights with.

    Raises:
        Unavailable: one is not. BadInput: weights are packed, and nothing says how.
    """
    stated = config.get("quantization_config")
    method = str(stated.get("quant_method")) if isinstance(stated, dict) else ""
    if missing := [module for module in QUANTIZERS.get(method, ()) if importlib.util.find_spec(module) is None]:
        packages = [module.replace("_", "-") for module in missing]
        raise Unavailable(
            f"{folder}: its weights are quantised by {method}, which needs {' and '.join(packages)}",
            f"pip install {' '.join(packages)}; or give the weights as they were before",
        )
    if not method and (packed := packed_tensor(folder)) is not None:
        raise BadInput(
            f"{folder}: {packed}, and its config.json names no quantization_config",
            "give the config.json of these weights",
        )


def _fact(config: Mapping[str, Any], names: tuple[str, ...], default: int | None = None) -> int:
    value = next((config[n] for n in names if config.get(n) is not None), default)
    if value is None:
        raise BadInput(
            f"the configuration of model_type {config.get('model_type')!r} states no {names[0]}",
            "is it a language model?",
        )
    return int(value)
