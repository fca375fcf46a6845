"""open_clip's image towers: the same vectors as open_clip's own, from whole checkpoints, without the text tower."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from n2kit.contract.interfaces import LoadSpec
from n2kit.errors import BadInput
from n2kit.plugins.catalogue import Catalogue
from n2kit.plugins.manager import Manager
from n2kit_open_clip import TINY
from n2kit_open_clip.cards import card
from n2kit_open_clip.config import OpenClipConfig, pretrained
from n2kit_open_clip.vision import OpenClipVision, tower


class Owner(NamedTuple):
    """The name and the version of a distribution."""

    name: str
    version: str


TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N2KIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def catalogue() -> Catalogue:
    point = EntryPoint("open_clip", "n2kit_open_clip", "n2kit")
    vars(point).update(dist=Owner("n2kit", "0"))
    made = Manager([point])
    assert not made.broken()
    return Catalogue(made, [])


def pixels(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def whole(folder: Path, name: str, **preprocess: Any) -> Any:
    """A checkpoint of two towers as open_clip puts it on the hub."""
    config = TINY[name][0]
    model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], TEXT).eval()  # type: ignore[arg-type]
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    facts = {"model_cfg": config | {"text_cfg": TEXT}, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(facts))
    return model


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_tiny_presets(catalogue: Catalogue, name: str, tmp_path: Path) -> None:
    component = catalogue.resolve("vision", f"open_clip:{name}")
    part: OpenClipVision = component.cls().create(LoadSpec(component.config())).freeze()
    assert component.declared == part.card == card(component.config(), lambda: None)
    part.train()
    assert not any(module.training for module in part.modules())
    x = pixels(2, part.card.image_size)
    out = part(x)
    assert out.tokens.shape == (2, part.card.tokens, part.card.token_width)
    assert out.pooled is not None
    torch.testing.assert_close(out.pooled, part.visual(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part(x[1:]).tokens, out.tokens[1:], rtol=1e-4, atol=1e-5)
    part.save(tmp_path)
    again = OpenClipVision.load(tmp_path).freeze()
    assert again.card == part.card
    assert all(a.equal(b) for a, b in zip(part.state_dict().values(), again.state_dict().values(), strict=True))
    assert again(x).tokens.equal(out.tokens)
    assert part.bfloat16()(x).tokens.isfinite().all()
    blocks: list[int] = []
    for n, block in enumerate(again.blocks()):
        block.register_forward_hook(lambda *_, n=n: blocks.append(n))
    again(x)
    assert blocks == list(range(len(blocks)))
    assert blocks


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_a_whole_checkpoint_gives_what_open_clip_computes(catalogue: Catalogue, name: str, tmp_path: Path) -> None:
    theirs = whole(
        tmp_path / "hub", name, mean=[0.5] * 3, std=[0.25] * 3, resize_mode="squash", interpolation="bilinear"
    )
    component = catalogue.resolve("vision", f"open_clip@file:{tmp_path / 'hub'}")
    ours = component.cls().create(LoadSpec(component.config(), component.weights.locate())).eval()
    assert component.card() == ours.card
    image = Image.effect_noise((90, 60), 80).convert("RGB")
    x = ours.transform(image)[None]
    torch.testing.assert_close(ours(x).pooled, theirs.encode_image(x), rtol=1e-4, atol=1e-5)
    transform = ours.image_transform
    assert (transform.fit, transform.mean, transform.std) == ("squash", (0.5,) * 3, (0.25,) * 3)
    assert transform.resample == Image.Resampling.BILINEAR


def test_pictures_are_prepared_as_open_clip_does() -> None:
    ours = OpenClipVision.create(LoadSpec(OpenClipConfig(config=TINY["tiny"][0])))
    theirs = open_clip.image_transform(32, is_train=False)
    image = Image.effect_noise((6, 6), 80).convert("RGB").resize((90, 60), Image.Resampling.BICUBIC)
    assert (ours.transform(image) - theirs(image)).abs().mean() < 0.02  # type: ignore[operator]


def test_position_embeddings_fit_another_picture_size(tmp_path: Path) -> None:
    whole(tmp_path / "hub", "tiny")
    config = OpenClipConfig(image_size=64)
    part = OpenClipVision.create(LoadSpec(config, tmp_path / "hub"))
    assert part.card == card(config, lambda: tmp_path / "hub")
    assert (part.card.tokens, part.card.image_size) == (65, 64)
    with pytest.raises(BadInput, match="plain transformers alone"):
        OpenClipVision.create(LoadSpec(OpenClipConfig(config=TINY["tiny-resnet"][0], image_size=96)))


def test_weights_of_another_tower_are_refused(tmp_path: Path) -> None:
    whole(tmp_path / "hub", "tiny")
    file = tmp_path / "hub" / "open_clip_model.safetensors"
    with pytest.raises(BadInput, match="not of this tower"):
        OpenClipVision.create(LoadSpec(OpenClipConfig(config=TINY["tiny-resnet"][0]), file))
    file.write_bytes(b"nothing")
    with pytest.raises(BadInput, match="not readable as weights"):
        OpenClipVision.create(LoadSpec(OpenClipConfig(), tmp_path / "hub"))


def test_names_lead_to_weights_on_the_hub(catalogue: Catalogue) -> None:
    component = catalogue.resolve("vision", "open_clip:ViT-B-32/laion2b_s34b_b79k")
    assert str(component.weights) == "hf:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert component.reference == "open_clip:ViT-B-32/laion2b_s34b_b79k"
    assert component.card().pooled_width == 512  # type: ignore[union-attr]
    sourced = catalogue.resolve("vision", "open_clip:ViT-B-32/openai@random")
    assert (sourced.config().arch, sourced.config().pretrained) == ("ViT-B-32", "openai")


def test_the_catalogues_cards_are_those_of_the_architectures(catalogue: Catalogue) -> None:
    for preset in catalogue.presets("vision", "open-clip"):
        component = catalogue.resolve("vision", f"open-clip:{preset}")
        assert component.declared == card(component.config(), lambda: None), preset
        if not preset.startswith("tiny"):
            assert f"{component.weights}".removesuffix("@main") == pretrained(preset).weights


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("ViT-B-33/openai", "no model 'ViT-B-33'", "did you mean"),
        ("ViT-B-32/laion2b", "no weights 'laion2b'", "laion2b_"),
        ("ViT-B-32", "which weights", "ViT-B-32/openai"),
        ("ViTamin-S/datacomp1b", "pickle", "@file:"),
    ],
)
def test_names_that_lead_nowhere(name: str, message: str, hint: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        pretrained(name)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("config", [{"arch": "ViT-B-33"}, {}, {"config": {"embed_dim": 8, "vision_cfg": {"wings": 2}}}])
def test_bad_architectures_are_named(config: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="open_clip"):
        OpenClipVision.create(LoadSpec(OpenClipConfig(**config)))


def test_openai_weights_get_their_own_activation() -> None:
    """They were trained with QuickGELU, which the architecture's file does not say."""
    config = OpenClipConfig(arch="ViT-B-32/openai")
    assert open_clip.get_pretrained_cfg(config.arch, config.pretrained)["quick_gelu"]  # type: ignore[arg-type]
    found = {"embed_dim": 8, "vision_cfg": TINY["tiny"][0]["vision_cfg"], "quick_gelu": True}
    assert any(type(module).__name__ == "QuickGELU" for module in tower(found).modules())


def test_towers_that_nobody_knows_are_refused() -> None:
    with pytest.raises(BadInput, match="Linear"):
        OpenClipVision(torch.nn.Linear(2, 2), {}, SimpleNamespace(size=32))  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", ["EVA02-B-16", "coca_ViT-B-32", "RN50", "convnext_base_w", "ViT-B-16-SigLIP2"])
def test_listed_architectures_have_cards_without_torch_once_measured(arch: str) -> None:
    want = card(OpenClipConfig(arch=arch), lambda: None)
    assert want.grid is not None
    code = (
        "import sys; from n2kit_open_clip.cards import card; from n2kit_open_clip.config import OpenClipConfig\n"
        f"print(card(OpenClipConfig(arch={arch!r}, fit='pad'), None))\n"
        "assert not {'torch', 'open_clip', 'timm', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(want), done.stderr
