"""SigLIP and SigLIP 2 vision towers of fixed resolution."""

from n2kit.contract import ComponentSpec, Preset, VisionCard, hookimpl

N2KIT_PLUGIN_API = (2, 0)

TINY = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
}  # fmt: skip
TINY_CARD = VisionCard(tokens=16, token_width=32, pooled_width=32, image_size=32, parameters=32352, prefix_tokens=0)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="vision",
            name="siglip",
            target="n2kit_siglip.vision:SiglipVision",
            summary="SigLIP and SigLIP 2: no CLS token, pooled by the tower's own attention head",
            config="n2kit_hf.cards:VisionConfig",
            card="n2kit_siglip.cards:card",
            model_types=("siglip", "siglip_vision_model"),
            presets={"tiny": Preset(options={"config": TINY}, card=TINY_CARD)},
            capabilities=frozenset({"blocks", "bfloat16"}),
        )
    ]
