"""A timm model as n2kit's `VisionEncoder`."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import timm
import timm.data
import torch
from PIL.Image import Image, Resampling
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model
from torch import Tensor, nn

from n2kit.contract import ImageTransform, LoadSpec, VisionEncoder, VisionOut, measure_card, read_json
from n2kit.errors import BadInput
from n2kit_timm.config import TimmConfig, of_folder


class TimmVision(VisionEncoder):
    """A timm model; its tokens are `forward_features` (a feature map row by row), its pooled vector the model's own pooling.

    Models whose features are no one sequence of tokens (CoaT and CrossViT give several, PiT its class token alone) give
    the last map of `forward_intermediates` instead.
    """

    def __init__(self, model: nn.Module, config: TimmConfig, transform: ImageTransform | None = None) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.image_transform = transform or _transform(model, config)
        size = self.image_transform.size
        try:
            self.by_map, prefix_tokens = _layout(model.eval(), size)
            self.card = measure_card(self, size, prefix_tokens)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise BadInput(
                f"timm's {config.arch} does not read pictures of {size} px: {str(error).splitlines()[0]}",
                "leave image_size out",
            ) from None

    @classmethod
    def create(cls, spec: LoadSpec) -> Self:
        config, facts = of_folder(spec.config, spec.path)
        file = spec.path / "model.safetensors" if spec.path is not None and spec.path.is_dir() else spec.path
        found = None if file is None else read_weights(file)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = architecture(config, num_classes=0 if found is None else _classes(config, found))
        if found is not None:
            assert file is not None
            _fill(model, found, file)
            model.reset_classifier(0)
        model.pretrained_cfg.update({name: fact for name, fact in facts.items() if fact is not None})
        return cls(model, config)

    def transform(self, image: Image) -> Tensor:
        return self.image_transform(image)

    @property
    def transform_id(self) -> str:
        return self.image_transform.id

    @property
    def settings_id(self) -> str:
        return f"{type(self).__name__} {self.config.model_dump_json()} {self.by_map} timm {timm.__version__}"

    def forward(self, pixels: Tensor) -> VisionOut:
        model: Any = self.model
        pixels = pixels.to(next(model.parameters()).dtype)
        if self.by_map:
            features, (grid,) = model.forward_intermediates(pixels, indices=1)
            tokens = grid.flatten(2).transpose(1, 2)
        else:
            features = model.forward_features(pixels)
            tokens = _tokens(features, model.num_features)
        return VisionOut(tokens, model.forward_head(features, pre_logits=True))

    def blocks(self) -> Sequence[nn.Module]:
        return stack_of(self.model)

    def save(self, folder: Path) -> None:
        facts = {"options": self.config.model_dump(), "transform": vars(self.image_transform), "timm": timm.__version__}
        (folder / "config.json").write_text(json.dumps(facts, indent=1))
        save_model(self.model, str(folder / "model.safetensors"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        facts = read_json(folder / "config.json")
        config = TimmConfig.model_validate(facts["options"])
        model = architecture(config, num_classes=0)
        load_model(model, str(folder / "model.safetensors"), strict=True)
        return cls(model, config, ImageTransform(**facts["transform"]))


def stack_of(model: Any) -> list[nn.Module]:
    """Return the stages or blocks of a timm model in order of depth; none where it keeps no such list."""
    for name in ("blocks", "stages", "layers"):
        if isinstance(stack := getattr(model, name, None), nn.ModuleList | nn.Sequential):
            return list(stack)
    return [module for name, module in model.named_children() if re.fullmatch(r"layer\d+", name)]


def architecture(config: TimmConfig, num_classes: int | None) -> Any:
    """Build the model without its pretrained weights; `num_classes` None: with the head that they have.

    Raises:
        BadInput: timm has no such model, or it does not take the arguments.
    """
    name = config.arch or ""
    if not timm.is_model(name.split(".")[0]):
        raise BadInput(f"timm has no model {name!r}", "timm.list_models() lists them")
    options = config.arguments | ({} if num_classes is None else {"num_classes": num_classes})
    try:
        if config.image_size is not None:
            with suppress(TypeError):  # convolutional models take any size and no such argument
                return timm.create_model(name, pretrained=False, img_size=config.image_size, **options)
        return timm.create_model(name, pretrained=False, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise BadInput(f"timm's {name}: {error}".splitlines()[0], "check `arguments` and `image_size`") from None


def _layout(model: Any, size: int) -> tuple[bool, int]:
    """Find by a trial whether tokens are those of the last map, and otherwise how many come before the grid."""
    parameter = next(model.parameters())
    pixels = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        features = model.forward_features(pixels)
        if isinstance(features, Tensor) and features.ndim == 4:
            return False, 0
        stated = getattr(model, "num_prefix_tokens", None)
        if isinstance(features, Tensor) and stated is not None:
            return False, int(stated)
        _, (grid,) = model.forward_intermediates(pixels, indices=1)
    patches = grid.shape[2] * grid.shape[3]
    if isinstance(features, Tensor) and features.shape[1] >= patches:
        return False, features.shape[1] - patches
    return True, 0


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a pickle that holds nothing else: as tensors, never as objects.

    Raises:
        BadInput: a file that is neither.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, SafetensorError, RuntimeError, UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{file}: not readable as weights: {reason}", "give a safetensors file") from None
    if isinstance(found, dict):
        found = next((found[k] for k in ("state_dict", "model") if isinstance(found.get(k), dict)), found)
    if not (isinstance(found, dict) and found and all(isinstance(t, Tensor) for t in found.values())):
        raise BadInput(f"{file}: holds no tensors by name", "give a safetensors file")
    return dict(found)


def _classes(config: TimmConfig, found: dict[str, Tensor]) -> int | None:
    """Return the number of classes of the weights' own head; None where they have no head under timm's name for it."""
    cfg = timm.get_pretrained_cfg(config.arch or "")
    names = getattr(cfg, "classifier", None) or ()
    for name in [names] if isinstance(names, str) else names:
        if (head := found.get(f"{name}.weight")) is not None:
            return int(head.shape[0])
    return None


def _fill(model: Any, found: dict[str, Tensor], file: Path) -> None:
    """Load weights strictly, by key or, for another naming of the same tensors, by order.

    Raises:
        BadInput: they are not those of this architecture.
    """
    expected = model.state_dict()
    resize = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if resize is not None and {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in expected.items()}:
        found = resize(found, model)  # timm's own: older names, position embeddings of another image size
    if set(found) != set(expected):
        pairs = list(zip(expected.items(), found.items(), strict=False))
        if len(found) != len(expected) or any(a.shape != b.shape for (_, a), (_, b) in pairs):
            raise BadInput(
                f"{file} holds {len(found)} tensors that are not those of {type(model).__name__} ({len(expected)})",
                "name the architecture that the file was saved from",
            )
        found = {name: tensor for (name, _), (_, tensor) in pairs}
    try:
        model.load_state_dict(found, strict=True)
    except RuntimeError as error:
        raise BadInput(f"{file}: {str(error).splitlines()[-1].strip()}", "check architecture and image_size") from None


def _transform(model: Any, config: TimmConfig) -> ImageTransform:
    data: dict[str, Any] = timm.data.resolve_model_data_config(model)  # type: ignore[attr-defined,no-untyped-call]
    size = config.image_size or data["input_size"][-1]
    return ImageTransform(
        size=size,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        fit=config.fit,
        resize=math.floor(size / data["crop_pct"]) if config.fit == "crop" else None,
        resample=int(Resampling[data["interpolation"].upper()]),
        resizer="torch",
    )


def _tokens(features: Tensor, width: int) -> Tensor:
    """Reshape [I, D, h, w], [I, h, w, D] or [I, N, D] → [I, N, D]."""
    if features.ndim == 4:
        features = features.flatten(2).transpose(1, 2) if features.shape[1] == width else features.flatten(1, 2)
    return features
