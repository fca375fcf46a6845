"""Multimodal LLMs taken apart: the parts compute what the whole does, and work in every variant as n2kit's own."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

import n2kit
from n2kit import builder as assemble
from n2kit.bundle import io as bundle
from n2kit.contract.interfaces import DecomposedMLLM, LoadSpec
from n2kit.data.items import Item
from n2kit.embed import encode
from n2kit.errors import BadInput, Mismatch
from n2kit.inputs.reader import Reader
from n2kit.planning.planner import make_plan
from n2kit.plugins.catalogue import Catalogue
from n2kit.plugins.manager import Manager
from n2kit.recipe.settings import resolve
from n2kit.recipe.variants import SPECS
from n2kit_hf.tiny import byte_tokenizer
from n2kit_mllm import tiny
from n2kit_mllm.text import multimodal_positions
from n2kit_mllm.tower import QwenTower, patches

NAMES = {
    "qwen2.5-vl": tiny.QWEN25, "qwen2-vl": tiny.QWEN2, "qwen3-vl": tiny.QWEN3, "llava": tiny.LLAVA, "blip-2": tiny.BLIP2,
    "gemma-3": tiny.GEMMA3, "internvl": tiny.INTERNVL, "smolvlm": tiny.SMOLVLM,
    "gemma-4": tiny.GEMMA4,
}  # fmt: skip
SIGLIP = {"vision_config": tiny.LLAVA["vision_config"] | {"model_type": "siglip_vision_model"}}
IDEFICS = tiny.SMOLVLM | {"model_type": "idefics3"}
CASES = NAMES | {
    "smolvlm as idefics3": IDEFICS,
    # As the larger ones: no embeddings of layers, and a picture's tokens see each other in layers of a window.
    "gemma-4 as 31b": tiny.GEMMA4
    | {
        "text_config": tiny.GEMMA4["text_config"]
        | {"hidden_size_per_layer_input": 0, "use_bidirectional_attention": "vision"}
    },
    "llava with siglip": tiny.LLAVA | SIGLIP | {"vision_feature_select_strategy": "full"},
}
IMAGE_ID = 5
WITH_POOLED = ("llava", "blip-2", "internvl")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    class Dist:
        name, version = "n2kit", "0.1"

    point = EntryPoint("mllm", "n2kit_mllm", "n2kit")
    vars(point).update(dist=Dist())
    others = [p for p in entry_points(group="n2kit") if p.name != "mllm"]
    return Catalogue(Manager([point, *others]), [])


@pytest.fixture(autouse=True)
def _installed(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2kit.planning.planner.default_catalogue", lambda: catalogue)
    monkeypatch.setattr(bundle, "manager", lambda: catalogue.plugins)


def create(catalogue: Catalogue, name: str, source: str = "", kind: Any = "mllm", **options: Any) -> Any:
    component = catalogue.resolve(kind, f"{name}:tiny{source}")
    config = component.config().model_copy(update=options)
    return component.cls().create(LoadSpec(config, component.weights.locate()))


def build(name: str, variant: str = "basic", **settings: Any) -> n2kit.Model:
    return n2kit.build(mllm=f"{name}:tiny", variant=variant, settings={"head.width": 16, **settings}).eval()


def upstream(name: str) -> Any:
    """The whole as transformers makes it, with every weight drawn large enough to be seen."""
    facts = dict(CASES[name])
    torch.manual_seed(1)
    whole = AutoModelForImageTextToText.from_config(AutoConfig.for_model(facts.pop("model_type"), **facts)).eval()
    for parameter in whole.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return whole


def save_whole(name: str, folder: Path) -> Any:
    whole = upstream(name)
    whole.save_pretrained(folder)
    byte_tokenizer(whole.config).save_pretrained(folder)
    return whole


def whole_states(whole: Any, ids: Tensor, pixels: Tensor) -> Tensor:
    """Compute what transformers' own forward gives for rows of ids whose image tokens are IMAGE_ID."""
    kind = whole.config.model_type
    if kind.startswith("qwen"):
        vision = whole.config.vision_config
        side = pixels.shape[-1] // vision.patch_size
        flat = patches(pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        grids = torch.tensor([[1, side, side]] * len(pixels))
        seen = (ids == IMAGE_ID).int()
        out = whole.model(input_ids=ids, pixel_values=flat, image_grid_thw=grids, mm_token_type_ids=seen)
        return out.last_hidden_state  # type: ignore[no-any-return]
    if kind == "gemma3":
        seen = (ids == IMAGE_ID).long()
        return whole.model(input_ids=ids, pixel_values=pixels, token_type_ids=seen).last_hidden_state  # type: ignore[no-any-return]
    if kind == "gemma4":
        patch = whole.config.vision_config.patch_size
        side = pixels.shape[-1] // patch
        flat = (
            pixels.unfold(2, patch, patch)
            .unfold(3, patch, patch)
            .permute(0, 2, 3, 4, 5, 1)
            .reshape(len(pixels), side**2, -1)
        )
        places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).flip(1).expand(len(pixels), -1, -1)
        seen = (ids == IMAGE_ID).long()
        given = {"pixel_values": flat, "image_position_ids": places, "mm_token_type_ids": seen}
        return whole.model(input_ids=ids, **given).last_hidden_state  # type: ignore[no-any-return]
    if kind in ("llava", "internvl", "smolvlm", "idefics3"):
        pictures = pixels[:, None] if kind in ("smolvlm", "idefics3") else pixels
        return whole.model(input_ids=ids, pixel_values=pictures).last_hidden_state  # type: ignore[no-any-return]
    out = whole(input_ids=ids, pixel_values=pixels, output_hidden_states=True)
    return out.language_model_outputs.hidden_states[-1]  # type: ignore[no-any-return]


