"""Every image model of timm as a vision encoder: `timm:NAME` or `timm:NAME.TAG`."""

from n2kit import ComponentSpec, Variant, VisionCard, hookimpl

N2KIT_PLUGIN_API = (1, 0)

TINY_CARD = VisionCard(tokens=16, token_width=256, pooled_width=256, image_size=128, parameters=99196)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="vision",
            name="timm",
            target="n2kit_timm.vision:TimmVision",
            summary="any model of timm: its last feature map as tokens, its own pooling as the pooled vector",
            config="n2kit_timm.config:TimmConfig",
            card="n2kit_timm.vision:card",
            shorthand="arch",
            wildcard="n2kit_timm.config:pretrained",
            variants={
                "tiny": Variant(
                    options={"arch": "test_efficientnet", "image_size": 128},
                    card=TINY_CARD,
                    notes="random EfficientNet",
                )
            },
        )
    ]
