"""The joined model: every backbone trains and encodes, mixed batches, frozen parts, calibration, bundles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import n2kit
from n2kit.bundle import io as bundle
from n2kit.data.items import Item
from n2kit.embed import encode
from n2kit.errors import BadInput
from n2kit.inputs.reader import Reader
from n2kit.modeling.batch import collate
from n2kit.modeling.model import embedding_sample, rms
from n2kit.modeling.prompts import PAD
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.manager import manager
from n2kit.recipe.variants import SPECS

LLMS = [f"{o.spec.name}:{v}" for o in manager().components("llm") for v in o.spec.presets if v.startswith("tiny")]
VISIONS = [f"{o.spec.name}:tiny" for o in manager().components("vision")]
# Each of both at least once; that all of them fit all others is test_matrix's.
PAIRS = [(LLMS[n % len(LLMS)], VISIONS[n % len(VISIONS)]) for n in range(max(len(LLMS), len(VISIONS)))]
SMALL = {"qformer": "qformer:tiny", "mlp": "mlp:tiny", "linear": "linear:tiny"}


def make(
    llm: str = "qwen:tiny", vision: str = "siglip:tiny", connector: str = "qformer:tiny", **settings: Any
) -> n2kit.Model:
    given = {
        "variant": settings.pop(
            "variant", None if default_catalogue().resolve("llm", llm).card().causal else "late_early_fusion"
        ),
        "loss": settings.pop("loss", None),
    }
    return n2kit.build(llm, vision, connector=connector, settings={"head.width": 16, **settings}, **given)


def items(count: int = 4) -> list[Item]:
    return [Item(str(n), image=f"{'noto' if n else 'twemoji'}_{n}.png", title="word " * (n + 1)) for n in range(count)]


def batch_for(model: n2kit.Model, wanted: list[Item], images: Path) -> Any:
    made, kept = Reader(model.prompt_builder, model.vision, images)(wanted)
    assert len(kept) == len(wanted)
    return made


@pytest.mark.parametrize(("llm", "vision"), PAIRS)
def test_every_part_trains_a_step_and_encodes(llm: str, vision: str, workspace: Path) -> None:
    model = make(llm, vision, **{"llm.tune": "full"}).train()
    images = workspace / "images"
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    out = model(batch_for(model, items(), images))
    loss = model.loss(out.views, out.present).loss
    loss.backward()
    assert torch.isfinite(loss)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    lacking = [n for n, p in trained.items() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not lacking
    assert not any(p.requires_grad for n, p in model.named_parameters() if n.startswith("vision."))
    torch.optim.AdamW(trained.values(), lr=1e-2).step()
    moved = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"llm", "connector", "fusion", "head", "special_tokens", "loss"}
    vectors = model.encode(items(), images=images)
    assert vectors.shape == (4, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    alone = model.encode(items()[2:3], images=images, precision="fp32")
    np.testing.assert_allclose(alone[0], model.encode(items(), images=images, precision="fp32")[2], atol=1e-5)


@pytest.mark.parametrize("variant", SPECS)
@pytest.mark.parametrize("connector", SMALL)
def test_every_variant_reads_what_it_says(variant: str, connector: str, workspace: Path) -> None:
    spec, images = SPECS[variant], workspace / "images"
    model = make(variant=variant, connector=SMALL[connector] if spec.early else None)  # type: ignore[arg-type]
    base = model.encode([{"image": "noto_1.png", "title": "a"}], images=images)
    other_image = model.encode([{"image": "noto_9.png", "title": "a"}], images=images)
    other_text = model.encode([{"image": "noto_1.png", "title": "b"}], images=images)
    assert (not np.allclose(base, other_image, atol=1e-6)) == spec.image
    assert (not np.allclose(base, other_text, atol=1e-6)) == spec.text


def test_mixed_batch_equals_single_items(workspace: Path) -> None:
    """Items with both, with a text only, with a picture only: each as if it were alone."""
    model = make()
    mixed = [
        Item("both", image="noto_1.png", title="both of them"),
        Item("text", title="no picture"),
        Item("image", image="noto_2.png"),
        Item("long", image="noto_3.png", content="far longer than the others " * 4),
    ]
    options: dict[str, Any] = {"images": workspace / "images", "precision": "fp32"}
    together = encode(model, mixed, **options)
    for row, item in enumerate(mixed):
        np.testing.assert_allclose(encode(model, [item], **options).vectors[0], together.vectors[row], atol=2e-6)
    assert together.visual is not None
    assert np.isnan(together.visual).any(1).tolist() == [False, True, True, False]


def test_padding_and_later_tokens_change_nothing_before(workspace: Path) -> None:
    model = make().eval()
    made = batch_for(model, items(2), workspace / "images")
    out = model(made)
    made.ids = torch.cat([made.ids, torch.full((2, 5), PAD + 1)], 1)
    torch.testing.assert_close(model(made).views["multimodal"], out.views["multimodal"], atol=1e-5, rtol=1e-5)


def test_batch_without_any_picture() -> None:
    model = make()
    assert model.encode([{"title": "a"}, {"title": "b"}]).shape == (2, 16)
    sequences = [model.prompt_builder(Item("1", title="x"), image=False)]
    out = model(collate(sequences, []))
    assert out.visual_tokens is None
    assert not out.present["visual"].any()


def test_frozen_stays_frozen(workspace: Path) -> None:
    """BatchNorm would drift with requires_grad=False alone."""
    model = make(vision="timm:tiny", **{"llm.tune": "frozen"})
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    assert not model.vision.training  # type: ignore[union-attr]
    for _ in range(2):
        out = model(batch_for(model, items(), workspace / "images"))
        model.loss(out.views).loss.backward()
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    for name, value in model.state_dict().items():
        if name.startswith(("llm.", "vision.")):
            assert torch.equal(value, before[name]), name


def test_tuned_vision_gets_gradients(workspace: Path) -> None:
    model = make(**{"vision.tune": "full"}).train()
    out = model(batch_for(model, items(), workspace / "images"))
    model.loss(out.views).loss.backward()
    assert (
        sum(p.grad.abs().sum() for n, p in model.named_parameters() if n.startswith("vision.") and p.grad is not None)
        > 0
    )


def test_connector_starts_at_the_scale_of_the_embeddings(workspace: Path) -> None:
    model = make(connector="mlp:tiny")
    out = model(batch_for(model, items(), workspace / "images"))
    ratio = (rms(out.visual_tokens) / rms(embedding_sample(model.llm))).item()
    assert 0.3 < ratio < 3
    assert abs((rms(model.special_tokens.table.weight) / rms(embedding_sample(model.llm))).item() - 1) < 1e-3


@pytest.mark.parametrize(("llm", "vision"), PAIRS)
def test_bundles_load_bit_equal(llm: str, vision: str, workspace: Path, tmp_path: Path) -> None:
    model = make(llm, vision)
    model.save(tmp_path / "b")
    again = n2kit.load(tmp_path / "b")
    want, got = model.state_dict(), again.state_dict()
    assert want.keys() == got.keys()
    assert all(torch.equal(want[k], got[k]) for k in want)
    options: dict[str, Any] = {"images": workspace / "images"}
    np.testing.assert_array_equal(model.encode(items(), **options), again.encode(items(), **options))
    assert not list((tmp_path / "b").rglob("*.bin")) + list((tmp_path / "b").rglob("*.pt"))


def test_fingerprints_follow_what_decides_the_vectors(tmp_path: Path) -> None:
    first = bundle.save(make(), tmp_path / "1")
    assert bundle.save(make(), tmp_path / "2").fingerprint == first.fingerprint
    assert bundle.save(make(**{"train.seed": 1}), tmp_path / "3").fingerprint != first.fingerprint
    assert bundle.save(make(**{"prompt.template": "zh"}), tmp_path / "4").fingerprint != first.fingerprint
    assert bundle.save(make(**{"vision.fit": "pad"}), tmp_path / "5").fingerprint != first.fingerprint


def test_damaged_bundles_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no bundle"):
        n2kit.load(tmp_path)
    shutil.copytree(tiny_bundle, tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(BadInput, match="format 99"):
        n2kit.load(tmp_path / "b")
    with pytest.raises(BadInput, match="exists"):
        bundle.save(make(), tmp_path / "b")


def test_seed_decides_the_new_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        return make(**{"train.seed": seed}).head.weight.detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_encode_works_by_position(workspace: Path) -> None:
    """The same item twice, two items of one id, items without ids: a row each, in order."""
    model = make()
    options: dict[str, Any] = {"images": workspace / "images", "precision": "fp32"}
    one, two = {"id": "x", "image": "noto_1.png", "title": "a"}, {"id": "x", "image": "noto_9.png", "title": "a"}
    rows = model.encode([one, two, one, {"title": "b"}, {"id": "0", "title": "c"}], **options)
    assert rows.shape == (5, 16)
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-6)
    np.testing.assert_allclose(rows[1], model.encode([two], **options)[0], atol=1e-6)
    assert not np.allclose(rows[0], rows[1], atol=1e-4)
    with pytest.raises(BadInput, match="leaves items out"):
        model.encode([one], on_bad_image="skip", **options)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="no images folder") as caught:
        model.encode([one])
    assert caught.value.hint == "images=…"
    with pytest.raises(BadInput) as caught:
        model.encode([{"image": "nowhere.png"}], images=workspace / "images")
    assert "on_bad_image=" in (caught.value.hint or "")
    assert "--" not in (caught.value.hint or "")


def test_a_bundle_holds_its_own_prompts(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    text = "basic: '<IMG> {title}'\nmicl: '<IMG> <IMG_EMB> {title}'\ntext: '{title}'\nimage: '<IMG>'\nsuffix: ' = '\n"
    file.write_text(text)
    model = make(**{"prompt.template": str(file)})
    first = bundle.save(model, tmp_path / "1")
    want = model.encode(items(), images=workspace / "images")
    file.write_text(text.replace(" = ", " is "))
    assert bundle.save(make(**{"prompt.template": str(file)}), tmp_path / "2").fingerprint != first.fingerprint
    file.unlink()
    np.testing.assert_array_equal(n2kit.load(tmp_path / "1").encode(items(), images=workspace / "images"), want)


def test_a_truncated_bundle_is_damaged_and_no_bug(tiny_bundle: Path, tmp_path: Path) -> None:
    for number, name in enumerate(
        ("llm/model.safetensors", "connector/model.safetensors", "joint.safetensors", "prompt.json")
    ):
        folder = tmp_path / str(number)
        shutil.copytree(tiny_bundle, folder)
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
        with pytest.raises(BadInput):
            n2kit.load(folder)


def test_null_is_a_value(tmp_path: Path) -> None:
    model = make(**{"head.width": None})
    assert model.width == model.llm.card.output_width
    bundle.save(model, tmp_path / "b")
    assert n2kit.load(tmp_path / "b").encode([{"title": "x"}]).shape == (1, model.width)


def test_weights_in_bfloat16_are_computed_in_what_is_asked_for(workspace: Path, tmp_path: Path) -> None:
    model = make()
    for parameter in model.llm.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    wide = make()
    wide.llm.load_state_dict({k: v.float() for k, v in model.llm.state_dict().items()})
    options: dict[str, Any] = {"images": workspace / "images", "precision": "fp32"}
    np.testing.assert_allclose(model.encode(items(), **options), wide.encode(items(), **options), atol=1e-6)


def test_hugging_face_folders_load_by_file(workspace: Path, tmp_path: Path) -> None:
    """Folders that save_pretrained writes: a causal LM with its head, and a whole CLIP, of which only the tower is read."""
    from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM

    from n2kit_hf.tiny import byte_tokenizer

    config = LlamaConfig(
        vocab_size=512,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llm")
    byte_tokenizer(config).save_pretrained(tmp_path / "llm")
    tower = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    whole = CLIPModel(CLIPConfig(vision_config=tower, text_config=text))
    whole.save_pretrained(tmp_path / "clip")
    model = make(f"file:{tmp_path / 'llm'}", f"file:{tmp_path / 'clip'}")
    assert model.llm.card.layers == 3
    assert model.vision is not None
    pixels = torch.randn(2, 3, 32, 32)
    want = whole.vision_model(pixels).last_hidden_state
    torch.testing.assert_close(model.vision(pixels).tokens, want)
    assert model.encode(items(), images=workspace / "images").shape == (4, 16)


def test_timm_weights_of_another_image_size_are_fitted(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    made = timm.create_model("test_vit", num_classes=0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    model = make(vision=f"timm:test_vit@file:{tmp_path / 'w.safetensors'}", **{"vision.image_size": 96})
    assert model.vision is not None
    assert model.vision.card.image_size == 96
    assert model.vision.card.tokens < made.forward_features(torch.zeros(1, 3, 160, 160)).shape[1]
    with pytest.raises(BadInput, match="tensors that are not those"):
        make(vision=f"timm:test_efficientnet@file:{tmp_path / 'w.safetensors'}")


def test_models_that_read_both_ways_are_joined_without_micl(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image's compressed word would see the text behind it; all other variants read a padded row as if it were alone."""
    with pytest.raises(BadInput, match="needs a causal LLM, and llm bert:tiny reads both ways"):
        make("bert:tiny", variant="notellm2")
    model = make("bert:tiny", variant="late_early_fusion")
    assert not model.llm.card.causal
    titles = [{"title": "word " * n} for n in (1, 9)]
    options: dict[str, Any] = {"precision": "fp32"}
    np.testing.assert_allclose(model.encode(titles, **options)[0], model.encode(titles[:1], **options)[0], atol=1e-6)
    # A card that is wrong about it is found when the weights are there.
    monkeypatch.setattr("n2kit_hf.traits.ENCODERS", frozenset())
    config = {
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 512,
    }
    with pytest.raises(BadInput, match="reads both ways, and its card says causal"):
        make("hf:tiny", **{"llm.config": config | {"intermediate_size": 64, "max_position_embeddings": 512}})
