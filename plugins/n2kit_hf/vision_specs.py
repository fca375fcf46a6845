"""The image backbones of transformers as one component, and a small model of each family."""

from __future__ import annotations

from typing import Any

from n2kit.contract import ComponentSpec, Preset, VisionCard
from n2kit_hf.image_families import FAMILIES

_PLAIN = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
_STAGES = {"depths": [1, 1, 1, 1], "image_size": 64}
_WIDTHS = _STAGES | {"hidden_sizes": [8, 16, 24, 32]}
_HEADS = _WIDTHS | {"num_attention_heads": [1, 2, 3, 4]}
_SHIFTED = {
    "embed_dim": 8, "depths": [2, 1, 1], "num_heads": [1, 2, 4], "window_size": 4, "image_size": 64, "patch_size": 4
}  # fmt: skip
# Convolutions that transformers starts so small that nothing of the picture would be left after some layers.
_LARGER = {"image_size": 64, "initializer_range": 0.2}

# Name → architecture, card: the real one of its family in each case, with random weights.
TINY: dict[str, tuple[dict[str, Any], VisionCard]] = {
    "tiny": ({"model_type": "vit", **_PLAIN}, VisionCard(17, 32, 32, 32, 24960, 1)),
    "tiny-deit": ({"model_type": "deit", **_PLAIN}, VisionCard(18, 32, 32, 32, 25024, 2)),
    "tiny-beit": ({"model_type": "beit", **_PLAIN}, VisionCard(17, 32, 32, 32, 23424, 1)),
    "tiny-data2vec": ({"model_type": "data2vec-vision", **_PLAIN}, VisionCard(17, 32, 32, 32, 23360, 1)),
    "tiny-mae": ({"model_type": "vit_mae", **_PLAIN}, VisionCard(17, 32, 32, 32, 23904, 1)),
    "tiny-msn": ({"model_type": "vit_msn", **_PLAIN}, VisionCard(17, 32, 32, 32, 23904, 1)),
    "tiny-ijepa": ({"model_type": "ijepa", **_PLAIN}, VisionCard(16, 32, 32, 32, 23840)),
    "tiny-dinov2": ({"model_type": "dinov2", **_PLAIN}, VisionCard(17, 32, 32, 32, 32384, 1)),
    "tiny-dinov2-registers": ({"model_type": "dinov2_with_registers", **_PLAIN}, VisionCard(21, 32, 32, 32, 32512, 5)),
    "tiny-dinov3": ({"model_type": "dinov3_vit", "num_register_tokens": 4, **_PLAIN}, VisionCard(21, 32, 32, 32, 23584, 5)),
    "tiny-pixio": ({"model_type": "pixio", **_PLAIN}, VisionCard(24, 32, 32, 32, 32672, 8)),
    "tiny-aimv2": ({"model_type": "aimv2_vision_model", **_PLAIN}, VisionCard(16, 32, 32, 32, 30496)),
    "tiny-mlcd": ({"model_type": "mlcd_vision_model", **_PLAIN}, VisionCard(17, 32, 32, 32, 23396, 1)),
    "tiny-chinese-clip": ({"model_type": "chinese_clip_vision_model", **_PLAIN}, VisionCard(17, 32, 32, 32, 23936, 1)),
    "tiny-metaclip2": ({"model_type": "metaclip_2_vision_model", **_PLAIN}, VisionCard(17, 32, 32, 32, 23936, 1)),
    "tiny-swin": ({"model_type": "swin", **_SHIFTED}, VisionCard(16, 32, 32, 64, 21344)),
    "tiny-swinv2": ({"model_type": "swinv2", **_SHIFTED}, VisionCard(16, 32, 32, 64, 31040)),
    "tiny-donut": ({"model_type": "donut-swin", **_SHIFTED}, VisionCard(16, 32, 32, 64, 21280)),
    "tiny-hiera": (
        {"model_type": "hiera", "embed_dim": 4, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 4], "image_size": [64, 64]},
        VisionCard(4, 32, 32, 64, 20716),
    ),
    "tiny-pvt": ({"model_type": "pvt", **_HEADS}, VisionCard(5, 32, 32, 64, 46832, 1)),
    "tiny-pvt-v2": ({"model_type": "pvt_v2", **_HEADS}, VisionCard(4, 32, 32, 64, 54632)),
    "tiny-focalnet": (
        {
            "model_type": "focalnet", "embed_dim": 8, "depths": [1, 1, 1], "focal_levels": [1, 1, 1],
            "focal_windows": [3, 3, 3], "image_size": 64,
        },
        VisionCard(16, 32, 32, 64, 20654),
    ),
    "tiny-poolformer": ({"model_type": "poolformer", **_WIDTHS}, VisionCard(4, 32, 32, 64, 29016)),
    "tiny-swiftformer": (
        {"model_type": "swiftformer", "embed_dims": [8, 16, 24, 32], **_STAGES}, VisionCard(4, 32, 32, 64, 41368)
    ),
    "tiny-convnext": ({"model_type": "convnext", **_WIDTHS}, VisionCard(4, 32, 32, 64, 25760)),
    "tiny-convnextv2": ({"model_type": "convnextv2", **_WIDTHS}, VisionCard(4, 32, 32, 64, 26320)),
    "tiny-dinov3-convnext": ({"model_type": "dinov3_convnext", **_WIDTHS}, VisionCard(5, 32, 32, 64, 25760, 1)),
    "tiny-resnet": ({"model_type": "resnet", "embedding_size": 8, **_WIDTHS}, VisionCard(4, 32, 32, 64, 4752)),
    "tiny-regnet": (
        {"model_type": "regnet", "embedding_size": 8, "groups_width": 8, **_WIDTHS}, VisionCard(4, 32, 32, 64, 12006)
    ),
    "tiny-bit": (
        {"model_type": "bit", "embedding_size": 8, "num_groups": 2, **_WIDTHS}, VisionCard(4, 32, 32, 64, 6216)
    ),
    "tiny-efficientnet": (
        {
            "model_type": "efficientnet", "width_coefficient": 0.25, "depth_coefficient": 0.2, "hidden_dim": 320,
            "image_size": 64, "initializer_range": 1.0,
        },
        VisionCard(4, 320, 320, 64, 123612),
    ),
    "tiny-mobilenet-v1": (
        {"model_type": "mobilenet_v1", "depth_multiplier": 0.25, **_LARGER, "initializer_range": 0.3},
        VisionCard(4, 256, 256, 64, 213072),
    ),
    "tiny-mobilenet-v2": (
        {"model_type": "mobilenet_v2", "depth_multiplier": 0.25, "finegrained_output": False, **_LARGER},
        VisionCard(4, 320, 320, 64, 159392),
    ),
}  # fmt: skip


def vision_specs() -> list[ComponentSpec]:
    """Return `hf-vision`, which also reads bare sources: `hf:org/name`, `file:folder`."""
    return [
        ComponentSpec(
            kind="vision",
            name="hf-vision",
            target="n2kit_hf.vision:TransformersVision",
            summary="image backbones of transformers (ViT, DINOv2/v3, Swin, ConvNeXt, ResNet, …): hf:org/name, file:folder",
            config="n2kit_hf.cards:VisionConfig",
            card="n2kit_hf.image_cards:vision_card",
            model_types=tuple(FAMILIES),
            presets={
                name: Preset(options={"config": config}, card=card, notes=f"random {config['model_type']}")
                for name, (config, card) in TINY.items()
            },
            capabilities=frozenset({"blocks", "bfloat16"}),
        )
    ]
