"""Cards of presets whose architecture is known: what transformers builds from it has as many weights, in the same widths.

No hub was asked. The architectures are the repositories' config.json as public code and transformers' own defaults repeat them;
of Qwen3-VL-2B's language model alone no copy was found: it is taken to be Qwen3-1.7B's, with Qwen3-VL's context.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from n2kit.contract.cards import LLMCard, MLLMCard
from n2kit.plugins.catalogue import check_card, default_catalogue

QWEN3_VL = {
    "model_type": "qwen3_vl",
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17], "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
        "num_position_embeddings": 2304, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
    },
}  # fmt: skip
QWEN3_TEXT = {"head_dim": 128, "num_key_value_heads": 8, "max_position_embeddings": 262144, "vocab_size": 151936}
QWEN3_2B: dict[str, Any] = QWEN3_VL | {
    "text_config": QWEN3_TEXT | {
        "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
    },
    "vision_config": QWEN3_VL["vision_config"] | {"out_hidden_size": 2048},  # type: ignore[operator]
}  # fmt: skip
QWEN3_4B: dict[str, Any] = QWEN3_VL | {
    "text_config": QWEN3_TEXT | {
        "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
    },
    "vision_config": QWEN3_VL["vision_config"] | {"out_hidden_size": 2560},  # type: ignore[operator]
}  # fmt: skip
GEMMA3_4B: dict[str, Any] = {
    "model_type": "gemma3", "mm_tokens_per_image": 256,
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024, "vocab_size": 262208,
    },
    "vision_config": {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
        "num_attention_heads": 16, "image_size": 896, "patch_size": 14, "vision_use_head": False,
    },
}  # fmt: skip
SMOL_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 512,
    "patch_size": 16,
}  # fmt: skip
SMOL_TEXT = {"model_type": "llama", "vocab_size": 49280, "max_position_embeddings": 8192}
SMOL_256: dict[str, Any] = {
    "model_type": "idefics3", "scale_factor": 4, "vision_config": SMOL_VISION,
    "text_config": SMOL_TEXT | {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}  # fmt: skip
SMOL_500: dict[str, Any] = {
    "model_type": "smolvlm", "scale_factor": 4, "vision_config": SMOL_VISION,
    "text_config": SMOL_TEXT | {
        "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
        "num_key_value_heads": 5,
    },
}  # fmt: skip
GEMMA4_TOWER = {
    "model_type": "gemma4_vision", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 16,
    "num_attention_heads": 12, "num_key_value_heads": 12, "head_dim": 64, "patch_size": 16, "pooling_kernel_size": 3,
    "position_embedding_size": 10240, "use_clipped_linears": True,
}  # fmt: skip
GEMMA4_TEXT = {
    "model_type": "gemma4_text", "num_attention_heads": 8, "head_dim": 256, "global_head_dim": 512, "sliding_window": 512,
    "vocab_size": 262144, "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 256,
    "max_position_embeddings": 131072,
}  # fmt: skip
GEMMA4_E2B: dict[str, Any] = {
    "model_type": "gemma4", "vision_config": GEMMA4_TOWER, "audio_config": None,
    "text_config": GEMMA4_TEXT | {
        "hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 35, "num_key_value_heads": 1,
        "num_kv_shared_layers": 20, "use_double_wide_mlp": True,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
    },
}  # fmt: skip
GEMMA4_E4B: dict[str, Any] = {
    "model_type": "gemma4", "vision_config": GEMMA4_TOWER, "audio_config": None,
    "text_config": GEMMA4_TEXT | {
        "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 42, "num_key_value_heads": 2,
        "num_kv_shared_layers": 18, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 7,
    },
}  # fmt: skip
INTERN_TOWER = {
    "model_type": "internvl_vision", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": [448, 448], "patch_size": [14, 14], "attention_bias": True,
}  # fmt: skip
INTERN_TEXT = {"model_type": "qwen2", "vocab_size": 151674, "max_position_embeddings": 32768, "num_key_value_heads": 2}
INTERN_1B: dict[str, Any] = {
    "model_type": "internvl", "vision_config": INTERN_TOWER,
    "text_config": INTERN_TEXT | {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    },
}  # fmt: skip
INTERN_2B: dict[str, Any] = {
    "model_type": "internvl", "vision_config": INTERN_TOWER,
    "text_config": INTERN_TEXT | {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    },
}  # fmt: skip
BLIP2: dict[str, Any] = {
    "model_type": "blip-2", "num_query_tokens": 32, "use_decoder_only_language_model": True, "qformer_config": {},
    "vision_config": {"model_type": "blip_2_vision_model"},  # all else is transformers' default, as in the repository
    "text_config": {
        "model_type": "opt", "hidden_size": 2560, "ffn_dim": 10240, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 50304, "word_embed_proj_dim": 2560, "max_position_embeddings": 2048,
    },
}  # fmt: skip
WHOLE = {
    "gemma-4:e2b": GEMMA4_E2B, "gemma-4:e4b": GEMMA4_E4B, "internvl:3-1b": INTERN_1B, "internvl:3-2b": INTERN_2B,
    "blip-2:opt-2.7b": BLIP2,
    "qwen3-vl:2b": QWEN3_2B, "qwen3-vl:embedding-2b": QWEN3_2B, "qwen3-vl:4b": QWEN3_4B, "gemma-3:4b": GEMMA3_4B,
    "smolvlm:256m": SMOL_256, "smolvlm:2-500m": SMOL_500,
}  # fmt: skip
EMBEDDING_GEMMA: dict[str, Any] = {
    "model_type": "gemma3_text", "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 24,
    "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144,
    "max_position_embeddings": 2048, "use_bidirectional_attention": True,
}  # fmt: skip
QWEN3_EMBEDDING: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151669,
    "max_position_embeddings": 32768,
}  # fmt: skip
# Beside the architecture: the weights of its dense layers, 768 → 3072 → 768 without bias.
TEXT = {"gemma:embedding-300m": (EMBEDDING_GEMMA, 2 * 768 * 3072), "qwen:embedding-0.6b": (QWEN3_EMBEDDING, 0)}


def built(reader: Any, architecture: dict[str, Any]) -> Any:
    facts = dict(architecture)
    config = AutoConfig.for_model(facts.pop("model_type"), **facts)
    with torch.device("meta"):
        return reader.from_config(config)


def count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", WHOLE)
def test_whole_models(name: str) -> None:
    component = default_catalogue().resolve("mllm", name)
    whole = built(AutoModelForImageTextToText, WHOLE[name])
    text, tower = component.cls().halves(whole)
    read = component.load(component.registered.spec.card)
    card: MLLMCard = read(component.config().model_copy(update={"config": WHOLE[name]}), lambda: None)
    llm, vision = replace(card.llm, parameters=count(text)), replace(card.vision, parameters=count(tower))
    card = replace(card, llm=llm, vision=vision)
    if name.startswith("blip-2"):  # whose card counts its Q-Former in the weights alone
        connector = count(whole.qformer) + count(whole.language_projection) + whole.query_tokens.numel()
        card = replace(card, connector_parameters=connector)
    check_card(name, component.declared, card)
    assert component.declared is not None


@pytest.mark.parametrize("name", TEXT)
def test_text_embedders(name: str) -> None:
    architecture, behind = TEXT[name]
    component = default_catalogue().resolve("llm", name)
    read = component.load(component.registered.spec.card)
    card: LLMCard = read(component.config().model_copy(update={"config": architecture}), lambda: None)
    check_card(name, component.declared, replace(card, parameters=count(built(AutoModel, architecture)) + behind))
