"""The image tower of an open_clip model as n2kit's `VisionEncoder`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import open_clip
import torch
from open_clip.model import resize_pos_embed
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import VisionTransformer
from PIL.Image import Image, Resampling
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from n2kit.contract import Fit, ImageTransform, LoadSpec, VisionEncoder, VisionOut, measure_card, read_json
from n2kit.errors import BadInput
from n2kit_open_clip.config import CONFIG, OpenClipConfig, architecture
from n2kit_timm.vision import read_weights, stack_of

# The smallest text tower, thrown away: open_clip builds the two together.
NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
FITS: dict[str, Fit] = {"shortest": "crop", "squash": "squash", "longest": "pad"}


class OpenClipVision(VisionEncoder):
    """An open_clip tower; its tokens are the last layer's, for a plain transformer before the final norm and CLS first (as in `clip`).

    The pooled vector is the one that CLIP compares with a text: pooled by the tower and projected.
    """

    def __init__(self, visual: nn.Module, found: dict[str, Any], transform: ImageTransform) -> None:
        super().__init__()
        if not isinstance(visual, VisionTransformer | ModifiedResNet | TimmModel):
            raise BadInput(f"open_clip's tower {type(visual).__name__} is not one that n2kit reads", "another model")
        self.visual, self.architecture, self.image_transform = visual, found, transform
        self.card = measure_card(self, transform.size, int(isinstance(visual, VisionTransformer)))

    @classmethod
    def create(cls, spec: LoadSpec) -> Self:
        config: OpenClipConfig = spec.config
        found = architecture(config, spec.path)
        found["quick_gelu"] = found["quick_gelu"] or bool(_tagged(config).get("quick_gelu"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            visual = tower(found)
        if spec.path is not None:
            _fill(visual, spec.path)
        return cls(visual.eval(), found, transform_of(config, spec.path, visual))

    def transform(self, image: Image) -> Tensor:
        return self.image_transform(image)

    @property
    def transform_id(self) -> str:
        return self.image_transform.id

    @property
    def settings_id(self) -> str:
        return (
            f"{type(self).__name__} {json.dumps(self.architecture, sort_keys=True)} open_clip {open_clip.__version__}"
        )

    def forward(self, pixels: Tensor) -> VisionOut:
        visual: Any = self.visual
        pixels = pixels.to(next(visual.parameters()).dtype)
        if isinstance(visual, VisionTransformer):
            out = visual.forward_intermediates(pixels, indices=1, output_fmt="NLC", output_extra_tokens=True)
            tokens = torch.cat([out["image_intermediates_prefix"][0], out["image_intermediates"][0]], 1)
        else:
            out = visual.forward_intermediates(pixels, indices=1, normalize_intermediates=True)
            tokens = out["image_intermediates"][0].flatten(2).transpose(1, 2)
        pooled: Tensor = out["image_features"]
        return VisionOut(tokens, pooled if pooled.ndim == 2 else None)

    def blocks(self) -> Sequence[nn.Module]:
        visual: Any = self.visual
        if isinstance(visual, VisionTransformer):
            return list(visual.transformer.resblocks)
        return stack_of(visual.trunk if isinstance(visual, TimmModel) else visual)

    def save(self, folder: Path) -> None:
        facts = {"architecture": self.architecture, "transform": vars(self.image_transform)}
        (folder / "config.json").write_text(json.dumps(facts | {"open_clip": open_clip.__version__}, indent=1))
        save_model(self.visual, str(folder / "model.safetensors"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        facts = read_json(folder / "config.json")
        visual = tower(facts["architecture"])
        load_model(visual, str(folder / "model.safetensors"), strict=True)
        return cls(visual.eval(), facts["architecture"], ImageTransform(**facts["transform"]))


def tower(found: dict[str, Any]) -> nn.Module:
    """Build an architecture's image tower with random weights.

    Raises:
        BadInput: open_clip does not take it.
    """
    try:
        model: Any = open_clip.CLIP(found["embed_dim"], found["vision_cfg"], NO_TEXT, quick_gelu=found["quick_gelu"])
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise BadInput(f"open_clip: {error}".splitlines()[0], "check the architecture") from None
    visual: nn.Module = model.visual
    return visual


def transform_of(config: OpenClipConfig, weights: Path | None, visual: Any) -> ImageTransform:
    """Return the transform of the training: what lies beside the checkpoint, over open_clip's table of tags, over CLIP's own."""
    facts = merge_preprocess_dict(PreprocessCfg(), _tagged(config))
    if weights is not None and (weights / CONFIG).is_file():
        facts = merge_preprocess_dict(facts, read_json(weights / CONFIG).get("preprocess_cfg") or {})
    height, width = visual.image_size if isinstance(visual.image_size, tuple) else (visual.image_size,) * 2
    if height != width:
        raise BadInput(f"open_clip: pictures of {height} × {width} px are not square", "choose another model")
    return ImageTransform(
        size=height,
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        fit=config.fit or FITS[facts["resize_mode"]],
        resample=int(Resampling["BILINEAR" if facts["interpolation"] == "bilinear" else "BICUBIC"]),
        resizer="torch",
    )


def _tagged(config: OpenClipConfig) -> dict[str, Any]:
    """Return what open_clip's table says about the weights that were named."""
    if config.arch is None or config.pretrained is None:
        return {}
    facts: dict[str, Any] = open_clip.get_pretrained_cfg(config.arch, config.pretrained)
    return facts


def _fill(visual: nn.Module, path: Path) -> None:
    """Load the image tower's part of a checkpoint, strictly.

    Raises:
        BadInput: the file does not hold this tower.
    """
    if path.is_dir():
        files = [f for n in ("open_clip_model.safetensors", "model.safetensors") if (f := path / n).is_file()]
        if not files:
            raise BadInput(
                f"{path} holds no open_clip_model.safetensors", "give a folder or a file that open_clip wrote"
            )
        path = files[0]
    found = {k: v for k, v in read_weights(path).items() if k.startswith("visual.")}
    resize_pos_embed(found, SimpleNamespace(visual=visual))
    try:
        visual.load_state_dict({k.removeprefix("visual."): v for k, v in found.items()}, strict=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise BadInput(
            f"{path} is not of this tower ({len(found)} tensors under visual.): {lines[-1].strip()}",
            "name its architecture",
        ) from None
