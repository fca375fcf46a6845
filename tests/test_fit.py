"""n2kit fit: a bundle whose text and image are joined by whitening, a bundle like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import n2kit
from n2kit import read_items, read_pairs
from n2kit.bundle.io import read_manifest, read_recipe
from n2kit.bundle.manifest import README
from n2kit.data.images import UnreadableImage
from n2kit.data.items import Item, Items
from n2kit.embed import read_vectors
from n2kit.errors import BadInput, Failed, Mismatch
from n2kit.inputs import halves, reader
from n2kit.inputs.feature_cache import FeatureCache
from n2kit.inputs.halves import image_half, text_half
from n2kit.inputs.state_cache import StateCache
from n2kit.modeling.model import Model
from n2kit.whitening import fit, fit_bundle
from n2kit.whitening.select import fitted
from n2kit.whitening.statistics import PairRows

DATA = ("--items", "items.jsonl", "--pairs", "train.csv", "--images", "images")


def load_parts(workspace: Path) -> tuple[Items, Any]:
    items = read_items(workspace / "items.jsonl")
    return items, read_pairs(workspace / "train.csv", items)


def expected(model: Model, items: Items, images: Path, pairs: Any, chosen: Any) -> np.ndarray:
    """The fused vectors by numpy, from the halves of the model's own backbones."""
    assert model.vision is not None
    text = text_half(StateCache(model.llm, 0, torch.float32), model.prompt_builder, items)
    image = image_half(FeatureCache(model.vision, 0, images=images, dtype=torch.float32), items, images)
    left, right = (np.array([items.position[p[side]] for p in pairs]) for side in (0, 1))
    return fitted(chosen, text, image, PairRows(left, right, np.ones(len(left))))(text, image)


@pytest.mark.parametrize(
    ("llm", "vision"),
    [
        ("qwen:tiny", "siglip:tiny"),
        ("bert:tiny", "hf-vision:tiny-swin"),
        ("gpt2:tiny", "timm:tiny-resnet"),
        ("mamba:tiny", "qwen2.5-vl-vision:tiny"),
    ],
)
def test_the_model_gives_what_numpy_gives(llm: str, vision: str, workspace: Path) -> None:
    items, pairs = load_parts(workspace)
    model = n2kit.build(llm, vision, connector="mlp:2", variant="basic")
    made = fit(model, items, pairs, images=workspace / "images", precision="fp32")
    got = made.model.encode(items.items, images=workspace / "images", precision="fp32")
    want = expected(made.model, items, workspace / "images", pairs, made.selection.chosen)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert made.selection.reason == ""
    assert len(made.selection.table) == 267
    assert made.items == {"items": 24, "texts": 24, "images": 24, "text_pairs": 8, "image_pairs": 8}


