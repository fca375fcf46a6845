"""The image towers of open_clip as vision encoders: `open_clip:ARCHITECTURE/TAG`."""

from __future__ import annotations

from typing import Any

from n2kit.contract import ComponentSpec, Preset, VisionCard, hookimpl

N2KIT_PLUGIN_API = (2, 0)

# Name → architecture as open_clip's model_configs write it, card.
TINY: dict[str, tuple[dict[str, Any], VisionCard]] = {
    "tiny": (
        {
            "embed_dim": 24,
            "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 8, "layers": 2},
        },
        VisionCard(17, 32, 24, 32, 33024, 1),
    ),
    "tiny-resnet": (
        {"embed_dim": 24, "vision_cfg": {"image_size": 64, "width": 8, "head_width": 64, "layers": [1, 1, 1, 1]}},
        VisionCard(4, 256, 24, 64, 332596),
    ),
    "tiny-timm": (
        {
            "embed_dim": 24,
            "vision_cfg": {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "", "timm_proj": "linear"},
        },
        VisionCard(100, 64, 24, 160, 307776),
    ),
}


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="vision",
            name="open_clip",
            target="n2kit_open_clip.vision:OpenClipVision",
            summary="image towers of open_clip: last layer before the final norm, the projected vector as the pooled one",
            config="n2kit_open_clip.config:OpenClipConfig",
            card="n2kit_open_clip.cards:card",
            shorthand="arch",
            wildcard="n2kit_open_clip.config:pretrained",
            presets={name: Preset(options={"config": config}, card=card) for name, (config, card) in TINY.items()},
            model_types=("open_clip",),
            requires=("open_clip_torch>=2.30",),
            capabilities=frozenset({"blocks", "bfloat16"}),
        )
    ]
