"""Every image model of timm as a vision encoder: `timm:NAME` or `timm:NAME.TAG`."""

from __future__ import annotations

from typing import Any

from n2kit.contract import ComponentSpec, Preset, VisionCard, hookimpl

N2KIT_PLUGIN_API = (2, 0)

# Name → options, card; timm's own small architectures, made for tests, and a small EVA-02.
TINY: dict[str, tuple[dict[str, Any], VisionCard]] = {
    "tiny": ({"arch": "test_efficientnet", "image_size": 128}, VisionCard(16, 256, 256, 128, 99196)),
    "tiny-vit": ({"arch": "test_vit", "image_size": 64}, VisionCard(17, 64, 64, 64, 300864, 1)),
    "tiny-convnext": ({"arch": "test_convnext", "image_size": 64}, VisionCard(4, 64, 64, 64, 207128)),
    "tiny-resnet": ({"arch": "test_resnet", "image_size": 64}, VisionCard(4, 96, 96, 64, 372688)),
    "tiny-eva": (
        {
            "arch": "eva02_tiny_patch14_224", "image_size": 56,
            "arguments": {"depth": 2, "embed_dim": 32, "num_heads": 2},
        },
        VisionCard(17, 32, 32, 56, 44852, 1),
    ),
}  # fmt: skip


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="vision",
            name="timm",
            target="n2kit_timm.vision:TimmVision",
            summary="any model of timm: its last feature map as tokens, its own pooling as the pooled vector",
            config="n2kit_timm.config:TimmConfig",
            card="n2kit_timm.cards:card",
            shorthand="arch",
            wildcard="n2kit_timm.config:pretrained",
            presets={
                name: Preset(options=options, card=card, notes=f"random {options['arch']}")
                for name, (options, card) in TINY.items()
            },
            model_types=("timm",),
            requires=("timm>=1.0.20",),
            capabilities=frozenset({"blocks", "bfloat16"}),
        )
    ]