def rows(joined: DecomposedMLLM, starts: list[int], long: int) -> tuple[Tensor, Tensor]:
    """Ids [B, T] as transformers wants them, with a picture at `starts`, and where visual tokens stand."""
    ids = 10 + torch.randint(400, (len(starts), long), generator=torch.Generator().manual_seed(2))
    image = torch.zeros_like(ids, dtype=torch.bool)
    many = joined.connector.tokens
    wrapped = "image" in joined.llm.extra_inputs
    for row, start in enumerate(starts):
        image[row, start : start + many] = True
        ids[row, start : start + many] = IMAGE_ID
        if wrapped:
            ids[row, start], ids[row, start + many - 1] = 3, 4
    return ids, image


def our_states(joined: DecomposedMLLM, ids: Tensor, image: Tensor, pixels: Tensor) -> Tensor:
    seen = joined.vision(pixels)
    tokens = joined.connector(seen.tokens, seen.mask)
    x = joined.llm.embed(ids).masked_scatter(image[..., None], tokens)
    facts = {"image": image} if "image" in joined.llm.extra_inputs else {}
    return joined.llm(x, **facts)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CASES)
def test_parts_compute_what_the_whole_does(name: str, catalogue: Catalogue, tmp_path: Path) -> None:
    """Text, picture, text: pictures at other places in each row, through a folder as save_pretrained writes it."""
    whole = save_whole(name, tmp_path)
    joined = create(catalogue, name.split()[0], f"@file:{tmp_path}")
    size = joined.vision.card.image_size
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(3))
    ids, image = rows(joined, [0, 4, 9], 40)
    with torch.no_grad():
        want = whole_states(whole, ids, pixels)
        got = our_states(joined, ids, image, pixels)
        mixed = whole_states(whole, ids, pixels.flip(0))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(mixed, want, atol=1e-3)  # the pictures are seen at all


@pytest.mark.parametrize("name", ["qwen2.5-vl", "qwen2-vl", "qwen3-vl"])
def test_text_alone_is_read_as_the_whole_reads_it(name: str, catalogue: Catalogue, tmp_path: Path) -> None:
    whole = save_whole(name, tmp_path)
    llm = create(catalogue, name, f"@file:{tmp_path}").llm
    ids = torch.arange(20, 50)[None]
    with torch.no_grad():
        want = whole.model(input_ids=ids).last_hidden_state
        for facts in ({}, {"image": torch.zeros_like(ids, dtype=torch.bool)}):
            torch.testing.assert_close(llm(llm.embed(ids), **facts), want, atol=1e-5, rtol=1e-5)


