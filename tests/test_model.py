"""The joined model: every in-tree pair trains and encodes, mixed batches, frozen parts, calibration, bundles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import n2kit
from n2kit import bundle
from n2kit.data.batch import Reader, collate
from n2kit.data.items import Item
from n2kit.embed import encode
from n2kit.errors import BadInput
from n2kit.manager import manager
from n2kit.model import embedding_sample, rms
from n2kit.prompts import PAD
from n2kit.variants import SPECS

LLMS = [f"{o.spec.name}:{v}" for o in manager().components("llm") for v in o.spec.variants if v.startswith("tiny")]
VISIONS = [f"{o.spec.name}:tiny" for o in manager().components("vision")]
SMALL = {"qformer": "qformer:tiny", "mlp": "mlp:tiny", "linear": "linear:tiny"}


def make(
    llm: str = "qwen:tiny", vision: str = "siglip:tiny", connector: str = "qformer:tiny", **settings: Any
) -> n2kit.Model:
    given = {"variant": settings.pop("variant", None), "loss": settings.pop("loss", None)}
    return n2kit.build(llm, vision, connector=connector, settings={"head.width": 16, **settings}, **given)


def items(count: int = 4) -> list[Item]:
    return [Item(str(n), image=f"{'noto' if n else 'twemoji'}_{n}.png", title="word " * (n + 1)) for n in range(count)]


def batch_for(model: n2kit.Model, wanted: list[Item], images: Path) -> Any:
    made, kept = Reader(model.prompter, model.vision, images)(wanted)
    assert len(kept) == len(wanted)
    return made


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("llm", LLMS)
def test_every_pair_trains_a_step_and_encodes(llm: str, vision: str, workspace: Path) -> None:
    model = make(llm, vision, **{"llm.tune": "full"}).train()
    images = workspace / "images"
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    out = model(batch_for(model, items(), images))
    loss = model.loss(out.views, out.present).loss
    loss.backward()
    assert torch.isfinite(loss)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    lacking = [n for n, p in trained.items() if p.grad is None or not torch.isfinite(p.grad).all()]
    # The LLM's own table is in use only for tokens of the batch, and GPT-2's positions only up to its length; all others get some.
    assert not [n for n in lacking if "probe" not in n], lacking
    assert not any(p.requires_grad for n, p in model.named_parameters() if n.startswith("vision."))
    torch.optim.AdamW(trained.values(), lr=1e-2).step()
    moved = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"llm", "connector", "fusion", "head", "words", "loss"}
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


def test_rows_read_in_groups_are_the_same(workspace: Path) -> None:
    model = make().eval()
    wanted = [Item(str(n), image=f"noto_{1 + n % 9}.png", title="w " * (n % 7)) for n in range(40)]
    made = batch_for(model, wanted, workspace / "images")
    x = model.words.fill(model.llm.embed(made.ids.clamp_min(0)), made.ids)
    real = torch.arange(made.ids.shape[1])[None] <= made.final[:, None]
    torch.testing.assert_close(model.read(x, made.final)[real], model.llm(x)[real], atol=1e-5, rtol=1e-5)


def test_padding_and_later_tokens_change_nothing_before(workspace: Path) -> None:
    model = make().eval()
    made = batch_for(model, items(2), workspace / "images")
    out = model(made)
    made.ids = torch.cat([made.ids, torch.full((2, 5), PAD + 1)], 1)
    torch.testing.assert_close(model(made).views["multimodal"], out.views["multimodal"], atol=1e-5, rtol=1e-5)


def test_batch_without_any_picture() -> None:
    model = make()
    assert model.encode([{"title": "a"}, {"title": "b"}]).shape == (2, 16)
    sequences = [model.prompter(Item("1", title="x"), image=False)]
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
    ratio = float(rms(out.visual_tokens) / rms(embedding_sample(model.llm)))
    assert 0.3 < ratio < 3
    assert abs(float(rms(model.words.table.weight)) / float(rms(embedding_sample(model.llm))) - 1) < 1e-3


@pytest.mark.parametrize("llm", LLMS)
@pytest.mark.parametrize("vision", VISIONS)
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
