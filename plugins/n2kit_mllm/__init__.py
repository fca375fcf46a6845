"""Existing multimodal LLMs as representation models: Qwen2-VL to Qwen3-VL, InternVL, SmolVLM, LLaVA, BLIP-2; and two towers alone."""

from n2kit.contract import ComponentSpec, LLMCard, MLLMCard, Preset, VisionCard, hookimpl
from n2kit_mllm.tiny import BLIP2, GEMMA3, GEMMA4, INTERNVL, LLAVA, QWEN2, QWEN3, QWEN25, SMOLVLM

N2KIT_PLUGIN_API = (2, 0)
OPTIONS = {
    "QwenVL": "QwenOptions",
    "Qwen3VL": "QwenOptions",
    "Gemma4": "Gemma4Options",
}  # of families with a size to choose

_QWEN_LLM = LLMCard(input_width=32, output_width=32, layers=2, vocab=512, context=2048, parameters=35104)
_LLAMA = LLMCard(input_width=32, output_width=32, layers=2, vocab=512, context=2048, parameters=34976)
_OPT = LLMCard(input_width=32, output_width=32, layers=2, vocab=512, context=512, parameters=49984)
_QWEN3_LLM = LLMCard(input_width=96, output_width=32, layers=2, vocab=512, context=2048, parameters=35008)
_QWEN3_TOWER = VisionCard(tokens=16, token_width=96, pooled_width=0, image_size=64, parameters=92416)
_INTERN_LLM = LLMCard(input_width=32, output_width=32, layers=2, vocab=512, context=2048, parameters=35104)
_INTERN_TOWER = VisionCard(tokens=17, token_width=32, pooled_width=32, image_size=32, parameters=23776, prefix_tokens=1)
_GEMMA_LLM = LLMCard(input_width=32, output_width=32, layers=2, vocab=512, context=2048, parameters=35136)
_GEMMA_TOWER = VisionCard(tokens=16, token_width=32, pooled_width=0, image_size=32, parameters=23840)
_GEMMA4_LLM = LLMCard(input_width=48, output_width=32, layers=2, vocab=512, context=2048, parameters=48024)
_GEMMA4_TOWER = VisionCard(tokens=16, token_width=32, pooled_width=0, image_size=64, parameters=31008)
_SMOL_TOWER = VisionCard(tokens=16, token_width=32, pooled_width=0, image_size=32, parameters=23840)
_QWEN2_TOWER = VisionCard(tokens=16, token_width=32, pooled_width=0, image_size=64, parameters=50080)
_QWEN25_TOWER = VisionCard(tokens=16, token_width=32, pooled_width=0, image_size=64, parameters=54144)
_LLAVA_TOWER = VisionCard(tokens=17, token_width=32, pooled_width=32, image_size=32, parameters=23936, prefix_tokens=1)
_BLIP2_TOWER = VisionCard(tokens=17, token_width=32, pooled_width=32, image_size=32, parameters=23904, prefix_tokens=1)


