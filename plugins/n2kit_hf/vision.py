"""An image backbone of transformers as n2kit's `VisionEncoder`; a family's plug-in states what is particular to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from PIL.Image import Image
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedModel

from n2kit.contract import Fit, ImageTransform, LoadSpec, VisionEncoder, VisionOut, measure_card, read_json
from n2kit.errors import BadInput
from n2kit_hf.cards import read_config
from n2kit_hf.checkpoints import DTYPES, load_model, quietly, random_model, settings_of
from n2kit_hf.image_cards import family_of, has_pooler, input_size
from n2kit_hf.image_families import FAMILIES, Family
from n2kit_hf.image_processor import read_processing

TRANSFORM = "transform.json"


class TransformersVision(VisionEncoder):
    """An image backbone of transformers; its tokens are the last hidden states, a feature map row by row.

    The card is measured on one empty picture, so that a wrong row of `families` cannot go unnoticed.
    """

    families: ClassVar[Mapping[str, Family]] = FAMILIES

    def __init__(self, model: PreTrainedModel, transform: ImageTransform) -> None:
        super().__init__()
        self.model, self.image_transform = model, transform
        config = model.config.to_dict()
        self.family = family_of(config, self.families)
        facts = self.family.facts(config)
        if self.family.fixed and transform.size != (size := input_size(self.family, facts, None)):
            raise BadInput(
                f"the transform makes {transform.size} px, the tower reads {size}", "correct preprocessor_config.json"
            )
        if self.family.orders:
            model.config.mask_ratio = 0.0
        self.prefix_tokens = self.family.prefix_tokens(facts)
        self.card = measure_card(self, transform.size, self.prefix_tokens)

    @classmethod
    def create(cls, spec: LoadSpec) -> Self:
        path, options = spec.path, spec.config
        if path is None and not options.config:
            raise BadInput("random weights need an architecture", "--set vision.config='{model_type: vit, …}'")
        stated = read_config(path) if path else dict(options.config)
        family = family_of(stated, cls.families)
        if path is None:
            model = random_model(_model_class(family), _configuration(family, stated), options)
        else:
            model = _load(family, path, options.dtype)
        size = input_size(family, family.facts(model.config.to_dict()), path)
        return cls(model, read_transform(path, family, size, options.fit))

    def transform(self, image: Image) -> Tensor:
        return self.image_transform(image)

    @property
    def transform_id(self) -> str:
        return self.image_transform.id

    @property
    def settings_id(self) -> str:
        return f"{type(self).__name__} {settings_of(self.model)}"

    def forward(self, pixels: Tensor) -> VisionOut:
        out: Any = self.model(pixels.to(self.model.dtype), **self._order(pixels))
        tokens: Tensor = out.last_hidden_state
        tokens = tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens
        pooled = getattr(out, "pooler_output", None) if self.family.pooler else None
        if pooled is not None:
            return VisionOut(tokens, pooled.flatten(1))
        first = self.family.fallback == "first"
        return VisionOut(tokens, tokens[:, 0] if first else tokens[:, self.prefix_tokens :].mean(1))

    def _order(self, pixels: Tensor) -> dict[str, Tensor]:
        """Leave the patches of a model that shuffles them in their order."""
        if not self.family.orders:
            return {}
        config: Any = self.model.config
        patches = (config.image_size // config.patch_size) ** 2
        return {"noise": torch.arange(patches, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)}

    def blocks(self) -> Sequence[nn.Module]:
        stack: Any = self.model.get_submodule(self.family.blocks)
        return [block for piece in stack for block in (piece if isinstance(piece, nn.ModuleList) else [piece])]

    def save(self, folder: Path) -> None:
        with quietly():
            self.model.save_pretrained(folder)
        (folder / TRANSFORM).write_text(json.dumps(vars(self.image_transform), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        transform = ImageTransform(**read_json(folder / TRANSFORM))
        return cls(_load(family_of(read_config(folder), cls.families), folder, "auto", saved=True), transform)


def read_transform(folder: Path | None, family: Family, size: int, fit: Fit | None) -> ImageTransform:
    """Read the transform that a checkpoint was trained with (preprocessor_config.json), else return its family's."""
    facts = vars(read_processing(folder, family.colours)) | {"size": size}
    facts["resize"] = max(facts["resize"], size) if facts["resize"] else None
    return ImageTransform(**(facts | ({"fit": fit} if fit else {})), resizer="torch")


def _model_class(family: Family) -> Any:
    return getattr(transformers, family.tower) if family.tower else AutoModel


def _configuration(family: Family, stated: Mapping[str, Any]) -> Any:
    """Build the configuration.

    Raises:
        BadInput: a setting that the architecture does not take.
    """
    settings = {k: v for k, v in stated.items() if k != "model_type"}
    cls: Any = _model_class(family).config_class if family.tower else CONFIG_MAPPING[stated["model_type"]]
    try:
        return cls(**settings)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise BadInput(
            f"vision.config: {error}".splitlines()[0], "see the architecture's configuration class"
        ) from None


def _load(family: Family, folder: Path, dtype: str, *, saved: bool = False) -> PreTrainedModel:
    """Load a checkpoint without the pooler that transformers would make up where it has none."""
    model: Any = load_model(_model_class(family), folder, DTYPES[dtype], saved=saved)
    pooler = getattr(model, "pooler", None)
    if isinstance(pooler, nn.Module) and next(pooler.parameters(), None) is not None and not has_pooler(folder):
        model.pooler = None
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()  # out of the file: where it lies in memory would show in the last bits
    loaded: PreTrainedModel = model
    return loaded