@pytest.mark.usefixtures("at_workspace")
def test_a_fitted_bundle_is_one_like_any_other(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = cli("fit", tiny_bundle, *DATA, "--val-pairs", "val.csv", "-o", run)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == str(run / "bundle")
    assert "| whitened |" in done.out
    assert "text alone" in done.err
    assert "image alone" in done.err
    bundle, vectors, index = run / "bundle", tmp_path / "v.parquet", tmp_path / "index"
    recipe, manifest = read_recipe(bundle), read_manifest(bundle)
    assert (recipe.variant, recipe.fusion.name, recipe.head.width) == ("late_whitened", "whitened", None)
    assert manifest.trained["fit"]["mrr"] == json.loads((run / "result.json").read_text())["mrr"]
    assert "NoteLLM-2" not in (bundle / README).read_text().replace("not the method of NoteLLM-2", "")
    assert cli("embed", bundle, "--items", "items.jsonl", "--images", "images", "-o", vectors).code == 0
    assert read_vectors(vectors).vectors.shape == (24, manifest.width)
    assert cli("eval", "--vectors", vectors, "--pairs", "test.csv", "--json").code == 0
    assert cli("index", vectors, "-o", index).code == 0
    near = cli("recommend", "--index", index, "--id", "noto:1", "-k", "3", "--json")
    assert near.code == 0, near.err
    assert cli("pack", bundle, "-o", tmp_path / "packed").code == 0
    assert cli("fit", bundle, *DATA, "-o", tmp_path / "again").code == 0  # its own parts, fitted once more


@pytest.mark.usefixtures("at_workspace")
def test_the_adapter_of_a_tuned_bundle_stays_and_can_be_merged(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    trained = cli("train", tiny_bundle, *DATA, "-o", tmp_path / "lora", "--tune", "llm=lora:2", "--max-steps", "2")
    assert trained.code == 0, trained.err
    assert cli("fit", tmp_path / "lora" / "bundle", *DATA, "-o", tmp_path / "run").code == 0
    merged = cli("merge", tmp_path / "run" / "bundle", "-o", tmp_path / "merged")
    assert merged.code == 0, merged.err
    items = read_items("items.jsonl").items
    one, other = (
        n2kit.load(f).encode(items, images="images") for f in (tmp_path / "run" / "bundle", tmp_path / "merged")
    )
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.usefixtures("at_workspace")
def test_the_same_command_again_is_finished_and_another_is_refused(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("fit", tiny_bundle, *DATA, "-o", run).code == 0
    before = (run / "bundle" / "manifest.json").read_bytes()
    again = cli("fit", tiny_bundle, *DATA, "-o", run, "--json")
    assert (again.code, json.loads(again.out)["done_before"]) == (0, True)
    other = cli("fit", tiny_bundle, *DATA, "-o", run, "--width", "8")
    assert other.code == 2
    assert "another width" in other.err
    training = cli("train", tiny_bundle, *DATA, "-o", run, "--max-steps", "1")
    assert training.code == 2
    assert (run / "bundle" / "manifest.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert cli("fit", tiny_bundle, *DATA, "-o", tmp_path / "mine").code == 2


@pytest.mark.usefixtures("at_workspace")
def test_a_training_is_not_fitted_over(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    assert cli("train", tiny_bundle, *DATA, "-o", tmp_path / "run", "--max-steps", "1").code == 0
    done = cli("fit", tiny_bundle, *DATA, "-o", tmp_path / "run")
    assert done.code == 2
    assert "a training" in done.err


@pytest.mark.usefixtures("at_workspace")
def test_without_pairs_it_says_that_nothing_was_chosen(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    done = cli("fit", tiny_bundle, "--items", "items.jsonl", "--images", "images", "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert "nothing was chosen (no pairs)" in done.err
    assert "nobody has measured" in (tmp_path / "run" / "bundle" / README).read_text()


@pytest.mark.parametrize("width", [1, 8, 40])
def test_a_width_keeps_the_scores(width: int, tiny_bundle: Path, workspace: Path) -> None:
    items, pairs = load_parts(workspace)
    whole = fit(n2kit.load(tiny_bundle), items, pairs, images=workspace / "images", precision="fp32")
    narrow = fit(n2kit.load(tiny_bundle), items, pairs, images=workspace / "images", width=width, precision="fp32")
    a, b = (m.model.encode(items.items, images=workspace / "images", precision="fp32") for m in (whole, narrow))
    assert b.shape[1] == width == narrow.model.width
    if width >= len(items):  # as many directions as there are items lose nothing
        np.testing.assert_allclose(b @ b.T, a @ a.T, atol=1e-4)


def test_what_cannot_be_fitted_is_refused(workspace: Path, tiny_bundle: Path) -> None:
    items, pairs = load_parts(workspace)
    with pytest.raises(Mismatch, match="has no vision encoder"):
        fit(n2kit.build("qwen:tiny", variant="text_only"), items, pairs)
    with pytest.raises(BadInput, match=r"width 10000: text and image together are \d+ wide"):
        fit(n2kit.load(tiny_bundle), items, pairs, images=workspace / "images", width=10_000)
    with pytest.raises(BadInput, match="no pairs to fit on"):
        fit(n2kit.load(tiny_bundle), items, val_pairs=pairs, images=workspace / "images")
    with pytest.raises(BadInput, match="no images folder"):
        fit(n2kit.load(tiny_bundle), items, pairs)


@pytest.mark.usefixtures("at_workspace")
@pytest.mark.parametrize("lacks", ["image", "text"])
def test_a_catalogue_of_one_modality(lacks: Any, cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in Path("items.jsonl").read_text().splitlines()]
    gone = ("image",) if lacks == "image" else ("title", "topics", "content", "category")
    rows = [{k: v for k, v in row.items() if k not in gone} for row in lines]
    (tmp_path / "half.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ("--items", tmp_path / "half.jsonl", "--pairs", "train.csv", "--images", "images")
    refused = cli("fit", tiny_bundle, *data, "-o", tmp_path / "run")
    assert (refused.code, refused.out) == (2, "")
    assert f"no item has a {'picture' if lacks == 'image' else 'text'}" in refused.err
    allowed = "--allow-no-images" if lacks == "image" else "--allow-no-texts"
    assert allowed in refused.err
    done = cli("fit", tiny_bundle, *data, allowed, "-o", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert f"no item has {'an image' if lacks == 'image' else 'a text'}" in done.err
    out = tmp_path / "v.parquet"
    assert cli("embed", tmp_path / "run" / "bundle", *data[:2], *data[4:], allowed, "-o", out).code == 0
    np.testing.assert_allclose(np.linalg.norm(read_vectors(out).vectors, axis=1), 1, atol=1e-5)


@pytest.mark.usefixtures("at_workspace")
@pytest.mark.parametrize(("policy", "images"), [("skip", 23), ("text-only", 23), ("error", None)])
def test_an_image_that_cannot_be_read(policy: Any, images: int | None, tiny_bundle: Path, tmp_path: Path) -> None:
    items = read_items("items.jsonl")
    pairs = read_pairs(Path("train.csv"), items)
    broken = tmp_path / "images"
    broken.mkdir()
    for file in Path("images").iterdir():
        (broken / file.name).write_bytes(b"no picture" if file.name == "noto_3.png" else file.read_bytes())
    bundle = n2kit.load(tiny_bundle)
    if images is None:
        with pytest.raises(BadInput, match=r"noto_3\.png"):
            fit(bundle, items, pairs, images=broken)
        return
    made = fit(bundle, items, pairs, images=broken, on_bad_image=policy)
    assert list(made.skipped) == ["noto:3"]
    assert (made.items["images"], made.items["texts"]) == (images, 23 if policy == "skip" else 24)
    assert made.items["text_pairs"] == 8 - (policy == "skip")


@pytest.mark.usefixtures("at_workspace")
def test_an_image_that_can_be_read_later_is_read(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half is kept on disk, also without an image that no decoder knew then."""
    monkeypatch.setenv("N2KIT_CACHE", str(tmp_path))
    items = read_items("items.jsonl")

    def fitted_images() -> int:
        return fit(n2kit.load(tiny_bundle), items, images="images", on_bad_image="text-only").items["images"]

    with monkeypatch.context() as patched:
        real = reader.open_image

        def without_one(item: Item, *given: Any) -> Any:
            if item.id == "noto:3":
                raise UnreadableImage("no decoder")
            return real(item, *given)

        patched.setattr(reader, "open_image", without_one)
        patched.setattr(halves, "open_image", without_one)
        assert (fitted_images(), fitted_images()) == (23, 23)
    assert (fitted_images(), fitted_images()) == (24, 24)


@pytest.mark.usefixtures("at_workspace")
def test_a_backbone_whose_numbers_are_not_finite_is_named(tiny_bundle: Path) -> None:
    model = n2kit.load(tiny_bundle)
    with torch.no_grad():
        for weight in model.llm.parameters():
            weight.fill_(float("nan"))
    items = read_items("items.jsonl")
    with pytest.raises(Failed, match=r"makes numbers of item 'noto:1f600' that are not finite"):
        fit(model, items, images="images")


def test_the_same_inputs_give_the_same_bundle(tiny_bundle: Path, workspace: Path, tmp_path: Path) -> None:
    items, pairs = load_parts(workspace)
    a, b = (fit_bundle(tiny_bundle, items, pairs, tmp_path / n, images=workspace / "images") for n in ("a", "b"))
    assert a.fingerprint == b.fingerprint
    assert a.table == b.table


TRAINED = ("--val-pairs", "val.csv", "--max-steps", "4", "--set", "train.eval_steps=2", "--set", "train.batch_size=4")


@pytest.mark.usefixtures("at_workspace")
@pytest.mark.parametrize("by", ["command", "Python"])
def test_a_training_that_starts_there_never_ends_below_it(by: str, cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    """The start is validated too, and kept where nothing beats it: here, after steps that ruin the LLM."""
    fitted_bundle = tmp_path / "fitted" / "bundle"
    if by == "command":
        assert cli("fit", tiny_bundle, *DATA, "-o", tmp_path / "fitted").code == 0
    else:
        known = load_parts(Path())
        fit(n2kit.load(tiny_bundle), *known, images="images").model.save(fitted_bundle)
    ruin = ("--tune", "llm=last:1", "--lr", "3", "--set", "train.best_metric=mrr")
    done = cli("train", fitted_bundle, *DATA, *TRAINED, *ruin, "-o", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    measured = {e["step"]: e["eval_mrr"] for e in events if e["event"] == "recall"}
    assert list(measured) == [0, 2, 4]
    items = read_items("items.jsonl").items
    start, end = (n2kit.load(f).encode(items, images="images") for f in (fitted_bundle, tmp_path / "run" / "bundle"))
    assert events[-1]["best_step"] == max(measured, key=lambda step: measured[step])
    if events[-1]["best_step"] == 0:
        np.testing.assert_array_equal(start, end)
    assert measured[0] >= measured[4]


@pytest.mark.usefixtures("at_workspace")
def test_an_adapter_changes_nothing_before_it_is_trained(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    assert cli("fit", tiny_bundle, *DATA, "-o", tmp_path / "fitted").code == 0
    fitted_bundle = tmp_path / "fitted" / "bundle"
    recipe = read_recipe(fitted_bundle)
    tuned = recipe.model_copy(update={"llm": recipe.llm.model_copy(update={"tune": "lora:4"})})
    items = read_items("items.jsonl").items
    one, other = (n2kit.load(fitted_bundle, recipe=r).encode(items, images="images") for r in (recipe, tuned))
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.usefixtures("at_workspace")
def test_a_fitted_bundle_with_nothing_to_train_is_refused(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    assert cli("fit", tiny_bundle, *DATA, "-o", tmp_path / "fitted").code == 0
    done = cli("train", tmp_path / "fitted" / "bundle", *DATA, *TRAINED, "-o", tmp_path / "run")
    assert done.code == 2, done.err
    assert "--tune llm=lora:16" in done.err


@pytest.mark.usefixtures("at_workspace")
@pytest.mark.parametrize("llm", ["qwen:tiny", "gpt2:tiny", "mamba:tiny"])
def test_the_joined_path_adds_nothing_before_it_is_trained(llm: str, tmp_path: Path) -> None:
    """Also for items of one modality, after saving, and with a picture that the text's word must not see."""
    items, pairs = load_parts(Path())
    mixed = [*items.items, Item("text", title="red oak chair"), Item("picture", image=items.items[0].image)]
    vectors = {}
    for variant in ("late_whitened", "joined_whitened"):
        model = n2kit.build(llm, "siglip:tiny", connector="qformer:2", settings={"prompt.template": "compact"})
        made = fit(model, items, pairs, images="images", precision="fp32", variant=variant)  # type: ignore[arg-type]
        made.model.save(tmp_path / variant)
        loaded = n2kit.load(tmp_path / variant)
        vectors[variant] = loaded.encode(mixed, images="images", precision="fp32")
    np.testing.assert_allclose(vectors["joined_whitened"], vectors["late_whitened"], atol=1e-5)  # longer rows
    text = loaded.prompt_builder.render(items.items[0], image=True)
    assert text.index("<TEXT_EMB>") < text.index("<IMG>")
    torch.nn.init.normal_(loaded.residual.weight)  # type: ignore[union-attr]
    moved = np.abs(loaded.encode(mixed, images="images", precision="fp32") - vectors["late_whitened"]).max(1)
    assert (moved > 1e-4).all()


@pytest.mark.usefixtures("at_workspace")
def test_training_the_joined_path_begins_at_the_fitted_vectors(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    """The connector, whose gradient is zero as long as the projection is, learns from the second step on."""
    fitted_run, trained = tmp_path / "fitted", tmp_path / "trained"
    assert cli("fit", tiny_bundle, *DATA, "--variant", "joined_whitened", "-o", fitted_run).code == 0
    flags = ("--val-pairs", "val.csv", "--max-steps", "3", "--batch-size", "4", "--set", "train.new_lr=0.01")
    done = cli("train", fitted_run, *DATA, *flags, "--set", "train.keep_best=false", "-o", trained)
    assert (done.code, "(of the last step; step" in done.err) == (0, True), done.err
    before, after = n2kit.load(fitted_run), n2kit.load(trained)
    assert before.residual is not None
    assert after.residual is not None
    assert not before.residual.weight.any()
    assert after.residual.weight.any()
    assert before.connector is not None
    assert after.connector is not None
    names = [n for n, p in before.connector.named_parameters() if not torch.equal(p, after.connector.get_parameter(n))]
    assert names
    again = cli("fit", tiny_bundle, *DATA, "-o", fitted_run)
    assert again.code == 2
    assert "another variant (joined_whitened, now late_whitened)" in again.err


def test_the_joined_path_needs_a_connector_and_a_causal_llm(workspace: Path) -> None:
    items, pairs = load_parts(workspace)
    for settings, said in (
        ({"llm": "qwen:tiny", "variant": "only_late_fusion"}, "has no connector"),
        ({"llm": "bert:tiny", "variant": "basic"}, "needs a causal LLM"),
    ):
        model = n2kit.build(settings["llm"], "clip:tiny", connector="mlp:2", variant=settings["variant"])
        with pytest.raises(Mismatch, match=said):
            fit(model, items, pairs, images=workspace / "images", variant="joined_whitened")
