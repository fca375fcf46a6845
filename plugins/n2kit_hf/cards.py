"""Facts about Hugging Face checkpoints, read from their config.json and safetensors headers without torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from n2kit import LLMCard, VisionCard
from n2kit.errors import BadInput

Locate = Callable[[], Path | None]
# One fact, the names that architectures give it.
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_INPUT_WIDTH = ("word_embed_proj_dim", "embedding_size", *_WIDTH)
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
_HEADS = ("lm_head", "output_projection", "embed_out", "score")


class LLMConfig(BaseModel):
    """Options of a language model read by transformers."""

    model_config = ConfigDict(extra="forbid")
    KEEPS_CARD: ClassVar = frozenset({"seed", "dtype", "attention"})
    attention: Literal["sdpa", "eager"] = Field(
        "sdpa", description="eager is faster on a CPU for rows of some 30 tokens"
    )
    config: dict[str, Any] | None = Field(None, description="the architecture of a model with random weights")
    seed: int = Field(0, description="of random weights")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class VisionConfig(BaseModel):
    """Options of a vision encoder read by transformers."""

    model_config = ConfigDict(extra="forbid")
    KEEPS_CARD: ClassVar = frozenset({"seed", "dtype", "fit"})
    config: dict[str, Any] | None = Field(None, description="the architecture of a model with random weights")
    seed: int = Field(0, description="of random weights")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    fit: Literal["crop", "squash", "pad"] | None = Field(None, description="null: as the checkpoint was trained")


def llm_card(options: LLMConfig, locate: Locate) -> LLMCard:
    """The card of a causal LM: from its folder's config.json, or from `options.config` for random weights."""
    folder = locate()
    if folder is not None and folder.suffix == ".gguf":
        from n2kit_hf.gguf import card_of

        return card_of(folder)
    config = read_config(folder) if folder else dict(options.config or {})
    text = config.get("text_config") or config
    return LLMCard(
        input_width=_fact(text, _INPUT_WIDTH),
        output_width=_fact(text, _WIDTH),
        layers=_fact(text, _LAYERS),
        vocab=_fact(text, ("vocab_size",)),
        context=_fact(text, _CONTEXT, default=2**31),
        parameters=parameter_count(folder, lambda key: not key.startswith(_HEADS)),
    )


def vision_card(
    options: VisionConfig,
    locate: Locate,
    *,
    defaults: Mapping[str, int],
    prefix_tokens: int,
    belongs: Callable[[str], bool],
) -> VisionCard:
    """The card of a ViT: `defaults` are what its configuration class takes for keys that a file leaves out."""
    folder = locate()
    config = read_config(folder) if folder else dict(options.config or {})
    facts = {**defaults, **(config.get("vision_config") or config)}
    return VisionCard(
        tokens=(facts["image_size"] // facts["patch_size"]) ** 2 + prefix_tokens,
        token_width=facts["hidden_size"],
        pooled_width=facts["hidden_size"],
        image_size=facts["image_size"],
        parameters=parameter_count(folder, belongs),
        prefix_tokens=prefix_tokens,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Raises BadInput if the folder holds no config.json that can be read."""
    file = folder / "config.json"
    if not file.is_file():
        raise BadInput(f"{folder} holds no config.json", "give a folder that transformers' save_pretrained wrote")
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: not valid JSON: {error}", "copy or download the checkpoint again") from None
    return content


def parameter_count(folder: Path | None, belongs: Callable[[str], bool]) -> int:
    """How many numbers the safetensors files of a folder hold under keys that `belong`; 0 where they are not there (yet)."""
    total = 0
    for file in sorted(folder.glob("*.safetensors")) if folder else []:
        for key, entry in _header(file).items():
            if key != "__metadata__" and belongs(key):
                total += math.prod(entry["shape"])
    return total


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as content:
            (length,) = struct.unpack("<Q", content.read(8))
            header: dict[str, Any] = json.loads(content.read(length))
    except (struct.error, ValueError, MemoryError, OverflowError):
        raise BadInput(f"{file}: not a safetensors file", "copy or download the checkpoint again") from None
    return header


def _fact(config: Mapping[str, Any], names: tuple[str, ...], default: int | None = None) -> int:
    value = next((config[n] for n in names if config.get(n) is not None), default)
    if value is None:
        raise BadInput(
            f"the configuration of model_type {config.get('model_type')!r} states no {names[0]}",
            "is it a language model?",
        )
    return int(value)
