"""Facts about the image backbones of transformers that a plan needs, by `model_type`; no torch.

Every row was compared with the model that transformers builds from the configuration class's defaults, and with a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal, NamedTuple

Facts = Mapping[str, Any]  # a config.json over its class's defaults
Triple = tuple[float, ...]


class Colours(NamedTuple):
    """The preparation of a family's images, for checkpoints without a preprocessor_config.json."""

    mean: Triple
    std: Triple
    fit: Literal["crop", "squash"]


IMAGENET = Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "crop")
HALF = Colours((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash")
CLIP = Colours((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), "crop")


def _patch(facts: Facts) -> int:
    return int(facts["patch_size"])


def _hidden(facts: Facts) -> int:
    return int(facts["hidden_size"])


def _last(facts: Facts) -> int:
    return int(facts["hidden_sizes"][-1])


def _doubling(facts: Facts) -> int:
    """Compute a width that doubles from stage to stage (Swin)."""
    return int(facts["embed_dim"] * 2 ** (len(facts["depths"]) - 1))


def _halving(facts: Facts) -> int:
    """Compute the side of a grid that halves from stage to stage, after the patches (Swin, ConvNeXt)."""
    return int(facts.get("patch_size", 4) * 2 ** (len(facts["depths"]) - 1))


def _strides(facts: Facts) -> int:
    return prod(facts["strides"])


def _resnet(facts: Facts) -> int:
    """Compute the grid behind a stem of stride 4 and a stride of 2 a stage, in the first one only where the configuration says so."""
    return int(4 * 2 ** (len(facts["depths"]) - 1 + bool(facts["downsample_in_first_stage"])))


def _regnet(facts: Facts) -> int:
    return int(2 * 2 ** (len(facts["depths"]) - 1 + bool(facts["downsample_in_first_stage"])))


def _channels(facts: Facts, full: int) -> int:
    """Scale a number of channels to a multiple of `depth_divisible_by`, never by less than 0.9 (MobileNetV2, section 4)."""
    by, wanted = facts["depth_divisible_by"], full * facts["depth_multiplier"]
    near = max(facts["min_depth"], int(round(wanted) + by / 2) // by * by)
    return int(near if near >= 0.9 * round(wanted) else near + by)


def _mobilenet_v1(facts: Facts) -> int:
    return max(int(1024 * facts["depth_multiplier"]), int(facts["min_depth"]))


def _mobilenet_v2(facts: Facts) -> int:
    shrinks = not facts["finegrained_output"] or facts["depth_multiplier"] >= 1
    return _channels(facts, 1280) if shrinks else 1280


def _efficientnet(facts: Facts, size: int) -> int:
    """Halve a grid, rounded down, for the stem and each stride of 2; rounded up at the blocks that are padded on both ends."""
    side, block = size // 2, 0
    for stride, repeats in zip(facts["strides"], facts["num_block_repeats"], strict=True):
        if stride == 2:
            side = (side + (block in facts["depthwise_padding"])) // 2
        block += ceil(facts["depth_coefficient"] * repeats)
    return side


@dataclass(frozen=True)
class Family:
    """The facts about one architecture's reading of an image.

    blocks: where the model keeps its stack, in order of depth.
    stride: pixels on a side of the picture that make one on a side of the last grid; `up`: what is left over makes one too.
        `side` says it in full where no stride does.
    prefix: tokens before the grid; `prefix_key` names the setting that adds some.
    fixed: reads only pictures of its configuration's `image_size`.
    pooler: the pooled vector is the model's own `pooler_output` where it has one that was trained; `fallback` otherwise
        (`first` token, or the `mean` of the grid). False: always the fallback.
    base: what a checkpoint with a head, or of two towers, calls the backbone. foreign: pieces of names of its tensors that
        the backbone does not have.
    tower: the class in transformers where `AutoModel` gives another one.
    orders: takes `noise`, and hides the patches that it puts last (MAE); n2kit hides none.
    """

    blocks: str
    base: str
    defaults: Facts
    stride: Callable[[Facts], int] = _patch
    width: Callable[[Facts], int] = _hidden
    up: bool = False
    side: Callable[[Facts, int], int] | None = None
    prefix: int = 0
    prefix_key: str | None = None
    fixed: bool = True
    pooler: bool = True
    fallback: Literal["first", "mean"] = "mean"
    colours: Colours = IMAGENET
    foreign: tuple[str, ...] = ()
    tower: str | None = None
    orders: bool = False

    def facts(self, config: Facts) -> Facts:
        """Return a configuration over its defaults; that of the tower where there are two."""
        return {"image_size": 224, **self.defaults, **(config.get("vision_config") or config)}

    def prefix_tokens(self, facts: Facts) -> int:
        return self.prefix + (int(facts[self.prefix_key]) if self.prefix_key else 0)

    def grid(self, facts: Facts, size: int) -> int:
        """Compute the last grid's side for an image of `size` pixels."""
        if self.side is not None:
            return self.side(facts, size)
        stride = self.stride(facts)
        return (size + (stride - 1) * self.up) // stride

    def tokens(self, facts: Facts, size: int) -> int:
        """Compute N for an image of `size` pixels."""
        return self.grid(facts, size) ** 2 + self.prefix_tokens(facts)


_VIT = {"hidden_size": 768, "patch_size": 16}
_FOUR = {"depths": [2, 2, 6, 2], "embed_dim": 96, "patch_size": 4}
_CONVNEXT = {"hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3]}
_MIXED = {"hidden_sizes": [64, 128, 320, 512], "strides": [4, 2, 2, 2]}
_MOBILE = {"depth_multiplier": 1.0, "depth_divisible_by": 8, "min_depth": 8}
_CONV: dict[str, Any] = {"fixed": False, "width": _last}
_SWIN: dict[str, Any] = {
    "stride": _halving,
    "width": _doubling,
    "up": True,
    "defaults": _FOUR,
    "foreign": ("mask_token",),
}
_MASKED: dict[str, Any] = {"defaults": _VIT, "foreign": ("mask_token",)}
_DINO: dict[str, Any] = {"prefix": 1, "fixed": False}
_TOWER: dict[str, Any] = {
    "blocks": "encoder.layers", "base": "vision_model", "defaults": {"hidden_size": 768, "patch_size": 32}, "prefix": 1,
    "colours": CLIP,
}  # fmt: skip
_CHINESE_CLIP = Family(**_TOWER, tower="ChineseCLIPVisionModel")
_METACLIP_2 = Family(**_TOWER, tower="MetaClip2VisionModel")

FAMILIES: dict[str, Family] = {
    # Plain transformers: one grid of patches.
    "vit": Family("layers", "vit", **_MASKED, prefix=1, fallback="first", colours=HALF),
    "deit": Family("layers", "deit", **_MASKED, prefix=2, fallback="first"),  # CLS and the distillation token
    "beit": Family("layers", "beit", _VIT, prefix=1, colours=HALF),
    "data2vec-vision": Family("encoder.layer", "data2vec_vision", _VIT, prefix=1, colours=HALF, foreign=("pooler.",)),
    "vit_mae": Family("layers", "vit", _VIT, prefix=1, fallback="first", orders=True),
    "vit_msn": Family("layers", "", _VIT, prefix=1, fallback="first", foreign=("mask_token", "classifier.")),
    "ijepa": Family("layers", "ijepa", _VIT, colours=HALF, foreign=("mask_token", "pooler.")),
    "dinov2": Family("encoder.layer", "dinov2", _VIT | {"patch_size": 14}, **_DINO),
    "dinov2_with_registers": Family(
        "encoder.layer", "dinov2_with_registers", _VIT | {"num_register_tokens": 4}, **_DINO,
        prefix_key="num_register_tokens",
    ),
    "dinov3_vit": Family(
        "model.layer", "", {"hidden_size": 384, "patch_size": 16, "num_register_tokens": 0}, **_DINO,
        prefix_key="num_register_tokens",
    ),
    "pixio": Family(
        "layers", "pixio", {"hidden_size": 1280, "patch_size": 16, "image_size": 256, "n_cls_tokens": 8},
        prefix_key="n_cls_tokens",
    ),
    "aimv2_vision_model": Family("encoder.layers", "aimv2", {"hidden_size": 1024, "patch_size": 14}, colours=CLIP),
    "mlcd_vision_model": Family(
        **_TOWER | {"defaults": {"hidden_size": 1664, "patch_size": 14, "image_size": 336}},
    ),
    "chinese_clip": _CHINESE_CLIP,
    "chinese_clip_vision_model": _CHINESE_CLIP,
    "metaclip_2": _METACLIP_2,
    "metaclip_2_vision_model": _METACLIP_2,
    # Transformers whose grid shrinks.
    "swin": Family("encoder.layers", "swin", **_SWIN),
    "swinv2": Family("encoder.layers", "swinv2", **_SWIN),
    "donut-swin": Family("encoder.layers", "donut", **_SWIN),
    "hiera": Family(
        "encoder.stages", "hiera",
        {"embed_dim": 96, "depths": [2, 3, 16, 3], "patch_stride": [4, 4], "query_stride": [2, 2], "num_query_pool": 3},
        stride=lambda f: f["patch_stride"][0] * f["query_stride"][0] ** f["num_query_pool"], width=_doubling,
    ),
    "pvt": Family("encoder.block", "pvt", _MIXED, stride=_strides, width=_last, prefix=1, fallback="first"),
    "pvt_v2": Family(
        "encoder.layers", "pvt_v2", _MIXED | {"hidden_sizes": [32, 64, 160, 256]}, stride=_strides, up=True, **_CONV,
    ),
    "focalnet": Family("encoder.stages", "focalnet", _FOUR, stride=_halving, width=_doubling, foreign=("mask_token",)),
    "poolformer": Family("encoder.block", "poolformer", _MIXED, stride=_strides, up=True, **_CONV),
    "swiftformer": Family(
        "encoder.network", "swiftformer", {"embed_dims": [48, 56, 112, 220], "down_stride": 2},
        stride=lambda f: 4 * f["down_stride"] ** (len(f["embed_dims"]) - 1), width=lambda f: f["embed_dims"][-1], up=True,
        fixed=False,
    ),
    # Convolutions.
    "convnext": Family("encoder.stages", "convnext", _CONVNEXT, stride=_halving, **_CONV),
    "convnextv2": Family("encoder.stages", "convnextv2", _CONVNEXT, stride=_halving, **_CONV),
    "dinov3_convnext": Family("model.stages", "", _CONVNEXT, stride=_halving, prefix=1, **_CONV),
    "resnet": Family(
        "encoder.stages", "resnet",
        {"hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3], "downsample_in_first_stage": False},
        stride=_resnet, up=True, **_CONV,
    ),
    "regnet": Family(
        "encoder.stages", "regnet",
        {"hidden_sizes": [128, 192, 512, 1088], "depths": [2, 6, 12, 2], "downsample_in_first_stage": True},
        stride=_regnet, up=True, **_CONV,
    ),
    "bit": Family(
        "encoder.stages", "bit", {"hidden_sizes": [256, 512, 1024, 2048], "output_stride": 32, "width_factor": 1},
        stride=lambda f: f["output_stride"], width=lambda f: f["hidden_sizes"][-1] * f["width_factor"], up=True, fixed=False,
        colours=HALF,
    ),
    "efficientnet": Family(
        "encoder.blocks", "efficientnet",
        {
            "hidden_dim": 2560, "image_size": 600, "strides": [1, 2, 2, 2, 1, 2, 1], "depth_coefficient": 3.1,
            "num_block_repeats": [1, 2, 2, 3, 3, 4, 1], "depthwise_padding": [],
        },
        side=_efficientnet, width=lambda f: f["hidden_dim"], fixed=False,
    ),
    "mobilenet_v1": Family(
        "layer", "mobilenet_v1", _MOBILE, stride=lambda f: 32, width=_mobilenet_v1, up=True, fixed=False, colours=HALF,
    ),
    "mobilenet_v2": Family(
        "layer", "mobilenet_v2", _MOBILE | {"finegrained_output": True, "output_stride": 32},
        stride=lambda f: f["output_stride"], width=_mobilenet_v2, up=True, fixed=False, colours=HALF,
    ),
}  # fmt: skip
