"""Vision encoders: what a card says without torch is what the encoder is, whatever the checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

from n2kit.contract.interfaces import LoadSpec, VisionEncoder
from n2kit.errors import BadInput
from n2kit.plugins.catalogue import default_catalogue
from n2kit_clip.cards import FAMILIES as CLIP
from n2kit_hf.cards import VisionConfig
from n2kit_hf.image_cards import vision_card
from n2kit_hf.image_families import FAMILIES, IMAGENET
from n2kit_hf.image_processor import read_processing
from n2kit_hf.vision import TransformersVision, read_transform
from n2kit_hf.vision_specs import TINY
from n2kit_siglip.cards import FAMILIES as SIGLIP

ALL = FAMILIES | CLIP | SIGLIP
SMALL = {config["model_type"]: config for config, _ in TINY.values()}
TINIES = [
    f"{name}:{preset}"
    for name in ("hf-vision", "clip", "siglip", "timm")
    for preset in default_catalogue().presets("vision", name)
    if preset.startswith("tiny")
]


def pixels(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def noise(width: int, height: int) -> Image.Image:
    """Smooth enough for two resizers to agree on it."""
    small = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("reference", TINIES)
@torch.no_grad()
def test_tiny_presets(reference: str, tmp_path: Path) -> None:
    component = default_catalogue().resolve("vision", reference)
    part: VisionEncoder = component.cls().create(LoadSpec(component.config())).freeze()
    card = part.card
    assert component.declared == card
    part.train()
    assert not any(module.training for module in part.modules())
    x = pixels(2, card.image_size)
    out = part(x)
    assert out.tokens.shape == (2, card.tokens, card.token_width)
    assert out.pooled is not None
    assert out.pooled.shape == (2, card.pooled_width)
    torch.testing.assert_close(part(x[1:]).tokens, out.tokens[1:], rtol=1e-4, atol=1e-5)
    assert part(x).tokens.equal(out.tokens)
    part.save(tmp_path)
    again = type(part).load(tmp_path).freeze()  # torch may take another path where gradients are wanted
    assert again.card == card
    assert again(x).tokens.equal(out.tokens)
    assert again(x).pooled.equal(out.pooled)
    if isinstance(part, TransformersVision):
        assert vision_card(component.config(), lambda: tmp_path, part.families) == card


@pytest.mark.parametrize(
    "reference", [r for r in TINIES if default_catalogue().resolve("vision", r).card().grid in range(4, 99)]
)  # type: ignore[union-attr]
@torch.no_grad()
def test_tokens_are_in_reading_order(reference: str) -> None:
    component = default_catalogue().resolve("vision", reference)
    part = component.cls().create(LoadSpec(component.config())).eval()
    side, first = part.card.grid, part.card.prefix_tokens
    cell, x = part.card.image_size // side, pixels(1, part.card.image_size)
    changed = x.clone()
    changed[:, :, cell : 2 * cell, -cell:] += 3  # second row, last column
    moved = (part(changed).tokens - part(x).tokens)[0, first:].norm(dim=-1)
    assert divmod(int(moved.argmax()), side) == (1, side - 1)


@pytest.mark.parametrize("model_type", ALL)
@torch.no_grad()
def test_cards_know_the_defaults_of_transformers(model_type: str) -> None:
    """A config.json that says nothing but its type; sizes that leave a rest, where the model reads any."""
    family = ALL[model_type]
    card = vision_card(VisionConfig(config={"model_type": model_type}), lambda: None, ALL)
    with torch.device("meta"):
        if family.tower:
            cls = getattr(transformers, family.tower)
            config = cls.config_class(num_hidden_layers=1)
            model = cls(config)
        else:
            config = AutoConfig.for_model(model_type)
            if hasattr(config, "num_hidden_layers") and not hasattr(config, "depths") and family.fixed:
                config = AutoConfig.for_model(model_type, num_hidden_layers=1)
            config.mask_ratio = 0.0
            model = AutoModel.from_config(config)
    facts = family.facts({"model_type": model_type})
    for size in (card.image_size,) if family.fixed else (card.image_size, 160, 200, 233):
        states = model.eval()(torch.zeros(1, 3, size, size, device="meta")).last_hidden_state
        tokens = states.flatten(2).transpose(1, 2) if states.ndim == 4 else states
        assert tuple(tokens.shape[1:]) == (family.tokens(facts, size), card.token_width), size


HEADED = [t for t in SMALL if AutoConfig.for_model(t).__class__ in AutoModelForImageClassification._model_mapping]


@pytest.mark.parametrize("model_type", HEADED)
def test_a_classifiers_checkpoint_gives_its_backbone(model_type: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(**SMALL[model_type])
    classifier = AutoModelForImageClassification._model_mapping[type(config)]
    (classifier[0] if isinstance(classifier, tuple) else classifier)(config).save_pretrained(tmp_path)
    part = TransformersVision.create(LoadSpec(VisionConfig(), tmp_path)).eval()
    assert vision_card(VisionConfig(), lambda: tmp_path) == part.card
    with torch.no_grad():  # nothing of it is made up, which would be another one each time
        again = TransformersVision.create(LoadSpec(VisionConfig(), tmp_path)).eval()
        first, second = (p(pixels(1, part.card.image_size)) for p in (part, again))
    assert first.pooled.equal(second.pooled)


def test_the_pooler_is_used_where_it_was_trained(tmp_path: Path) -> None:
    config = AutoConfig.for_model(**SMALL["vit"])
    for kind, with_pooler in ((AutoModel, True), (AutoModelForImageClassification, False)):
        kind.from_config(config).save_pretrained(tmp_path)
        part = TransformersVision.create(LoadSpec(VisionConfig(), tmp_path)).eval()
        with torch.no_grad():
            out = part(pixels(1, 32))
        assert out.pooled.equal(out.tokens[:, 0]) is not with_pooler
        assert vision_card(VisionConfig(), lambda: tmp_path).parameters == part.card.parameters


@pytest.mark.parametrize(
    ("cls", "model_type"), [("ViTForMaskedImageModeling", "vit"), ("ViTMAEForPreTraining", "vit_mae")]
)
def test_what_only_pretraining_needs_is_left_out(cls: str, model_type: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        **SMALL[model_type], encoder_stride=8, decoder_hidden_size=16, decoder_num_attention_heads=2
    )
    getattr(transformers, cls)(config).save_pretrained(tmp_path)
    part = TransformersVision.create(LoadSpec(VisionConfig(), tmp_path))
    assert vision_card(VisionConfig(), lambda: tmp_path) == part.card
    assert part.card.tokens == 17  # MAE hides three quarters unless it is told not to


@pytest.mark.parametrize("model_type", ["chinese_clip", "metaclip_2"])
def test_a_checkpoint_of_two_towers_gives_its_vision_tower(model_type: str, tmp_path: Path) -> None:
    vision = {k: v for k, v in SMALL[f"{model_type}_vision_model"].items() if k != "model_type"}
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 64,
    }
    config = AutoConfig.for_model(model_type, vision_config=vision, text_config=text, projection_dim=16)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    component = default_catalogue().resolve("vision", f"file:{tmp_path}")
    assert component.registered.spec.name == "hf-vision"
    part = component.cls().create(LoadSpec(component.config(), tmp_path))
    assert component.card() == part.card == replace(part.card, tokens=17, parameters=23936)


def test_the_processors_size_counts_where_any_is_read(tmp_path: Path) -> None:
    config = SMALL["dinov2"] | {"image_size": 56}
    AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(tmp_path)
    say = {"size": {"shortest_edge": 48}, "crop_size": {"height": 40, "width": 40}, "do_center_crop": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(say))
    part = TransformersVision.create(LoadSpec(VisionConfig(fit="pad"), tmp_path))
    assert part.card == vision_card(VisionConfig(), lambda: tmp_path)
    assert (part.card.image_size, part.card.tokens) == (40, 26)
    assert (part.image_transform.resize, part.image_transform.fit) == (48, "pad")


@pytest.mark.parametrize(
    ("processor", "settings"),
    [
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.8}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}, "crop_pct": 0.8}),
        ("PoolFormerImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
        ("LevitImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
        ("MobileNetV2ImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
        ("BitImageProcessor", {"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 32}}),
        ("DeiTImageProcessor", {"size": {"height": 48, "width": 48}, "crop_size": {"height": 32, "width": 32}}),
        ("EfficientNetImageProcessor", {"size": {"height": 32, "width": 32}, "image_std": [0.478, 0.473, 0.474]}),
        (
            "EfficientNetImageProcessor",
            {
                "size": {"height": 32, "width": 32},
                "rescale_offset": True,
                "rescale_factor": 1 / 127.5,
                "include_top": False,
            },
        ),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_normalize": False}),
    ],
)
def test_pictures_are_prepared_as_transformers_does(processor: str, settings: dict[str, Any], tmp_path: Path) -> None:
    from n2kit.contract.image_transform import ImageTransform

    theirs = getattr(transformers, processor)(**settings)
    theirs.save_pretrained(tmp_path)
    ours = ImageTransform(**vars(read_processing(tmp_path, IMAGENET)))
    image = noise(60, 60) if processor == "DeiTImageProcessor" else noise(90, 60)
    want, got = theirs(image, return_tensors="pt")["pixel_values"][0], ours(image)
    assert got.shape == want.shape
    assert (got - want).abs().mean() < 0.02 * (1 + want.abs().mean())


@pytest.mark.parametrize("processor", ["CLIPImageProcessor", "SiglipImageProcessor", "ViTImageProcessor"])
def test_pixels_are_within_two_levels_of_the_checkpoints_own_processor(processor: str, tmp_path: Path) -> None:
    theirs = getattr(transformers, processor)()
    theirs.save_pretrained(tmp_path)
    ours = read_transform(tmp_path, FAMILIES["vit"], 224, None)
    assert ours.resizer == "torch"
    image = noise(500, 400)
    want, got = theirs(image, return_tensors="pt")["pixel_values"][0], ours(image)
    levels = 255 * torch.tensor(ours.std)[:, None, None]
    assert ((got - want) * levels).abs().max() < 2.01


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "no vision encoder"),
        ({"model_type": "vitt"}, "no vision encoder"),
        ({"model_type": "vit", "image_size": [32, 64]}, "not square"),
        ({"model_type": "vit", "hidden_size": "wide"}, "hidden_size"),
        (None, "need an architecture"),
    ],
)
def test_bad_architectures_are_named(config: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        TransformersVision.create(LoadSpec(VisionConfig(config=config)))


def test_channels_in_another_order_are_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"do_flip_channel_order": true}')
    with pytest.raises(BadInput, match="do_flip_channel_order"):
        read_processing(tmp_path, IMAGENET)
