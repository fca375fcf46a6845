"""Vision towers of multimodal LLMs as n2kit's `VisionEncoder`."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import AutoConfig

from n2kit.contract import Fit, ImageTransform, LoadSpec, VisionCard, VisionEncoder, VisionOut, read_json
from n2kit_hf.checkpoints import quietly, settings_of
from n2kit_hf.image_families import CLIP, HALF, IMAGENET, Colours
from n2kit_hf.image_processor import read_processing
from n2kit_mllm.cards import BLIP2, GEMMA3, INTERNVL, LLAVA, QWEN, QWEN3, SMOLVLM, Family, layers_read, side_of, square
from n2kit_mllm.whole import load_tower, tower_alone

FACTS = "tower.json"  # what transformers does not keep
WHOLE = CLIP._replace(fit="squash")
# Where a folder has no preprocessor_config.json.
COLOURS = {
    "clip_vision_model": CLIP, "siglip_vision_model": HALF, "blip_2_vision_model": WHOLE,
    "internvl_vision": IMAGENET._replace(fit="squash"), "smolvlm_vision": HALF, "idefics3_vision": HALF,
}  # fmt: skip


class MLLMTower(VisionEncoder):
    """The base of the families' towers: saving, the transform, the pooled vector.

    Args:
        pool: `mean` of the patches, or None for the CLS token (no pooled vector in a tower without one).
        layers: whose outputs are read, counted from 1 (0 is the first one's input); None: the tower's own output.
    """

    family: ClassVar[Family]

    def __init__(
        self, model: Any, transform: ImageTransform, pool: str | None = None, layers: list[int] | None = None
    ) -> None:
        super().__init__()
        self.model, self.image_transform, self.pool, self.layers = model, transform, pool, layers
        self.card = self.measure_card()

    @classmethod
    def create(cls, spec: LoadSpec) -> Self:
        return cls.of(*tower_alone(spec, cls.family), spec)

    @classmethod
    @abstractmethod
    def of(cls, model: Any, whole: Any, spec: LoadSpec) -> Self:
        """Build the part from the tower and the configuration of the whole model around it."""

    @abstractmethod
    def measure_card(self) -> VisionCard: ...

    def pooled(self, tokens: Tensor) -> Tensor | None:
        """Pool tokens [I, N, Dv] → [I, Dv], or None."""
        if self.pool:
            return tokens[:, self.card.prefix_tokens :].mean(1)
        return tokens[:, 0] if self.card.pooled_width else None

    def transform(self, image: Image) -> Tensor:
        return self.image_transform(image)

    @property
    def transform_id(self) -> str:
        return self.image_transform.id

    @property
    def settings_id(self) -> str:
        return f"{type(self).__name__} {self.pool} {self.layers} {settings_of(self.model)}"

    def save(self, folder: Path) -> None:
        with quietly():
            # Under the names that its own class has, whatever checkpoint they were read out of.
            self.model.save_pretrained(folder, save_original_format=False)
        facts = {"transform": vars(self.image_transform), "pool": self.pool, "layers": self.layers}
        (folder / FACTS).write_text(json.dumps(facts, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        facts = read_json(folder / FACTS)
        model = load_tower(folder, AutoConfig.from_pretrained(folder), "auto", saved=True)
        return cls(model, ImageTransform(**facts["transform"]), facts["pool"], facts["layers"])


class QwenTower(MLLMTower):
    """Qwen2-VL's and Qwen2.5-VL's tower with its merger, at one square size: as many tokens for every picture."""

    family = QWEN
    colours: ClassVar[Colours] = CLIP

    @classmethod
    def of(cls, model: Any, whole: Any, spec: LoadSpec) -> Self:
        options = spec.config
        transform = transform_of(spec.path, cls.colours._replace(fit="squash"), options.image_size, options.fit)
        # Trained at any proportions, so that no fit is the checkpoint's own; its "shortest_edge" is no side but an area.
        return cls(model, replace(transform, fit=options.fit or "pad", resize=None), options.pool)

    def measure_card(self) -> VisionCard:
        config, size = self.model.config, self.image_transform.size
        width = self.model.merger.mlp[-1].out_features
        return VisionCard(
            tokens=side_of(size, config.patch_size, config.spatial_merge_size) ** 2,
            token_width=width,
            pooled_width=width if self.pool else 0,
            image_size=size,
            parameters=sum(p.numel() for p in self.model.parameters()),
        )

    def seen(self, pixels: Tensor) -> Any:
        """Run the tower on pixels [I, 3, S, S]: transformers' output, whose tokens of all images stand one behind the other."""
        config = self.model.config
        side = pixels.shape[-1] // config.patch_size
        grids = torch.tensor([[1, side, side]], device=pixels.device).expand(len(pixels), -1)
        flat = patches(
            pixels.to(self.model.dtype), config.patch_size, config.spatial_merge_size, config.temporal_patch_size
        )
        return self.model(flat, grid_thw=grids)

    def forward(self, pixels: Tensor) -> VisionOut:
        tokens: Tensor = self.seen(pixels).pooler_output.unflatten(0, (len(pixels), -1))
        return VisionOut(tokens, self.pooled(tokens))

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.model.blocks)


