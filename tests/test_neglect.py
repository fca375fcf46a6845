"""Does the meter see neglect where there is some, and none where there is none?"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import n2kit
from n2kit.data.items import Item, Items, read_items
from n2kit.data.pairs import Pairs, read_pairs
from n2kit.errors import BadInput, Mismatch
from n2kit.evaluate.neglect import BOTH, NO_IMAGE, NO_TEXT, SWAPPED, Neglect, Reading, neglect, swapped_images
from n2kit.evaluate.saliency import flows, obstacle, saliency
from n2kit.inputs.reader import Reader
from n2kit.modeling.batch import Batch
from n2kit.modeling.model import Model

SETTINGS = {"head.width": 16, "prompt.template": "compact", "prompt.body_tokens": 64}


def tiny(llm: str = "qwen:tiny", variant: str = "notellm2", **settings: Any) -> Model:
    vision = None if variant == "text_only" else "clip:tiny"
    connector = "mlp:4" if vision else None
    return n2kit.build(llm, vision, connector=connector, variant=variant, settings=SETTINGS | settings)


@pytest.fixture
def catalogue(workspace: Path) -> Items:
    return read_items(workspace / "items.jsonl")


@pytest.fixture
def pairs(workspace: Path, catalogue: Items) -> Pairs:
    return read_pairs(workspace / "train.csv", catalogue)


def batch_of(model: Model, items: Items, images: Path, count: int = 4) -> Batch:
    batch, _ = Reader(model.prompt_builder, model.vision, images)(
        items.items[0 : 2 * count : 2] + items.items[1 : 2 * count : 2]
    )
    assert batch is not None
    return batch


def backbone(model: Model) -> Any:
    return next(m for m in model.llm.modules() if isinstance(m, PreTrainedModel))


# Saliency


@pytest.mark.parametrize("micl", [False, True])
def test_curves_equal_plain_loops(micl: bool) -> None:
    """S_v, S_t and S_o by their definition, position by position, for rows of different lengths."""
    rows, final, visual = [[5, -1, -1, 6, 7, -2, 8, 9, 9], [-1, -1, 3, -2, 4, 2, 1, 8, 0]], [8, 7], [4, 2]
    batch = Batch(
        torch.tensor(rows), torch.tensor(final), torch.tensor(visual if micl else [-1, -1]), torch.arange(2), torch.ones(2)
    )  # fmt: skip
    product = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)).tril()
    product[1, :, 8:] = 0  # padding has no gradient
    got = flows(product, batch)
    for n, ids in enumerate(rows):
        influence, word = product[n].sum(0).abs(), final[n]
        image = [p for p, i in enumerate(ids) if i == -1]
        span = range(image[0], (visual[n] + 3 if micl else image[-1]) + 1)
        s_v = sum(influence[word, p] for p in span if p != word)
        s_t = sum(influence[word, p] for p in range(word) if p not in span)
        s_o = sum(influence[i, j] for i in range(9) for j in range(9) if i != j) - s_v - s_t
        counts = (len(span), word - len(span), word * (word + 1) // 2 - word)
        want = torch.stack([s / max(c, 1) for s, c in zip((s_v, s_t, s_o), counts, strict=True)])
        assert torch.allclose(got[n], want, atol=1e-6)


def test_saliency_leaves_the_model_as_it_was(catalogue: Items, workspace: Path) -> None:
    model = tiny()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    batch = batch_of(model, catalogue, workspace / "images")
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert backbone(model).config._attn_implementation == "sdpa"
    curves = saliency(model, batch)
    assert curves.shape == (8, 2, 3)
    assert (curves[:, :, :2] > 0).all()
    assert curves.isfinite().all()
    assert model.training
    assert backbone(model).config._attn_implementation == "sdpa"
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not backbone(model)._forward_hooks
    assert torch.allclose(saliency(model, batch), curves)


@pytest.mark.parametrize("llm", ["llama:tiny", "gpt2:tiny", "bloom:tiny", "gemma:tiny-3", "opt:tiny", "lfm2:tiny"])
@pytest.mark.parametrize("loss", ["notellm2", "sigmoid", "cosent"])
def test_any_causal_llm_and_loss(llm: str, loss: str, catalogue: Items, workspace: Path) -> None:
    model = tiny(llm, "basic", loss=loss)
    curves = saliency(model, batch_of(model, catalogue, workspace / "images"))
    assert curves.isfinite().all()
    assert (curves[:, :, 0] > 0).any()


def test_where_there_are_no_curves_the_reason_is_said(catalogue: Items, workspace: Path) -> None:
    assert obstacle(tiny()) is None
    assert "no visual tokens" in (obstacle(tiny(variant="text_only")) or "")
    assert "no attention" in (obstacle(tiny("mamba:tiny", "basic")) or "")
    both_ways = tiny("bert:tiny", "basic")
    assert "reads both ways" in (obstacle(both_ways) or "")
    with pytest.raises(Mismatch, match="reads both ways"):
        saliency(both_ways, batch_of(both_ways, catalogue, workspace / "images"))
    falcon = tiny("falcon:tiny", "basic")  # its code cannot change its attention once it is built
    with pytest.raises(Mismatch, match="cannot be switched"):
        saliency(falcon, batch_of(falcon, catalogue, workspace / "images"))
    falcon = tiny("falcon:tiny", "basic", **{"llm.attention": "eager"})
    assert saliency(falcon, batch_of(falcon, catalogue, workspace / "images")).shape == (8, 2, 3)


# Images swapped


@pytest.mark.parametrize("images", ["abcdefgh", "aabbccdd", "aaaabbcd", "abcdaaefg"])
def test_every_item_gets_another_image(images: str) -> None:
    items = [Item(str(n), image=image) for n, image in enumerate(images)]
    for seed in range(20):
        given, alike = swapped_images(items, seed)
        assert alike == 0
        assert all(given[item.id] != item.image for item in items)
        assert sorted(given.values()) == sorted(images)
    assert len({tuple(swapped_images(items, seed)[0].items()) for seed in range(20)}) > 3
    assert swapped_images(items, 1) == swapped_images(items, 1)


def test_items_that_share_an_image_do_not_share_the_next() -> None:
    """Else the swapped image would still say which items belong together."""
    items = [Item(str(n), image=str(n // 2)) for n in range(60)]
    given, alike = swapped_images(items, 0)
    assert alike == 0
    assert sum(given[str(n)] == given[str(n + 1)] for n in range(0, 60, 2)) <= 3


def test_where_most_share_an_image_it_is_counted() -> None:
    given, alike = swapped_images([Item(str(n), image=i) for n, i in enumerate("aaaaabc")], 0)
    assert alike == 3
    assert sorted(given.values()) == sorted("aaaaabc")


# The meter


@pytest.fixture
def measured(catalogue: Items, pairs: Pairs, workspace: Path) -> Callable[..., Neglect]:
    def run(model: Model, items: Items = catalogue, some: Pairs = pairs, **options: Any) -> Neglect:
        policy = options.pop("on_bad_image", "error")
        return neglect(model, items, some, Reading(workspace / "images", on_bad_image=policy), ks=(1, 5), **options)

    return run


def test_a_connector_that_gives_nothing_shows_no_image_effect(measured: Callable[..., Neglect]) -> None:
    model = tiny(variant="basic")
    seeing = measured(model, resamples=100)
    model.connector_scale.zero_()
    blind = measured(model, resamples=100)
    assert blind.figures[SWAPPED] == blind.figures[BOTH]
    for change in blind.effects[SWAPPED].values():
        assert (change.difference, change.low, change.high, change.p) == (0, 0, 0, 1)
    assert seeing.effects[SWAPPED]["mean_rank"].difference > 0
    assert seeing.figures[SWAPPED] != seeing.figures[BOTH]


def test_what_is_taken_away_is_gone(measured: Callable[..., Neglect], catalogue: Items, workspace: Path) -> None:
    """Without the text nothing of it matters; without the image nothing of that."""
    model = tiny()
    words = Items([replace(item, title=str(7919 * n), topics=()) for n, item in enumerate(catalogue)])
    plain, reworded = measured(model, resamples=0), measured(model, words, resamples=0)
    assert plain.figures[NO_TEXT] == reworded.figures[NO_TEXT]
    assert plain.figures[NO_IMAGE] != reworded.figures[NO_IMAGE]
    other = Items([replace(item, image="noto_3.png") for item in catalogue])
    assert measured(model, other, resamples=0).figures[NO_IMAGE] == plain.figures[NO_IMAGE]


def test_curves_of_a_sample(measured: Callable[..., Neglect]) -> None:
    found = measured(tiny(), sample=12, resamples=50)
    curves = found.saliency
    assert curves is not None
    assert curves.items == 12
    assert curves.mean.shape == (2, 3)
    assert (curves.low <= curves.mean).all()
    assert (curves.mean <= curves.high).all()
    assert curves.shares.sum(1) == pytest.approx([1, 1])
    json.dumps(found.to_dict(), allow_nan=False)
    again = measured(tiny(), sample=12, resamples=50).saliency
    assert again is not None
    assert again.to_dict() == curves.to_dict()
    assert measured(tiny("mamba:tiny"), sample=4).no_saliency is not None


def test_items_that_lack_one_stay_as_they_are(measured: Callable[..., Neglect], catalogue: Items, pairs: Pairs) -> None:
    some = [
        replace(catalogue.items[0], image=""),
        *catalogue.items[1:22],
        replace(catalogue.items[22], title="", topics=()),
    ]
    found = measured(tiny(), Items([*some, catalogue.items[23]]), resamples=0)
    assert found.altered == 22
    assert found.queries == len(pairs) - 1
    assert found.notes == [
        "in the pool as they are, without an image or a text: 2 items",
        f"1 of {len(pairs)} pairs left out: an item lacks an image or a text",
    ]
    with pytest.raises(BadInput, match="no pair of two items that have both"):
        measured(tiny(), Items([replace(item, image="") for item in catalogue]))


@pytest.mark.parametrize("policy", ["skip", "text-only"])
def test_images_that_cannot_be_read(measured: Callable[..., Neglect], catalogue: Items, policy: str) -> None:
    items = Items([replace(catalogue.items[0], image="nowhere.png"), *catalogue.items[1:]])
    found = measured(tiny(), items, on_bad_image=policy, resamples=0, sample=4)
    assert found.altered == 23
    assert found.saliency is not None
    ((name, reason),) = found.skipped.items()
    assert name == catalogue.items[0].id
    assert "nowhere.png" in reason
    assert any(note.startswith("1 of ") for note in found.notes)
    with pytest.raises(BadInput, match=r"nowhere\.png"):
        measured(tiny(), items)


@pytest.mark.parametrize(("variant", "lacks"), [("text_only", "image"), ("image_only", "text")])
def test_a_variant_of_one_modality_is_refused(measured: Callable[..., Neglect], variant: str, lacks: str) -> None:
    with pytest.raises(BadInput, match=f"reads no {lacks}"):
        measured(tiny(variant=variant))


# The command

COMMAND = ("--items", "items.jsonl", "--images", "images", "--pairs", "train.csv", "--k", "1,5")


def test_neglect_as_a_command(cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli("neglect", tiny_bundle, *COMMAND, "--saliency", "4", "-o", out, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found == json.loads((out / "neglect.json").read_text())
    assert set(found["metrics"]) == {BOTH, NO_IMAGE, NO_TEXT, SWAPPED}
    assert set(found["metrics"][BOTH]["recall@1"]) == {"value", "low", "high", "optimistic"}
    assert set(found["effects"][SWAPPED]["recall@5"]) == {"a", "b", "difference", "low", "high", "p"}
    assert set(found["saliency"]) == {"items", "S_v", "S_t", "S_o"}
    assert (out / "neglect.png").read_bytes().startswith(b"\x89PNG")
    shown = cli("neglect", tiny_bundle, *COMMAND, "--saliency", "4")
    assert shown.out.startswith("| input | metric | value | 95 % | change | 95 % of it | p |\n")
    assert "| layer | S_v, % | S_t, % | S_o, % |" in shown.out
    refused = cli("neglect", tiny_bundle, *COMMAND, "-o", out)
    assert refused.code == 2
    assert "--force" in refused.err


def test_without_matplotlib_one_line_says_so(
    cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "n2kit.evaluate.plots", raising=False)
    done = cli("neglect", tiny_bundle, *COMMAND, "--saliency", "0", "-o", tmp_path / "out")
    assert done.code == 0
    assert 'no plot: a plot needs matplotlib, which is not installed; pip install "n2kit[plots]"' in done.err
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["neglect.json"]


def test_a_model_without_attention_still_gets_its_recall(cli: Any, at_workspace: Path, tmp_path: Path) -> None:
    tiny("mamba:tiny", "basic").save(tmp_path / "mamba")
    done = cli("neglect", tmp_path / "mamba", *COMMAND, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert "no saliency: the llm has no attention whose probabilities can be read" in done.err
    assert "| swapped image | recall@1 |" in done.out
    assert (tmp_path / "out" / "neglect.png").is_file()


def test_own_files_alone_are_replaced(cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    shutil.copy("items.jsonl", tmp_path / "mine")
    assert cli("neglect", tiny_bundle, *COMMAND, "-o", tmp_path / "mine", "--force").code == 2
