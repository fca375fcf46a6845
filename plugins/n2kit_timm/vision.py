"""A timm model as n2kit's `VisionEncoder`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
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

from n2kit import Origin, VisionCard, VisionEncoder, VisionOut
from n2kit.data.images import ImageTransform
from n2kit.errors import BadInput
from n2kit_timm.config import TimmConfig


class TimmVision(VisionEncoder):
    """Tokens are `forward_features` (a feature map is read row by row); the pooled vector is the model's own pooling."""

    def __init__(self, model: nn.Module, config: TimmConfig, transform: ImageTransform | None = None) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.image_transform = transform or _transform(model, config)
        self.card = _measure(model, self.image_transform.size)

    @classmethod
    def create(cls, origin: Origin) -> Self:
        config: TimmConfig = origin.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = _architecture(config, num_classes=None if origin.path else 0)
        if origin.path is not None:
            _fill(model, origin.path)
            model.reset_classifier(0)
        return cls(model.eval(), config)

    def transform(self, image: Image) -> Tensor:
        return self.image_transform(image)

    @property
    def transform_id(self) -> str:
        return self.image_transform.id

    def forward(self, pixels: Tensor) -> VisionOut:
        model: Any = self.model
        features: Tensor = model.forward_features(pixels.to(next(model.parameters()).dtype))
        return VisionOut(_tokens(features, model.num_features), model.forward_head(features, pre_logits=True))

    def blocks(self) -> Sequence[nn.Module]:
        model: Any = self.model
        for name in ("blocks", "stages", "layers"):
            if isinstance(stack := getattr(model, name, None), nn.ModuleList | nn.Sequential):
                return list(stack)
        return []

    def save(self, folder: Path) -> None:
        facts = {"options": self.config.model_dump(), "transform": vars(self.image_transform), "timm": timm.__version__}
        (folder / "config.json").write_text(json.dumps(facts, indent=1))
        save_model(self.model, str(folder / "model.safetensors"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        facts = json.loads((folder / "config.json").read_text("utf8"))
        config = TimmConfig.model_validate(facts["options"])
        model = _architecture(config, num_classes=0)
        load_model(model, str(folder / "model.safetensors"), strict=True)
        return cls(model.eval(), config, ImageTransform(**facts["transform"]))


def card(config: TimmConfig, locate: Callable[[], Path | None]) -> VisionCard:
    """Measured on the architecture without weights (torch's meta device)."""
    with torch.device("meta"):
        model = _architecture(config, num_classes=0)
    return _measure(model.eval(), _transform(model, config).size)


def _architecture(config: TimmConfig, num_classes: int | None) -> Any:
    name = config.arch
    if not timm.is_model(name.split(".")[0]):
        raise BadInput(f"timm has no model {name!r}", "timm.list_models() lists them")
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if config.image_size is not None:
        try:
            return timm.create_model(name, pretrained=False, img_size=config.image_size, **options)
        except TypeError:  # convolutional models take any size and no such argument
            pass
    return timm.create_model(name, pretrained=False, **options)


def _fill(model: Any, path: Path) -> None:
    """Load weights strictly, by key or, for another naming of the same tensors, by order.

    Raises:
        BadInput: the file does not hold this architecture.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        pickled = file.suffix != ".safetensors"  # read as tensors only, never as objects
        found = torch.load(file, map_location="cpu", weights_only=True) if pickled else load_file(file)
    except (OSError, SafetensorError, RuntimeError, UnpicklingError) as error:
        raise BadInput(
            f"{file}: not readable as weights: {str(error).splitlines()[0]}", "give a safetensors file"
        ) from None
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
    )


def _tokens(features: Tensor, width: int) -> Tensor:
    """[I, D, h, w], [I, h, w, D] or [I, N, D] → [I, N, D]."""
    if features.ndim == 4:
        features = features.flatten(2).transpose(1, 2) if features.shape[1] == width else features.flatten(1, 2)
    return features


def _measure(model: Any, size: int) -> VisionCard:
    parameter = next(model.parameters())
    was_training = model.training
    with torch.no_grad():
        features = model.eval().forward_features(
            torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
        )
        tokens = _tokens(features, model.num_features)
        pooled = model.forward_head(features, pre_logits=True)
    model.train(was_training)
    return VisionCard(
        tokens=tokens.shape[1],
        token_width=tokens.shape[2],
        pooled_width=pooled.shape[1],
        image_size=size,
        parameters=sum(p.numel() for p in model.parameters()),
        prefix_tokens=getattr(model, "num_prefix_tokens", 0) if features.ndim == 3 else 0,
    )