class Qwen3Tower(QwenTower):
    """Qwen3-VL's tower: beside each merged token stand those of deeper layers, for the first layers of the language model."""

    family = QWEN3
    colours = HALF

    def measure_card(self) -> VisionCard:
        config, size = self.model.config, self.image_transform.size
        width = config.out_hidden_size
        return VisionCard(
            tokens=side_of(size, config.patch_size, config.spatial_merge_size) ** 2,
            token_width=width * (1 + len(config.deepstack_visual_indexes)),
            pooled_width=width if self.pool else 0,
            image_size=size,
            parameters=sum(p.numel() for p in self.model.parameters()),
        )

    def forward(self, pixels: Tensor) -> VisionOut:
        out = self.seen(pixels)
        streams = [out.pooler_output, *out.deepstack_features]
        tokens = torch.cat([stream.unflatten(0, (len(pixels), -1)) for stream in streams], -1)
        return VisionOut(tokens, tokens[..., : self.card.pooled_width].mean(1) if self.pool else None)


class LlavaTower(MLLMTower):
    """A ViT of a fixed size, cut off behind the last layer that LLaVA reads (its second last: `vision_feature_layer`).

    CLS stays among the tokens; it is the pooled vector too, from the layer that is read: later layers were never used.
    """

    family = LLAVA

    @classmethod
    def of(cls, model: Any, whole: Any, spec: LoadSpec) -> Self:
        config = model.config
        layers = cls.layers_of(whole, config.num_hidden_layers)
        if layers is not None:
            config.num_hidden_layers = max(layers)
            del model.encoder.layers[max(layers) :]
        transform = transform_of(spec.path, COLOURS[config.model_type], square(config.image_size), spec.config.fit)
        return cls(model, transform, spec.config.pool, layers)

    @classmethod
    def layers_of(cls, whole: Any, blocks: int) -> list[int] | None:
        return layers_read(whole.vision_feature_layer, blocks)

    def measure_card(self) -> VisionCard:
        config, embeddings = self.model.config, self.model.embeddings
        prefix = embeddings.num_positions - embeddings.num_patches
        width = config.hidden_size * len(self.layers or [0])
        return VisionCard(
            tokens=embeddings.num_positions,
            token_width=width,
            pooled_width=width if self.pool or prefix else 0,
            image_size=config.image_size,
            parameters=sum(p.numel() for p in self.model.parameters()),
            prefix_tokens=prefix,
        )

    def forward(self, pixels: Tensor) -> VisionOut:
        pixels = pixels.to(self.model.dtype)
        if self.layers is None:
            tokens: Tensor = self.model(pixels).last_hidden_state
        else:
            states = self.model(pixels, output_hidden_states=self.layers).hidden_states
            tokens = torch.cat([states[layer] for layer in self.layers], -1)
        return VisionOut(tokens, self.pooled(tokens))

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.model.encoder.layers)


class Blip2Tower(LlavaTower):
    """BLIP-2's ViT; its tokens are those after the final norm, and CLS of them is the pooled vector."""

    family = BLIP2

    @classmethod
    def layers_of(cls, whole: Any, blocks: int) -> list[int] | None:
        return None


class GemmaTower(Blip2Tower):
    """Gemma 3's SigLIP; a pooled vector with pool: mean."""

    family = GEMMA3


class InternVLTower(LlavaTower):
    """InternVL's ViT (InternViT); CLS stays among the tokens, and is the pooled vector."""

    family = INTERNVL

    @classmethod
    def layers_of(cls, whole: Any, blocks: int) -> list[int] | None:
        return None  # the tower's own output: `read` refuses any other

    def measure_card(self) -> VisionCard:
        config = self.model.config
        size, patch = square(config.image_size), square(config.patch_size)
        return VisionCard(
            tokens=(size // patch) ** 2 + 1,
            token_width=config.hidden_size,
            pooled_width=config.hidden_size,
            image_size=size,
            parameters=sum(p.numel() for p in self.model.parameters()),
            prefix_tokens=1,
        )

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.model.encoder.layer)


class SmolVLMTower(InternVLTower):
    """SmolVLM's SigLIP at its one tile's size; a pooled vector with pool: mean."""

    family = SMOLVLM

    def measure_card(self) -> VisionCard:
        config = self.model.config
        size, patch = square(config.image_size), square(config.patch_size)
        return VisionCard(
            tokens=(size // patch) ** 2,
            token_width=config.hidden_size,
            pooled_width=config.hidden_size if self.pool else 0,
            image_size=size,
            parameters=sum(p.numel() for p in self.model.parameters()),
        )

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.model.encoder.layers)


def transform_of(folder: Path | None, colours: Colours, size: int, fit: Fit | None) -> ImageTransform:
    """Return the transform that a checkpoint was trained with (preprocessor_config.json), else its family's, at a tower's size."""
    facts = vars(read_processing(folder, colours)) | {"size": size} | ({"fit": fit} if fit else {})
    facts["resize"] = max(facts["resize"], size) if facts["resize"] else None
    return ImageTransform(**facts, resizer="torch")


def patches(pixels: Tensor, patch: int, merge: int, frames: int) -> Tensor:
    """Cut pixels [I, 3, S, S] → [I · (S / patch)², 3 · frames · patch²]; a still counts as `frames` equal ones.

    The merge × merge patches that become one token stand next to each other (Qwen2-VL, section 2.1).
    """
    side = pixels.shape[-1] // (patch * merge)
    cells = pixels.unflatten(3, (side, merge, patch)).unflatten(2, (side, merge, patch))
    flat = cells.permute(0, 2, 5, 3, 6, 1, 4, 7).flatten(0, 4)
    still: Tensor = flat[:, :, None].expand(-1, -1, frames, -1, -1).flatten(1)
    return still