def test_positions_are_those_of_the_library() -> None:
    """Rows with a picture at the start, in the middle, at the end, and without one."""
    whole = upstream("qwen2.5-vl")
    image = torch.zeros(4, 30, dtype=torch.bool)
    for row, start in enumerate((0, 7, 12)):
        image[row, start : start + 18] = True
    inner = image & image.roll(1, 1) & image.roll(-1, 1)
    inner[:, [0, -1]] = False
    grids = torch.tensor([[1, 8, 8]] * 3)
    want, _ = whole.model.get_rope_index(torch.zeros(4, 30, dtype=torch.long), inner.int(), grids)
    torch.testing.assert_close(multimodal_positions(image), want)


def test_qwen_pictures_are_prepared_as_its_processor_does(catalogue: Catalogue) -> None:
    processing = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    processor = processing.Qwen2VLImageProcessor(patch_size=8)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    want = processor(Image.fromarray(noise), do_resize=False, return_tensors="pt")["pixel_values"]
    vision: QwenTower = create(catalogue, "qwen2.5-vl-vision", kind="vision")
    got = patches(vision.transform(Image.fromarray(noise))[None], 8, 2, 2)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", SPECS)
@pytest.mark.parametrize("name", NAMES)
def test_every_variant_reads_what_it_says(name: str, variant: str, workspace: Path) -> None:
    spec, images = SPECS[variant], workspace / "images"
    settings = {"mllm.pool": "mean"} if spec.late and name not in WITH_POOLED else {}
    model = build(name, variant, **settings)
    for parameter in model.parameters():  # tiny random weights are too small to show much
        parameter.data.mul_(3)
    parts = {kind for kind, _ in model.parts.items()}
    assert ("vision" in parts, "connector" in parts, "fusion" in parts) == (spec.image, spec.early, spec.late)
    base, image, text = (
        model.encode([{"image": i, "title": t}], images=images)
        for i, t in (("noto_1.png", "a"), ("noto_9.png", "a"), ("noto_1.png", "b"))
    )
    assert (not np.allclose(base, image, atol=1e-6)) == spec.image
    assert (not np.allclose(base, text, atol=1e-6)) == spec.text


@pytest.mark.parametrize("name", NAMES)
def test_a_step_trains_and_the_bundle_is_bit_equal(name: str, workspace: Path, tmp_path: Path) -> None:
    settings = {"llm.tune": "full"} | ({} if name in WITH_POOLED else {"mllm.pool": "mean"})
    model = build(name, "notellm2", **settings).train()
    items = [Item(str(n), image=f"noto_{n + 1}.png", title="word " * (n + 1)) for n in range(4)]
    batch, _ = Reader(model.prompt_builder, model.vision, workspace / "images")(items)
    out = model(batch)
    loss = model.loss(out.views, out.present).loss
    loss.backward()
    assert loss.isfinite()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    lacking = [n for n, p in trained.items() if p.grad is None or not p.grad.isfinite().all()]
    assert not lacking
    assert {n.split(".")[0] for n in trained} == {"llm", "connector", "fusion", "head", "special_tokens", "loss"}
    torch.optim.SGD(trained.values(), lr=0.1).step()
    model.save(tmp_path / "b")
    again = n2kit.load(tmp_path / "b")
    want, got = model.state_dict(), again.state_dict()
    assert want.keys() == got.keys()
    assert all(torch.equal(want[k], got[k]) for k in want)
    options: dict[str, Any] = {"images": workspace / "images"}
    np.testing.assert_array_equal(model.encode(items, **options), again.encode(items, **options))
    owner = json.loads((tmp_path / "b" / "manifest.json").read_text())["parts"]["vision"]
    assert (owner["kind"], owner["component"]) == ("mllm", name)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_items_are_each_as_if_alone(name: str, workspace: Path) -> None:
    """With both, with a text only, with a picture only; more rows than are read together, so that padding differs."""
    model = build(name, "micl")
    mixed = [
        Item("both", image="noto_1.png", title="both of them"),
        Item("text", title="no picture"),
        Item("image", image="noto_2.png"),
        Item("long", image="noto_3.png", content="far longer than the others " * 4),
        *(Item(f"more{n}", title="w " * n) for n in range(1, 16)),
    ]
    options: dict[str, Any] = {"images": workspace / "images", "precision": "fp32"}
    together = encode(model, mixed, **options)
    for row, item in enumerate(mixed[:4]):
        np.testing.assert_allclose(encode(model, [item], **options).vectors[0], together.vectors[row], atol=5e-6)


