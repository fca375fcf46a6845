"""Hard negatives: read strictly, encoded once, candidates of every row, on any number of processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import n2kit
from n2kit import Item, read_pairs
from n2kit.bundle import io as bundle
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput
from n2kit.inputs.reader import Reader
from n2kit.modeling.model import Model
from n2kit.recipe.settings import resolve
from n2kit.train import train
from n2kit.train.distributed import left_rows_first
from n2kit.train.epoch_rng import EpochRng
from n2kit.train.pairs import PairCollator, has_no_negatives
from n2kit.train.step import TrainStep
from steps import assert_same, by_one_and_by_two, gradients, weights

KNOWN = {"a", "b", "c", "d", "e f", "g|h", "1"}


def written(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "query,target,negatives\na,b,c d\n",
        "query,target,negatives\na,b,c|d\n",
        "negative,query,target,negative_2\nc,a,b,d\n",
        "target,query,hard_negative_1,hard_negative_2,hard_negative_3\nb,a,c,,d\n",
        "query,target,negative\na,b,c\na,b,d\n",  # one pair on two lines
        "query,target,negative\na,b,c\na,b,c|d\n",
    ],
)
def test_columns_of_a_csv(text: str, tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path, text), KNOWN, negatives=True)
    assert pairs.negatives == {("a", "b"): ("c", "d")}
    assert set(pairs) == {("a", "b")}


def test_lists_and_columns_of_jsonl(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "target": "b", "negatives": ["c", "e f"]},
        {"query": "c", "target": "d", "negatives": None},
        {"query": "d", "target": 1, "negative_1": "a", "negative_2": "b", "score": 0.5},
    ]
    file = written(tmp_path, "".join(json.dumps(r) + "\n" for r in rows), "pairs.jsonl")
    pairs = read_pairs(file, KNOWN, negatives=True)
    assert pairs.negatives == {("a", "b"): ("c", "e f"), ("d", "1"): ("a", "b")}
    assert pairs.grades == {("d", "1"): 0.5}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "query,lang,target,hard_neg,negative\na,de,b,x,c\n"),
        ("none.csv", "a,b,0\n"),
        ("p.jsonl", '{"lang": "de", "query": "a", "target": "b", "hard_neg": "x", "negative": "c"}\n'),
    ],
)
def test_columns_that_mean_nothing_are_named(name: str, text: str, tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path, text, name), KNOWN, negatives=True)
    assert pairs.pairs == [("a", "b")]
    if name == "none.csv":
        assert pairs.unread == ("column 3, which no header names",)
    else:
        assert pairs.negatives == {("a", "b"): ("c",)}
        assert pairs.unread == ("lang", "hard_neg")


def test_lists_of_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"query": ["a"], "target": ["b"], "negatives": [["c", "d"]]}), tmp_path / "p.parquet")
    assert read_pairs(tmp_path / "p.parquet", KNOWN, negatives=True).negatives == {("a", "b"): ("c", "d")}


def test_ids_with_separators_in_them(tmp_path: Path) -> None:
    file = written(tmp_path, "query,target,negative_1,negative_2\na,b,e f,g|h\n")
    assert read_pairs(file, KNOWN, negatives=True).negatives == {("a", "b"): ("e f", "g|h")}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("a,b,x", "pairs.csv:3: unknown id 'x' as a negative"),
        ("a,b,c|a", "pairs.csv:3: 'a' is a negative of its own pair"),
        ("a,b,b", "pairs.csv:3: 'b' is a negative of its own pair"),
        ("a,b,d", "pairs.csv:3: negative 'd' is known to belong to 'a'"),  # by line 2, in the other direction
    ],
)
def test_negatives_that_cannot_be(row: str, complaint: str, tmp_path: Path) -> None:
    file = written(tmp_path, f"query,target,negatives\nd,a,\n{row}\n")
    with pytest.raises(BadInput, match="1 unusable row") as caught:
        read_pairs(file, KNOWN, negatives=True)
    assert complaint in caught.value.message
    lenient = read_pairs(file, KNOWN, negatives=True, lenient=True)
    assert (list(lenient), len(lenient.dropped), lenient.negatives) == ([("d", "a")], 1, {})


def test_who_does_not_ask_for_negatives_passes_over_them(tmp_path: Path) -> None:
    file = written(tmp_path, "query,target,negatives\na,b,nobody\n")
    pairs = read_pairs(file, KNOWN)
    assert (list(pairs), pairs.negatives) == ([("a", "b")], {})
    assert read_pairs(written(tmp_path, "a,b,nobody\n"), KNOWN, negatives=True).negatives == {}  # no header, no name


def test_negatives_are_part_of_what_a_run_is() -> None:
    plain = Pairs([("a", "b"), ("c", "d")])
    assert plain.digest() == Pairs(plain.pairs, negatives={}).digest()
    some, others = (Pairs(plain.pairs, negatives={("a", "b"): (i,)}).digest() for i in ("c", "d"))
    assert len({plain.digest(), some, others}) == 3


# --- the batch -------------------------------------------------------------------------------------------------------

PAIRS = Pairs(
    [("p1", "p2"), ("p1", "t1"), ("t2", "p3"), ("p4", "i1")],
    negatives={("p1", "p2"): ("p5", "p4", "t0"), ("t2", "p3"): ("p5", "t3"), ("p4", "i1"): ("p2",)},
)


@pytest.fixture(scope="module")
def catalogue() -> Items:
    pictured = [Item(f"p{n}", f"noto_{n}.png", f"thing {n}" + " and so on" * n) for n in range(1, 7)]
    return Items([*pictured, *[Item(f"t{n}", "", f"only words {n}") for n in range(4)], Item("i1", "twemoji_1.png")])


def model_of(tiny_bundle: Path) -> Model:
    model = bundle.load(tiny_bundle)
    model.prepare_for(torch.float32)
    return model.train()


def collator(model: Model, items: Items, images: Path, pairs: Pairs = PAIRS, **options: Any) -> PairCollator:
    return PairCollator(items, pairs, Reader(model.prompt_builder, model.vision, images), **options)


def test_each_stands_once_behind_the_rows(catalogue: Items, workspace: Path, tiny_bundle: Path) -> None:
    inputs = collator(model_of(tiny_bundle), catalogue, workspace / "images")(list(PAIRS))
    assert inputs["ids"][:8] == ["p1", "p1", "t2", "p4", "p2", "t1", "p3", "i1"]
    assert inputs["ids"][8:] == ["p5", "t0", "t3"]  # p4 and p2 are rows, and so candidates, anyway
    assert inputs["negatives"].tolist() == [8, 9, 10]
    assert len(inputs["item_index"]) == 11
    assert len(inputs["batch"].ids) == 10  # p1 twice
    assert inputs["exclude"].shape == (11, 11)
    assert not inputs["exclude"][:8, 8:].any()
    assert len(inputs["grades"]) == 4
    without = collator(model_of(tiny_bundle), catalogue, workspace / "images", Pairs(PAIRS.pairs))(list(PAIRS))
    assert "negatives" not in without
    assert without["exclude"].equal(inputs["exclude"][:8, :8])


def test_a_known_positive_of_another_row_is_hidden_from_it(
    catalogue: Items, workspace: Path, tiny_bundle: Path
) -> None:
    pairs = Pairs([("p1", "p2"), ("p3", "p4"), ("p3", "p5")], negatives={("p1", "p2"): ("p5",)})
    inputs = collator(model_of(tiny_bundle), catalogue, workspace / "images", pairs)(pairs.pairs[:2])
    assert inputs["ids"][4:] == ["p5"]
    assert inputs["exclude"][:4, 4].tolist() == [False, True, False, False]


def test_popularity_counts_negatives_too(catalogue: Items, workspace: Path, tiny_bundle: Path) -> None:
    inputs = collator(model_of(tiny_bundle), catalogue, workspace / "images")(list(PAIRS))
    share = dict(zip(inputs["ids"], inputs["log_q"].exp().tolist(), strict=True))
    assert share["p5"] == pytest.approx(2 / 14)  # of 8 ends and 6 negatives
    assert share["p1"] == pytest.approx(2 / 14)
    assert share["t0"] == pytest.approx(1 / 14)


def test_so_many_of_a_pair_are_drawn_anew_each_epoch(catalogue: Items, workspace: Path, tiny_bundle: Path) -> None:
    rng = EpochRng(0)
    pairs = Pairs([("p1", "p2"), ("p3", "p4")], negatives={("p1", "p2"): ("p5", "p6", "t0", "t1", "t2", "t3")})
    made = collator(model_of(tiny_bundle), catalogue, workspace / "images", pairs, max_negatives=2, rng=rng)
    seen = []
    for rng.epoch in range(6):
        ids = made(pairs.pairs)["ids"][4:]
        assert len(set(ids)) == 2
        assert ids == made(pairs.pairs)["ids"][4:]
        seen.append(tuple(ids))
    assert len(set(seen)) > 3


def test_one_without_a_readable_picture_is_left_out_and_its_pair_stays(
    catalogue: Items, workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(workspace / "images", tmp_path / "images")
    (tmp_path / "images" / "noto_5.png").write_bytes(b"no picture")
    model = model_of(tiny_bundle)

    def read(policy: Any) -> list[str]:
        reader = Reader(model.prompt_builder, model.vision, tmp_path / "images", policy)
        ids: list[str] = PairCollator(catalogue, PAIRS, reader)(list(PAIRS))["ids"]
        return ids

    assert read("skip")[8:] == ["t0", "t3"]
    assert read("text-only")[8:] == ["p5", "t0", "t3"]
    with pytest.raises(BadInput, match="noto_5"):
        read("error")


def test_a_step_whose_only_negatives_are_hard_ones_teaches_something() -> None:
    exclude = torch.ones(5, 5, dtype=torch.bool)
    assert has_no_negatives(exclude[:4, :4])
    exclude[0, 4] = False
    assert not has_no_negatives(exclude, 1)
    exclude[0, 4], exclude[4, 0] = True, False  # a hard negative is no anchor
    assert has_no_negatives(exclude, 1)


def test_rows_of_all_processes_stand_before_their_negatives() -> None:
    assert left_rows_first([4, 2], [1, 2]).tolist() == [0, 1, 5, 2, 3, 6, 4, 7, 8]


# --- the step --------------------------------------------------------------------------------------------------------


def test_they_change_the_loss_and_get_a_gradient(catalogue: Items, workspace: Path, tiny_bundle: Path) -> None:
    model = model_of(tiny_bundle)
    step = TrainStep(model, torch.float32)
    inputs = collator(model, catalogue, workspace / "images")(list(PAIRS))
    views = step.vectors(inputs["batch"])
    views["multimodal"].retain_grad()
    rows = {name: view[inputs["item_index"]] for name, view in views.items()}
    present = {"visual": rows["present:visual"] > 0}
    out = model.loss(rows, present, inputs["exclude"], negatives=inputs["negatives"])
    out.loss.backward()
    grad = views["multimodal"].grad
    assert grad is not None
    assert grad[inputs["item_index"][8:]].abs().amax(1).min() > 0
    plain = collator(model, catalogue, workspace / "images", Pairs(PAIRS.pairs))(list(PAIRS))
    assert out.loss > gradients(step, plain)[0]


@pytest.mark.parametrize("loss", ["notellm2", "infonce"])
def test_chunks_give_the_loss_and_the_gradients_of_the_plain_step(loss: str, catalogue: Items, workspace: Path) -> None:
    model = n2kit.build(
        "qwen:tiny", "siglip:tiny", connector="mlp:4", loss=loss, settings={"head.width": 16, "llm.tune": "full"}
    )
    model.prepare_for(torch.float32)
    inputs = collator(model.train(), catalogue, workspace / "images")(list(PAIRS))
    plain, cached = (gradients(TrainStep(model, torch.float32, n), inputs) for n in (None, 3))
    assert_same(plain, cached)


# --- runs ------------------------------------------------------------------------------------------------------------


def run(tiny_bundle: Path, items: Items, images: Path, folder: Path, **settings: Any) -> Any:
    given = {"train.batch_size": 2, "train.max_steps": 5, "train.save_steps": 2, "train.lr": 1e-3} | settings
    recipe = resolve({"train.precision": "fp32", **given}, base=bundle.read_recipe(tiny_bundle), env={}).recipe
    return train(tiny_bundle, items, PAIRS, recipe, folder, images=images)


def test_a_resumed_run_draws_what_an_unbroken_one_draws(
    catalogue: Items, workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    one = {"train.hard_negatives": 1}
    whole = run(tiny_bundle, catalogue, workspace / "images", tmp_path / "whole", **one)
    run(tiny_bundle, catalogue, workspace / "images", tmp_path / "broken", **one)
    shutil.rmtree(tmp_path / "broken" / "bundle")
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "checkpoint-5")
    (tmp_path / "broken" / "result.json").unlink()
    resumed = run(tiny_bundle, catalogue, workspace / "images", tmp_path / "broken", **one)
    assert resumed.resumed_from == 4
    first, second = weights(whole.bundle), weights(resumed.bundle)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_a_loss_that_takes_none_refuses_them(catalogue: Items, tmp_path: Path) -> None:
    n2kit.build("qwen:tiny", loss="cosent", variant="text_only", settings={"head.width": 16}).save(tmp_path / "cosent")
    with pytest.raises(BadInput, match="hard negatives of 3 pairs, and loss cosent takes none"):
        run(tmp_path / "cosent", catalogue, tmp_path, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("chunk", ["null", "2"])
def test_two_processes_are_one(
    chunk: str, catalogue: Items, workspace: Path, tiny_bundle: Path, tmp_path: Path, cli: Any
) -> None:
    """p5 is a negative in both processes, p2 and p4 are rows of one and negatives in the other."""
    rows = [{"id": i.id, "image": i.image, "title": i.title} for i in catalogue.items]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    lines = [f"{a},{b},{'|'.join(PAIRS.negatives.get((a, b), ()))}\n" for a, b in PAIRS]
    (tmp_path / "pairs.csv").write_text("query,target,negatives\n" + "".join(lines))
    arguments: list[str | Path] = [
        "train", tiny_bundle, "--items", tmp_path / "items.jsonl", "--pairs", tmp_path / "pairs.csv",
        "--images", workspace / "images", "--max-steps", "2", "--batch-size", "4", "--lr", "1e-3", "--device", "cpu",
        "--set", "train.precision=fp32", "--set", "train.log_steps=1", "--set", "train.warmup=0", "--set", f"train.grad_cache={chunk}",
    ]  # fmt: skip
    (one, two), steps = by_one_and_by_two(cli, arguments, tmp_path)
    assert max((one[k].float() - two[k].float()).abs().max() for k in one) < 1e-5
    for a, b in steps:
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
