"""What vision towers of transformers share; a family's plug-in states its class and how it pools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from PIL.Image import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from n2kit import Origin, VisionCard, VisionEncoder
from n2kit.data.images import Fit, ImageTransform
from n2kit.errors import BadInput
from n2kit_hf.checkpoints import DTYPES, load_model, quietly, random_model

PREPROCESSOR, TRANSFORM = "preprocessor_config.json", "transform.json"


class TransformersVision(VisionEncoder):
    """A tower with a fixed input size. Subclasses say `forward`, `prefix_tokens` and the transform's defaults."""

    model_class: ClassVar[Any]
    default_transform: ClassVar[ImageTransform]
    prefix_tokens: ClassVar[int]

    def __init__(self, model: PreTrainedModel, transform: ImageTransform) -> None:
        super().__init__()
        self.model, self.image_transform = model, transform
        config: Any = model.config
        if transform.size != config.image_size:
            raise BadInput(
                f"the transform makes {transform.size} px, the tower reads {config.image_size}",
                "correct preprocessor_config.json",
            )
        self.card = VisionCard(
            tokens=(config.image_size // config.patch_size) ** 2 + self.prefix_tokens,
            token_width=config.hidden_size,
            pooled_width=config.hidden_size,
            image_size=config.image_size,
            parameters=sum(p.numel() for p in model.parameters()),
            prefix_tokens=self.prefix_tokens,
        )

    @classmethod
    def create(cls, origin: Origin) -> Self:
        path, options = origin.path, origin.config
        if path is None:
            config = {k: v for k, v in (options.config or {}).items() if k != "model_type"}
            model = random_model(cls.model_class, cls.model_class.config_class(**config), options)
        else:
            model = load_model(cls.model_class, path, DTYPES[options.dtype])
        size = getattr(model.config, "image_size", 0)
        return cls(model, read_transform(path, cls.default_transform, size, options.fit))

    def transform(self, image: Image) -> Tensor:
        return self.image_transform(image)

    @property
    def transform_id(self) -> str:
        return self.image_transform.id

    def blocks(self) -> Sequence[nn.Module]:
        model: Any = self.model
        return list(model.encoder.layers)

    def save(self, folder: Path) -> None:
        with quietly():
            self.model.save_pretrained(folder)
        (folder / TRANSFORM).write_text(json.dumps(vars(self.image_transform), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        transform = ImageTransform(**json.loads((folder / TRANSFORM).read_text("utf8")))
        return cls(load_model(cls.model_class, folder, "auto"), transform)


def read_transform(folder: Path | None, default: ImageTransform, size: int, fit: Fit | None) -> ImageTransform:
    """The transform that a checkpoint was trained with (preprocessor_config.json), else the family's default."""
    facts = dict(vars(default)) | {"size": size, "resize": None}
    file = folder / PREPROCESSOR if folder else None
    if file is not None and file.is_file():
        content = json.loads(file.read_text("utf8"))
        facts["mean"] = tuple(content.get("image_mean") or default.mean)
        facts["std"] = tuple(content.get("image_std") or default.std)
        facts["resample"] = content.get("resample", default.resample)
        facts["fit"] = "crop" if content.get("do_center_crop", default.fit == "crop") else "squash"
        side = content.get("size")
        facts["resize"] = side.get("shortest_edge") if isinstance(side, dict) else None
    return ImageTransform(**(facts | ({"fit": fit} if fit else {})))
