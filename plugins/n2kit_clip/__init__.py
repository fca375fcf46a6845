"""CLIP's vision tower: the encoder of the paper."""

from n2kit.contract import ComponentSpec, Preset, VisionCard, hookimpl

N2KIT_PLUGIN_API = (2, 0)

TINY = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "projection_dim": 24,
}  # fmt: skip
TINY_CARD = VisionCard(tokens=17, token_width=32, pooled_width=32, image_size=32, parameters=23936, prefix_tokens=1)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="vision",
            name="clip",
            target="n2kit_clip.vision:ClipVision",
            summary="CLIP ViT: last layer before the final norm, CLS token kept and used as the pooled vector",
            config="n2kit_hf.cards:VisionConfig",
            card="n2kit_clip.cards:card",
            model_types=("clip", "clip_vision_model"),
            presets={"tiny": Preset(options={"config": TINY}, card=TINY_CARD)},
            capabilities=frozenset({"blocks", "bfloat16"}),
        )
    ]
