"""Facts about multimodal checkpoints without torch: from config.json, and parameter counts from safetensors headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from n2kit.contract import LLMCard, MLLMCard, VisionCard
from n2kit.errors import BadInput
from n2kit_hf.cards import LLMConfig, Locate, layered, llm_card, read_config
from n2kit_hf.weight_files import parameter_count
from n2kit_mllm.config import Gemma4Options, MLLMOptions, QwenOptions, QwenTowerOptions, TowerOptions


@dataclass(frozen=True)
class Family:
    """The checkpoints that a family reads, and the keys in them of the tower and the connector."""

    model_types: tuple[str, ...]
    vision: str
    connector: str = "$^"
    text: tuple[str, ...] | None = None  # its language models; None: any


QWEN = Family(("qwen2_5_vl", "qwen2_vl"), r"(model\.)?visual\.")
LLAVA = Family(("llava",), r"(model\.)?vision_tower\.(vision_model\.)?", r"(model\.)?multi_modal_projector\.")
BLIP2 = Family(("blip-2",), r"vision_model\.", r"qformer\.|query_tokens$|language_projection\.", ("opt",))
QWEN3 = Family(("qwen3_vl",), r"(model\.)?visual\.")
INTERNVL = Family(("internvl",), r"(model\.)?vision_tower\.", r"(model\.)?multi_modal_projector\.")
GEMMA3 = Family(
    ("gemma3",), r"(model\.)?vision_tower\.(vision_model\.)?", r"(model\.)?multi_modal_projector\.", ("gemma3_text",)
)
GEMMA4 = Family(
    ("gemma4",), r"(model\.)?vision_tower\.", r"(model\.)?(embed_vision|embed_audio|audio_tower)\.", ("gemma4_text",)
)
SMOLVLM = Family(("smolvlm", "idefics3"), r"(model\.)?vision_model\.", r"(model\.)?connector\.")
# In a file, and no parameters: positions in older ones; scales and bounds of Gemma 4.
BUFFERS = (
    "position_ids", "inv_freq", "layer_scalar", "std_bias", "std_scale", "input_min", "input_max", "output_min",
    "output_max",
)  # fmt: skip

# What transformers takes for keys that a text_config or a vision_config leaves out.
TEXTS: dict[str, dict[str, int]] = {
    "llama": {
        "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 32000, "max_position_embeddings": 2048,
    },
    "qwen2": {"hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 151936, "max_position_embeddings": 32768},
    "gemma3_text": {"hidden_size": 2304, "num_hidden_layers": 26, "vocab_size": 262208, "max_position_embeddings": 131072},
    "gemma4_text": {"hidden_size": 2304, "num_hidden_layers": 30, "vocab_size": 262144, "max_position_embeddings": 131072},
    "opt": {"hidden_size": 768, "num_hidden_layers": 12, "vocab_size": 50272, "max_position_embeddings": 2048},
}  # fmt: skip
TOWERS: dict[str, dict[str, int]] = {
    "clip_vision_model": {
        "hidden_size": 768, "image_size": 224, "patch_size": 32, "num_hidden_layers": 12, "prefix": 1,
    },
    "siglip_vision_model": {
        "hidden_size": 768, "image_size": 224, "patch_size": 16, "num_hidden_layers": 12, "prefix": 0,
    },
    "internvl_vision": {
        "hidden_size": 1024, "image_size": 448, "patch_size": 16, "num_hidden_layers": 24, "prefix": 1,
    },
    "idefics3_vision": {"hidden_size": 1152, "image_size": 224, "patch_size": 32, "num_hidden_layers": 12, "prefix": 0},
    "smolvlm_vision": {"hidden_size": 1152, "image_size": 224, "patch_size": 32, "num_hidden_layers": 12, "prefix": 0},
    "blip_2_vision_model": {
        "hidden_size": 1408, "image_size": 224, "patch_size": 14, "num_hidden_layers": 39, "prefix": 1,
    },
}  # fmt: skip
USUAL_TEXT = {
    "llava": "llama",
    "blip-2": "opt",
    "internvl": "qwen2",
    "smolvlm": "llama",
    "idefics3": "llama",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
}
USUAL_TOWER = {
    "llava": "clip_vision_model", "blip-2": "blip_2_vision_model", "internvl": "internvl_vision", "smolvlm": "smolvlm_vision",
    "idefics3": "idefics3_vision", "gemma3": "siglip_vision_model",
}  # fmt: skip


def read(options: TowerOptions, folder: Path | None, family: Family) -> dict[str, Any]:
    """Read the configuration of the whole model, with the model_type of each half in place.

    Raises:
        BadInput: it is of another family, or has a language model or a tower that n2kit cannot take out.
    """
    config = read_config(folder) if folder else dict(options.config or {})
    kind = config.get("model_type")
    if kind not in family.model_types:
        where = folder or "the architecture"
        raise BadInput(f"{where} is of model_type {kind!r}, not {' or '.join(family.model_types)}", "n2kit ls mllm")
    for half, usual in (("text_config", USUAL_TEXT), ("vision_config", USUAL_TOWER)):
        if kind in usual:
            config[half] = {"model_type": usual[kind]} | (config.get(half) or {})
    if family.text and (text := config["text_config"]["model_type"]) not in family.text:
        raise BadInput(
            f"{kind} with a {text} language model: n2kit reads {kind} with {' or '.join(family.text)}",
            "a checkpoint with such a language model; n2kit ls mllm",
        )
    if kind in USUAL_TOWER and (tower := config["vision_config"]["model_type"]) not in TOWERS:
        raise BadInput(
            f"{kind} with a {tower} tower: n2kit reads {', '.join(TOWERS)}",
            "a checkpoint whose tower has a fixed image size; n2kit ls mllm",
        )
    if kind == "internvl" and config.get("vision_feature_layer", -1) != -1:
        layer = config["vision_feature_layer"]
        raise BadInput(f"{kind} with vision_feature_layer {layer}: n2kit reads the last one", "n2kit ls mllm")
    return config


def qwenvl_card(options: QwenOptions, locate: Locate) -> MLLMCard:
    folder = locate()
    config = read(options, folder, QWEN)
    llm, vision = _llm(config, folder, QWEN), _qwen_tower(options, config, folder)
    return MLLMCard(llm, vision, vision.tokens + 2, 2 * llm.input_width)


def qwen3vl_card(options: QwenOptions, locate: Locate) -> MLLMCard:
    """Read the card of Qwen3-VL, whose tower's tokens are several side by side (see `text.Qwen3Text`)."""
    folder = locate()
    config = read(options, folder, QWEN3)
    facts: Mapping[str, Any] = config.get("vision_config") or {}
    streams, width = 1 + len(facts.get("deepstack_visual_indexes", (8, 16, 24))), facts.get("out_hidden_size", 3584)
    side = side_of(options.image_size, facts.get("patch_size", 16), facts.get("spatial_merge_size", 2))
    vision = VisionCard(
        tokens=side**2,
        token_width=streams * width,
        pooled_width=width if options.pool else 0,
        image_size=options.image_size,
        parameters=parameter_count(folder, _under(QWEN3.vision)),
    )
    llm = _llm(config, folder, QWEN3)
    llm = replace(llm, input_width=streams * llm.input_width)
    return MLLMCard(llm, vision, vision.tokens + 2, 2 * llm.input_width)