def _mllm(
    name: str, family: str, summary: str, model_types: tuple[str, ...], options: dict[str, object], card: MLLMCard
) -> ComponentSpec:
    return ComponentSpec(
        kind="mllm",
        name=name,
        target=f"n2kit_mllm.families:{family}",
        summary=summary,
        config=f"n2kit_mllm.config:{OPTIONS.get(family, 'MLLMOptions')}",
        card=f"n2kit_mllm.cards:{family.lower()}_card",
        model_types=model_types,
        presets={"tiny": Preset(options=options, card=card, notes="random weights")},
    )


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        _mllm(
            "qwen2.5-vl", "QwenVL", "Qwen2.5-VL at one square image size, with its positions in two dimensions",
            ("qwen2_5_vl",), {"config": QWEN25, "image_size": 64}, MLLMCard(_QWEN_LLM, _QWEN25_TOWER, 18, 64),
        ),
        _mllm(
            "qwen2-vl", "QwenVL", "Qwen2-VL at one square image size, with its positions in two dimensions",
            ("qwen2_vl",), {"config": QWEN2, "image_size": 64}, MLLMCard(_QWEN_LLM, _QWEN2_TOWER, 18, 64),
        ),
        _mllm(
            "qwen3-vl", "Qwen3VL", "Qwen3-VL, Qwen3-VL-Embedding at one square image size, with DeepStack",
            ("qwen3_vl",), {"config": QWEN3, "image_size": 64}, MLLMCard(_QWEN3_LLM, _QWEN3_TOWER, 18, 192),
        ),
        _mllm(
            "gemma-3", "Gemma3", "Gemma 3 (4B, 12B, 27B): SigLIP, a mean over patches, one linear layer, language model",
            ("gemma3",), {"config": GEMMA3}, MLLMCard(_GEMMA_LLM, _GEMMA_TOWER, 6, 1120),
        ),
        _mllm(
            "gemma-4", "Gemma4", "Gemma 4 at one square image size: its tower, a norm, one linear layer, language model",
            ("gemma4",), {"config": GEMMA4, "image_size": 64}, MLLMCard(_GEMMA4_LLM, _GEMMA4_TOWER, 18, 1136),
        ),
        _mllm(
            "internvl", "InternVL", "InternVL3 (…-hf) at one tile: InternViT, pixel shuffle, two linear layers, language model",
            ("internvl",), {"config": INTERNVL}, MLLMCard(_INTERN_LLM, _INTERN_TOWER, 4, 5440),
        ),
        _mllm(
            "smolvlm", "SmolVLM", "SmolVLM, SmolVLM2, Idefics 3 at one tile: SigLIP, pixel shuffle, one linear layer, language model",
            ("smolvlm", "idefics3"), {"config": SMOLVLM}, MLLMCard(_LLAMA, _SMOL_TOWER, 4, 4096),
        ),
        _mllm(
            "llava", "Llava", "LLaVA-1.5: CLIP or SigLIP tower, two linear layers, language model",
            ("llava",), {"config": LLAVA}, MLLMCard(_LLAMA, _LLAVA_TOWER, 16, 2112),
        ),
        _mllm(
            "blip-2", "Blip2", "BLIP-2 with OPT: ViT-g, trained Q-Former, language model",
            ("blip-2",), {"config": BLIP2}, MLLMCard(_OPT, _BLIP2_TOWER, 4, 22624),
        ),
        ComponentSpec(
            kind="vision",
            name="qwen2.5-vl-vision",
            target="n2kit_mllm.tower:QwenTower",
            summary="the tower of Qwen2.5-VL or Qwen2-VL with its merger; a pooled vector with pool: mean",
            config="n2kit_mllm.config:QwenTowerOptions",
            card="n2kit_mllm.cards:qwen_tower_card",
            model_types=("qwen2_5_vl", "qwen2_vl"),
            presets={
                "tiny": Preset(
                    options={"config": QWEN25, "image_size": 64, "pool": "mean"},
                    card=VisionCard(tokens=16, token_width=32, pooled_width=32, image_size=64, parameters=54144),
                    notes="random weights",
                )
            },
            capabilities=frozenset({"blocks", "bfloat16"}),
        ),
        ComponentSpec(
            kind="vision",
            name="llava-vision",
            target="n2kit_mllm.tower:LlavaTower",
            summary="the tower of LLaVA up to the layer that LLaVA reads; CLS is the pooled vector",
            config="n2kit_mllm.config:TowerOptions",
            card="n2kit_mllm.cards:llava_tower_card",
            model_types=("llava",),
            presets={"tiny": Preset(options={"config": LLAVA}, card=_LLAVA_TOWER, notes="random weights")},
            capabilities=frozenset({"blocks", "bfloat16"}),
        ),
    ]  # fmt: skip
