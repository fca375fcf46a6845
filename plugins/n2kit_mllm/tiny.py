"""Small architectures of each family, as their config.json would say them: width 32, random weights."""

from __future__ import annotations

from typing import Any

_TEXT = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_VIT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
_QWEN: dict[str, Any] = {
    "text_config": _TEXT | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}},
    "vision_start_token_id": 3, "vision_end_token_id": 4, "image_token_id": 5, "video_token_id": 6,
}  # fmt: skip

QWEN2: dict[str, Any] = _QWEN | {
    "model_type": "qwen2_vl",
    "vision_config": {
        "depth": 2, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 4, "patch_size": 8,
    },
}  # fmt: skip
# Windows of 32 pixels in the first block, the whole picture in the second, as in the trained ones.
QWEN25: dict[str, Any] = _QWEN | {
    "model_type": "qwen2_5_vl",
    "vision_config": {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 8, "out_hidden_size": 32,
        "window_size": 32, "fullatt_block_indexes": [1],
    },
}  # fmt: skip
QWEN3: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "text_config": _TEXT | {
        "head_dim": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [1, 1, 2]},
    },
    "vision_config": {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 8, "out_hidden_size": 32,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1],
    },
    "vision_start_token_id": 3, "vision_end_token_id": 4, "image_token_id": 5, "video_token_id": 6,
}  # fmt: skip
GEMMA3: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": _TEXT | {"model_type": "gemma3_text", "head_dim": 8, "sliding_window": 8, "pad_token_id": 0,
                            "layer_types": ["sliding_attention", "full_attention"]},
    "vision_config": _VIT | {"model_type": "siglip_vision_model", "vision_use_head": False},
    "mm_tokens_per_image": 4,
    "boi_token_index": 3, "eoi_token_index": 4, "image_token_index": 5,
}  # fmt: skip
GEMMA4: dict[str, Any] = {
    "model_type": "gemma4",
    "text_config": _TEXT | {
        "model_type": "gemma4_text", "head_dim": 8, "global_head_dim": 16, "sliding_window": 8, "pad_token_id": 0,
        "layer_types": ["sliding_attention", "full_attention"], "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 512,
    },
    "vision_config": {
        "model_type": "gemma4_vision", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "patch_size": 8, "pooling_kernel_size": 2,
        "position_embedding_size": 64, "initializer_range": 0.2,
    },
    "boi_token_id": 3, "eoi_token_id": 4, "image_token_id": 5, "video_token_id": 6, "audio_token_id": 7,
}  # fmt: skip
INTERNVL: dict[str, Any] = {
    "model_type": "internvl",
    "text_config": _TEXT | {"model_type": "qwen2"},
    "vision_config": _VIT | {"image_size": [32, 32], "patch_size": [8, 8]},
    "image_token_id": 5,
}
SMOLVLM: dict[str, Any] = {
    "model_type": "smolvlm",
    "text_config": _TEXT | {"model_type": "llama", "pad_token_id": 0},
    "vision_config": _VIT,
    "scale_factor": 2,
    "image_token_id": 5,
}
LLAVA: dict[str, Any] = {
    "model_type": "llava",
    "text_config": _TEXT | {"model_type": "llama"},
    "vision_config": _VIT | {"model_type": "clip_vision_model", "num_hidden_layers": 3},
    "image_token_index": 5,
}
BLIP2: dict[str, Any] = {
    "model_type": "blip-2",
    "text_config": {
        "model_type": "opt", "vocab_size": 512, "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512,
    },
    # The family's own default (1e-10) would leave every picture the same.
    "vision_config": _VIT | {"initializer_range": 0.02},
    "qformer_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    },
    "num_query_tokens": 4,
    "image_token_index": 5,
}  # fmt: skip