def internvl_card(options: MLLMOptions, locate: Locate) -> MLLMCard:
    folder = locate()
    config = read(options, folder, INTERNVL)
    llm, vision = _llm(config, folder, INTERNVL), _vit(options, config, folder, INTERNVL)
    scale, drop = round(1 / config.get("downsample_ratio", 0.5)), dropped(config.get("vision_feature_select_strategy"))
    wide, out = vision.token_width * scale**2, llm.input_width
    return MLLMCard(llm, vision, (vision.tokens - drop) // scale**2, (2 + out) * wide + (out + 2) * out)


def smolvlm_card(options: MLLMOptions, locate: Locate) -> MLLMCard:
    folder = locate()
    config = read(options, folder, SMOLVLM)
    llm, vision = _llm(config, folder, SMOLVLM), _vit(options, config, folder, SMOLVLM)
    folded = config.get("scale_factor", 2) ** 2
    return MLLMCard(llm, vision, vision.tokens // folded, vision.token_width * folded * llm.input_width)


def gemma3_card(options: MLLMOptions, locate: Locate) -> MLLMCard:
    folder = locate()
    config = read(options, folder, GEMMA3)
    llm, vision = _llm(config, folder, GEMMA3), _vit(options, config, folder, GEMMA3)
    inside = vision.token_width * (1 + llm.input_width)
    return MLLMCard(llm, vision, config.get("mm_tokens_per_image", 256) + 2, inside + 2 * llm.input_width)


def gemma4_card(options: Gemma4Options, locate: Locate) -> MLLMCard:
    """Read the card of Gemma 4, whose tower pools squares of patches itself.

    Raises:
        BadInput: a checkpoint without a tower.
    """
    folder = locate()
    config = read(options, folder, GEMMA4)
    if not (facts := config.get("vision_config")):
        raise BadInput(f"{folder or 'the architecture'} has no vision_config", "as a language model: --llm gemma-4@…")
    text, width = {**TEXTS["gemma4_text"], **config["text_config"]}, facts.get("hidden_size", 768)
    llm = layered(_llm(config, folder, GEMMA4), text)
    vision = VisionCard(
        tokens=side_of(options.image_size, facts.get("patch_size", 16), facts.get("pooling_kernel_size", 3)) ** 2,
        token_width=width,
        pooled_width=width if options.pool else 0,
        image_size=options.image_size,
        parameters=parameter_count(folder, lambda key: _under(GEMMA4.vision)(key) and not key.endswith(BUFFERS)),
    )
    inside = width * llm.output_width + llm.input_width - llm.output_width
    return MLLMCard(llm, vision, vision.tokens + 2, inside + 2 * llm.input_width)


def llava_card(options: MLLMOptions, locate: Locate) -> MLLMCard:
    folder = locate()
    config = read(options, folder, LLAVA)
    llm, vision = _llm(config, folder, LLAVA), _vit(options, config, folder, LLAVA)
    bias = 2 * llm.input_width if config.get("multimodal_projector_bias", True) else 0
    projector = (vision.token_width + llm.input_width) * llm.input_width + bias
    return MLLMCard(llm, vision, vision.tokens - dropped(config.get("vision_feature_select_strategy")), projector)


def blip2_card(options: MLLMOptions, locate: Locate) -> MLLMCard:
    folder = locate()
    config = read(options, folder, BLIP2)
    count = parameter_count(folder, _under(BLIP2.connector))
    tokens = config.get("num_query_tokens", 32)
    return MLLMCard(_llm(config, folder, BLIP2), _vit(options, config, folder, BLIP2), tokens, count)


def qwen_tower_card(options: QwenTowerOptions, locate: Locate) -> VisionCard:
    folder = locate()
    return _qwen_tower(options, read(options, folder, QWEN), folder)


def llava_tower_card(options: TowerOptions, locate: Locate) -> VisionCard:
    folder = locate()
    return _vit(options, read(options, folder, LLAVA), folder, LLAVA)


def side_of(image_size: int, patch: int, merge: int) -> int:
    """Count the merged tokens along one side of a square image.

    Raises:
        BadInput: the size is no multiple of patch × merge.
    """
    unit = patch * merge
    if image_size % unit:
        raise BadInput(
            f"image_size {image_size} is no multiple of {unit} (patches of {patch} px, merged {merge} × {merge})",
            f"image_size={max(1, round(image_size / unit)) * unit}",
        )
    return image_size // unit


def square(size: int | list[int]) -> int:
    """Return the side of a square that a configuration states as a number, or as height and width.

    Raises:
        BadInput: it is no square.
    """
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise BadInput(f"a tower of {size} px: n2kit makes pictures square", "n2kit ls mllm")
    return sides.pop()


def layers_read(layers: int | list[int] | None, blocks: int) -> list[int]:
    """Count LLaVA's `vision_feature_layer` from the front: 0 is the input of the first of `blocks`."""
    wanted = [-2] if layers is None else [layers] if isinstance(layers, int) else layers
    return [layer if layer >= 0 else blocks + 1 + layer for layer in wanted]


def dropped(strategy: str | None) -> int:
    """Count the tokens that LLaVA's `vision_feature_select_strategy` leaves out at the beginning."""
    return 0 if strategy == "full" else 1


def _llm(config: dict[str, Any], folder: Path | None, family: Family) -> LLMCard:
    text = config.get("text_config") or config
    facts = {**TEXTS.get(text.get("model_type", ""), {}), **{k: v for k, v in text.items() if v is not None}}
    others = _under(f"{family.vision}|{family.connector}")
    count = parameter_count(folder, lambda key: not others(key) and "lm_head" not in key and not key.endswith(BUFFERS))
    return replace(llm_card(LLMConfig.model_construct(config=facts), lambda: None), parameters=count)


def _qwen_tower(options: QwenTowerOptions, config: dict[str, Any], folder: Path | None) -> VisionCard:
    facts: Mapping[str, Any] = config.get("vision_config") or {}
    width = facts.get("out_hidden_size" if config["model_type"] == "qwen2_5_vl" else "hidden_size", 3584)
    return VisionCard(
        tokens=side_of(options.image_size, facts.get("patch_size", 14), facts.get("spatial_merge_size", 2)) ** 2,
        token_width=width,
        pooled_width=width if options.pool else 0,
        image_size=options.image_size,
        parameters=parameter_count(folder, _under(QWEN.vision)),
    )


def _vit(options: TowerOptions, config: dict[str, Any], folder: Path | None, family: Family) -> VisionCard:
    given = config["vision_config"]
    facts = {**TOWERS[given["model_type"]], **given}
    layers = layers_read(config.get("vision_feature_layer"), facts["num_hidden_layers"]) if family is LLAVA else None
    width = facts["hidden_size"] * len(layers or [0])
    depth = max(layers) if layers else facts["num_hidden_layers"]
    mine = _under(family.vision)

    def belongs(key: str) -> bool:
        block = re.search(r"encoder\.layers\.(\d+)\.", key)
        return mine(key) and not key.endswith(BUFFERS) and (block is None or int(block[1]) < depth)

    size, patch = square(facts["image_size"]), square(facts["patch_size"])
    return VisionCard(
        tokens=(size // patch) ** 2 + facts["prefix"],
        token_width=width,
        pooled_width=width if options.pool or facts["prefix"] else 0,
        image_size=size,
        parameters=parameter_count(folder, belongs),
        prefix_tokens=facts["prefix"],
    )


def _under(pattern: str) -> Callable[[str], bool]:
    return lambda key: re.match(pattern, key) is not None
