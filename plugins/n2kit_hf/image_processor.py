"""The image processing that a checkpoint's preprocessor_config.json states, read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from n2kit.contract import read_json
from n2kit.errors import BadInput
from n2kit_hf.image_families import Colours, Triple

FILE = "preprocessor_config.json"
BICUBIC = 3  # PIL's number
# Processors that cut the centre out unless a file says no; the others do so only where it says yes.
CROPPERS = ("CLIP", "ChineseCLIP", "Bit", "DeiT", "Levit", "MobileNet", "PoolFormer")
CROP_SHARE = 224 / 256  # of ConvNeXt's and LeViT's processors, where a file does not state its crop_pct
SQUASHED_FROM = 384  # pixels; it cuts nothing off at and above this size


@dataclass(frozen=True)
class Processing:
    """The fields of `n2kit.data.images.ImageTransform`; `size` is None where the file does not state it."""

    size: int | None
    mean: Triple
    std: Triple
    fit: Literal["crop", "squash"]
    resize: int | None = None
    resample: int = BICUBIC


def read_processing(folder: Path | None, default: Colours) -> Processing:
    """Read a checkpoint's own processing; return the family's where it has no such file.

    Raises:
        BadInput: a file that is no JSON, or one that asks for what n2kit does not do.
    """
    file = folder / FILE if folder is not None else None
    if file is None or not file.is_file():
        return Processing(None, *default)
    content = read_json(file)
    if content.get("do_flip_channel_order"):
        raise BadInput(
            f"{file}: blue before red (do_flip_channel_order) is not supported", "the same model out of timm"
        )
    size, resize, fit = _geometry(content, default)
    mean, std = _colours(content, default)
    return Processing(size, mean, std, fit, resize, content.get("resample", BICUBIC))


def _geometry(content: dict[str, Any], default: Colours) -> tuple[int | None, int | None, Literal["crop", "squash"]]:
    """Return the size, the short side before the crop, and the fit."""
    side = _side(content.get("size"))
    kind = str(content.get("image_processor_type") or content.get("feature_extractor_type"))
    share = content.get("crop_pct") or (CROP_SHARE if kind.startswith(("ConvNext", "Levit")) else None)
    usual = kind.startswith(CROPPERS) if kind != "None" else default.fit == "crop"
    if side and share and not content.get("do_center_crop"):
        return (side, None, "squash") if side >= SQUASHED_FROM else (side, int(side / share), "crop")
    if content.get("do_center_crop", usual):
        size = _side(content.get("crop_size")) or side
        side = int(side / share) if side and share else side
        return size, side if side and size and side > size else None, "crop"
    return side, None, "squash"


def _colours(content: dict[str, Any], default: Colours) -> tuple[Triple, Triple]:
    """Return the mean and standard deviation that have the effect of all that is done to a pixel between 0 and 1."""
    mean = tuple(content.get("image_mean") or default.mean)
    std = tuple(content.get("image_std") or default.std)
    if not content.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if content.get("rescale_offset"):  # EfficientNet: pixels between -1 and 1
        mean, std = tuple((1 + m) / 2 for m in mean), tuple(s / 2 for s in std)
    if content.get("include_top"):  # EfficientNet: divided twice
        std = tuple(s * t for s, t in zip(std, content.get("image_std") or default.std, strict=True))
    return mean, std


def _side(value: Any) -> int | None:
    """Return the side: 224, {"height": 224, "width": 224}, {"shortest_edge": 224} or [224, 224] → 224."""
    if isinstance(value, dict):
        value = next((value[k] for k in ("height", "shortest_edge") if value.get(k)), None)
    return int(value[0] if isinstance(value, list | tuple) else value) if value else None
