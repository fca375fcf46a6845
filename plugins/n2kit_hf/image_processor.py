"""The image processing that a checkpoint states (preprocessor_config.json, processor_config.json), read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from n2kit.contract import read_json
from n2kit.errors import BadInput
from n2kit_hf.image_families import Colours, Triple

FILE, WHOLE, INSIDE = (
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor",
)  # transformers 5 writes the second
BILINEAR, BICUBIC = 2, 3  # PIL's numbers
# Processors that cut the centre out unless a file says no; the others do so only where it says yes.
CROPPERS = ("CLIP", "ChineseCLIP", "Bit", "DeiT", "Levit", "MobileNet", "PoolFormer")
CROP_SHARE = 224 / 256  # of ConvNeXt's and LeViT's processors, where a file does not state its crop_pct
BILINEAR_ONES = ("DINOv3ViT", "Donut", "MobileNet", "Segformer", "Siglip2", "ViT")  # unless a file says otherwise
CROP = 224  # pixels, of those processors, where a file does not state its crop_size
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
    """Read a checkpoint's own processing; return the family's where it states none.

    Raises:
        BadInput: a file that is no JSON, or one that asks for what n2kit does not do.
    """
    file, content = _stated(folder)
    if file is None:
        return Processing(None, *default)
    if content.get("do_flip_channel_order"):
        raise BadInput(
            f"{file}: blue before red (do_flip_channel_order) is not supported", "the same model out of timm"
        )
    try:
        size, resize, fit = _geometry(content, default)
        mean, std = _colours(content, default)
    except ValueError as problem:
        raise BadInput(f"{file}: {problem}", "correct it, or choose another checkpoint") from None
    usual = BILINEAR if _kind(content).startswith(BILINEAR_ONES) else BICUBIC
    stated = content.get("resample")
    return Processing(size, mean, std, fit, resize, usual if stated is None else stated)


def _stated(folder: Path | None) -> tuple[Path | None, dict[str, Any]]:
    """Return the file that states the processing, and what it says."""
    if folder is not None and (file := folder / FILE).is_file():
        return file, read_json(file)
    if (
        folder is not None
        and (file := folder / WHOLE).is_file()
        and isinstance(inside := read_json(file).get(INSIDE), dict)
    ):
        return file, inside
    return None, {}


def _kind(content: dict[str, Any]) -> str:
    return str(content.get("image_processor_type") or content.get("feature_extractor_type"))


def _geometry(content: dict[str, Any], default: Colours) -> tuple[int | None, int | None, Literal["crop", "squash"]]:
    """Return the size, the short side before the crop, and the fit.

    Raises:
        ValueError: a picture that is not square, or is scaled by its long side.
    """
    side = _side(content.get("size"))
    if content.get("do_resize") is False:
        raise ValueError("do_resize false leaves pictures as large as they are, and n2kit makes them one size")
    if content.get("do_pad") and content.get("pad_size"):
        raise ValueError(f"do_pad to {content['pad_size']}: n2kit pads no pictures that are scaled already")
    kind = _kind(content)
    share = content.get("crop_pct") or (CROP_SHARE if kind.startswith(("ConvNext", "Levit")) else None)
    usual = kind.startswith(CROPPERS) if kind != "None" else default.fit == "crop"
    if side and share and not content.get("do_center_crop"):
        return (side, None, "squash") if side >= SQUASHED_FROM else (side, int(side / share), "crop")
    if content.get("do_center_crop", usual):
        size = _side(content.get("crop_size")) or (CROP if kind.startswith(CROPPERS) and side and side > CROP else side)
        side = int(side / share) if side and share else side
        if side and size and side < size:
            raise ValueError(f"a crop of {size} px is larger than the short side of {side} px")
        return size, side if side and size and side > size else None, "crop"
    if (
        isinstance(stated := content.get("size"), dict)
        and stated.get("shortest_edge")
        and content.get("do_center_crop") is False
    ):
        raise ValueError(
            f"size {stated} keeps the shape of pictures, do_center_crop is false, and n2kit makes them square"
        )
    return side, None, "squash"


def _colours(content: dict[str, Any], default: Colours) -> tuple[Triple, Triple]:
    """Return the mean and standard deviation that have the effect of all that is done to a pixel between 0 and 1.

    Raises:
        ValueError: a deviation of 0, or other than three colours.
    """
    stated = _three(content.get("image_mean"), default.mean), _three(content.get("image_std"), default.std)
    mean, std = stated if content.get("do_normalize", True) else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    offset = 1.0 if content.get("rescale_offset") else 0.0  # EfficientNet: pixels between -1 and 1
    usual = 2 / 255 if offset else 1 / 255
    factor = (content.get("rescale_factor") or usual) if content.get("do_rescale", True) else 1.0
    scale = 255 * factor  # of a pixel between 0 and 1
    if len(mean) != 3 or len(std) != 3 or 0 in std:
        raise ValueError(
            f"image_mean {list(mean)} and image_std {list(std)} are not three colours, divided by something"
        )
    mean, std = tuple((m + offset) / scale for m in mean), tuple(s / scale for s in std)
    if content.get("include_top"):  # EfficientNet: divided twice
        std = tuple(s * t for s, t in zip(std, stated[1], strict=True))
    return mean, std


def _three(value: Any, default: Triple) -> tuple[float, ...]:
    """Return a value for each colour, where one or all are stated."""
    if isinstance(value, int | float):
        return (float(value),) * 3
    return tuple(value or default)


def _side(value: Any) -> int | None:
    """Return the side: 224, {"height": 224, "width": 224}, {"shortest_edge": 224} or [224, 224] → 224.

    Raises:
        ValueError: the picture is not square, or is scaled by its long side.
    """
    if isinstance(value, dict):
        if value.get("longest_edge"):
            raise ValueError(f"size {value} scales pictures by their long side, and n2kit makes them square")
        value = [value[k] for k in ("height", "width", "shortest_edge") if value.get(k)]
    sides = set(value) if isinstance(value, list | tuple) else {value} - {None, 0}
    if len(sides) > 1:
        raise ValueError(f"pictures of {sorted(sides)} px are not square")
    return int(sides.pop()) if sides else None