def test_padding_changes_nothing(catalogue: Catalogue) -> None:
    """Also where rows have their picture at other places: positions do not depend on what stands behind."""
    joined = create(catalogue, "qwen2.5-vl")
    ids, image = rows(joined, [2, 6], 30)
    x = joined.llm.embed(ids)
    with torch.no_grad():
        want = joined.llm(x[:, :26], image=image[:, :26])
        torch.testing.assert_close(joined.llm(x, image=image)[:, :26], want, atol=1e-5, rtol=1e-5)


def renamed(folder: Path, change: dict[str, str]) -> None:
    """A folder's keys with other beginnings: the first of `change` that fits."""
    tensors = load_file(folder / "model.safetensors")

    def name(key: str) -> str:
        return next((new + key[len(old) :] for old, new in change.items() if key.startswith(old)), key)

    save_file({name(k): v for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def flattened(folder: Path) -> None:
    """Qwen's configuration as its own repositories have it: the language model's settings at the top."""
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = {"type": "mrope", "mrope_section": text.pop("rope_parameters")["mrope_section"]}
    config["vision_config"] |= {"in_chans": 3, "model_type": config["model_type"]}
    flat = {**text, **config, "rope_scaling": rope, "rope_theta": 1e6}
    (folder / "config.json").write_text(json.dumps(flat))


LAYOUTS = {  # beginnings of keys that other versions of transformers wrote
    "qwen2.5-vl": {"visual.": "model.visual.", "model.": "model.language_model."},
    "llava": {"vision_tower.": "vision_tower.vision_model."},
    "blip-2": {},
    "qwen3-vl": {},
    "internvl": {},
    "gemma-3": {"model.vision_tower.": "model.vision_tower.vision_model."},
    "smolvlm": {},
    "gemma-4": {},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_folders_have_the_card_of_what_is_loaded(name: str, catalogue: Catalogue, tmp_path: Path) -> None:
    """From config.json and safetensors headers alone, in each layout of keys; the head does not count."""
    save_whole(name, tmp_path)
    options: dict[str, Any] = {} if name in WITH_POOLED else {"mllm.pool": "mean"}
    options |= {"mllm.image_size": 64} if name.startswith("qwen") or name == "gemma-4" else {}
    states = []
    for number, change in enumerate(({}, LAYOUTS[name])):
        renamed(tmp_path, change)
        if number and name == "qwen2.5-vl":
            flattened(tmp_path)
        resolved = resolve({"mllm": f"file:{tmp_path}", "variant": "late_early_fusion", **options})
        plan = make_plan(resolved.recipe, requested=resolved.origin)
        assert not plan.refusals
        model = assemble.from_plan(plan)
        assert model.vision is not None
        assert model.connector is not None
        assert (plan.llm, plan.vision) == (model.llm.card, model.vision.card)
        assert plan.connector is not None
        assert plan.connector.tokens == model.connector.tokens
        assert plan.connector.parameters == sum(p.numel() for p in model.connector.parameters())
        assert not any("lm_head" in key for key in model.state_dict())
        joined = DecomposedMLLM(model.llm, model.vision, model.connector)
        size = plan.vision.image_size if plan.vision else 0
        pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            states.append(our_states(joined, *rows(joined, [3, 8], 40), pixels))
        model.save(tmp_path / f"bundle{number}")
        again = n2kit.load(tmp_path / f"bundle{number}").state_dict()
        assert all(torch.equal(again[k], v) for k, v in model.state_dict().items())
    torch.testing.assert_close(*states)


def test_missing_weights_are_bad_input(catalogue: Catalogue, tmp_path: Path) -> None:
    save_whole("llava", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    gone = next(k for k in tensors if "linear_1.weight" in k)
    save_file(
        {k: v for k, v in tensors.items() if k != gone}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(BadInput, match="lacks 1 weight, the first is"):
        create(catalogue, "llava", f"@file:{tmp_path}")


def test_wrong_checkpoints_are_refused_before_they_are_read(catalogue: Catalogue, tmp_path: Path) -> None:
    def refused(reference: str, config: dict[str, Any], match: str) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(BadInput, match=match):
            catalogue.resolve("mllm", reference).card()

    source = f"file:{tmp_path}"
    refused(f"llava:tiny@{source}", tiny.BLIP2, "'blip-2', not llava")
    refused(source, {"model_type": "blip-2", "text_config": {"model_type": "t5"}}, "blip-2 with a t5 language model")
    refused(source, tiny.LLAVA | {"vision_config": {"model_type": "pixtral"}}, "llava with a pixtral tower")
    refused(source, {"model_type": "pixtral"}, "no installed mllm component reads")
    refused(source, tiny.INTERNVL | {"vision_feature_layer": -2}, "vision_feature_layer -2: n2kit reads the last one")
    with pytest.raises(BadInput, match="image_size 450 is no multiple of 16"):
        n2kit.build(mllm="qwen2.5-vl:tiny", settings={"mllm.image_size": 450})


def test_a_gate_without_a_pooled_vector_is_refused() -> None:
    with pytest.raises(Mismatch, match="mllm qwen2.5-vl:tiny gives 16 tokens and none"):
        build("qwen2.5-vl", "notellm2")
    assert build("qwen2.5-vl", "notellm2", **{"mllm.pool": "mean"}).encode([{"title": "x"}]).shape == (1, 16)


@pytest.mark.parametrize(("tower", "name"), [("qwen2.5-vl-vision", "qwen2.5-vl"), ("llava-vision", "llava")])
def test_towers_alone_join_other_language_models(
    tower: str, name: str, catalogue: Catalogue, workspace: Path, tmp_path: Path
) -> None:
    save_whole(name, tmp_path)
    whole = create(catalogue, name, f"@file:{tmp_path}")
    settings: dict[str, Any] = {"head.width": 16}
    if tower.startswith("qwen"):
        settings |= {"vision.image_size": 64, "vision.pool": "mean"}
    model = n2kit.build("qwen:tiny", f"file:{tmp_path}", connector="mlp:tiny", settings=settings)
    assert model.vision is not None
    assert model.provenance.parts["vision"]["component"] == tower
    pixels = torch.randn(2, 3, model.vision.card.image_size, model.vision.card.image_size)
    torch.testing.assert_close(model.vision(pixels).tokens, whole.vision(pixels).tokens)
    model.save(tmp_path / "b")
    options: dict[str, Any] = {"images": workspace / "images"}
    items = [{"title": "a", "image": "noto_1.png"}]
    np.testing.assert_array_equal(n2kit.load(tmp_path / "b").encode(items, **options), model.encode(items, **options))
    tiny_one = n2kit.build("qwen:tiny", f"{tower}:tiny", connector="mlp:tiny", settings={"head.width": 16})
    assert tiny_one.encode(items, **options).shape == (1, 16)


def test_llava_reads_any_layers_and_keeps_no_block_that_it_does_not(catalogue: Catalogue) -> None:
    config = tiny.LLAVA | {"vision_feature_layer": [-3, 1], "vision_feature_select_strategy": "full"}
    component = catalogue.resolve("mllm", "llava:tiny")
    options = component.config().model_copy(update={"config": config})
    joined = component.cls().create(LoadSpec(options, None))
    assert len(joined.vision.blocks()) == 1
    assert joined.vision.card.token_width == joined.vision.card.pooled_width == 64
    assert joined.connector.tokens == 17
    planned = component.load(component.registered.spec.card)(options, lambda: None)
    assert planned.tokens == 17
    assert planned.vision.token_width == 64
    pixels = torch.randn(2, 3, 32, 32)
    out = joined.vision(pixels)
    assert torch.equal(out.tokens[..., :32], out.tokens[..., 32:])  # both are the first block's output


def test_pooled_vectors(catalogue: Catalogue) -> None:
    """CLS, or the mean of the patches."""
    for pool in (None, "mean"):
        vision = create(catalogue, "llava-vision", kind="vision", pool=pool)
        out = vision(torch.randn(2, 3, 32, 32))
        torch.testing.assert_close(out.pooled, out.tokens[:, 1:].mean(1) if pool else out.tokens[:, 0])
    qwen = create(catalogue, "qwen2.5-vl-vision", kind="vision", pool=None)
    assert qwen(torch.randn(1, 3, 64, 64)).pooled is None
    assert qwen.card.pooled_width == 0
