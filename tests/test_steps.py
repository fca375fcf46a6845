"""Steps that are exact however they are computed: in chunks, item by item, by several processes, from cached features."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import forks
import n2kit
from n2kit import Item, read_items, read_pairs
from n2kit.bundle import io as bundle
from n2kit.contract import VisionOut
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput, Failed, Mismatch
from n2kit.inputs import reader as batches
from n2kit.inputs.feature_cache import feature_cache
from n2kit.inputs.feature_store import FeatureStore
from n2kit.inputs.reader import Reader
from n2kit.modeling.batch import Batch
from n2kit.modeling.model import Model
from n2kit.recipe.settings import resolve
from n2kit.train import RunResult, train
from n2kit.train.distributed import left_rows_first
from n2kit.train.gradcache import encode_in_chunks
from n2kit.train.pairs import PairCollator, has_no_negatives
from n2kit.train.step import TrainStep
from steps import alone, assert_same, first_gradient, gradients, together, weights

LONG = " and so on" * 6


@pytest.fixture(scope="module")
def catalogue(workspace: Path) -> Items:
    """Items of three kinds: with both, with a text alone, with a picture alone; of very different lengths."""
    pictured = [Item(f"p{n}", f"noto_{n}.png", f"thing {n}" + LONG * (n % 3)) for n in range(1, 7)]
    bare = [Item(f"t{n}", "", f"only words {n}" + LONG * (n % 4)) for n in range(4)]
    return Items([*pictured, *bare, Item("i1", "twemoji_1.png"), Item("i2", "twemoji_2.png")])


PAIRS = Pairs(
    [("p1", "p2"), ("p1", "t1"), ("t2", "p3"), ("p4", "i1"), ("t0", "t3"), ("p5", "p6"), ("p2", "i2")],
    grades={("p1", "t1"): 0.5},
)


def model_of(tiny_bundle: Path) -> Model:
    model = bundle.load(tiny_bundle)
    model.prepare_for(torch.float32)
    return model.train()


def batch_of(model: Model, items: Items, images: Path, pairs: Pairs = PAIRS) -> dict[str, Any]:
    return PairCollator(items, pairs, Reader(model.prompt_builder, model.vision, images))(list(pairs))


# --- GradCache -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_chunks_give_the_loss_and_the_gradients_of_the_plain_step(
    chunk: int, catalogue: Items, workspace: Path, tiny_bundle: Path
) -> None:
    """All parameters, the temperature and both views, in a batch of items with and without pictures."""
    model = model_of(tiny_bundle)
    inputs = batch_of(model, catalogue, workspace / "images")
    plain = gradients(TrainStep(model, torch.float32), inputs)
    cached = gradients(TrainStep(model, torch.float32, chunk), inputs)
    assert_same(plain, cached)
    assert {"model.loss.temperature", "model.special_tokens.table.weight", "model.head.weight"} <= cached[1].keys()
    assert any(name.startswith("model.connector") for name in cached[1])
    assert all(
        grad.abs().max() > 0 for name, grad in cached[1].items() if name.startswith(("model.loss", "model.head"))
    )


@pytest.mark.parametrize(
    ("loss", "variant"),
    [("cosent", "micl"), ("sigmoid", "late_early_fusion"), ("infonce", "only_late_fusion"), ("matryoshka", "notellm2")],
)
def test_chunks_work_with_every_kind_of_loss(loss: str, variant: str, catalogue: Items, workspace: Path) -> None:
    model = n2kit.build(
        "qwen:tiny", "siglip:tiny", connector="mlp:4" if variant != "only_late_fusion" else None, loss=loss,
        variant=variant, settings={"head.width": 16},
    )  # fmt: skip
    model.prepare_for(torch.float32)
    inputs = batch_of(model.train(), catalogue, workspace / "images")
    assert_same(
        gradients(TrainStep(model, torch.float32), inputs), gradients(TrainStep(model, torch.float32, 4), inputs)
    )


def test_chunks_of_a_vision_encoder_that_is_trained(catalogue: Items, workspace: Path, tiny_bundle: Path) -> None:
    recipe = resolve({"vision.tune": "full"}, base=bundle.read_recipe(tiny_bundle), env={}).recipe
    model = bundle.load(tiny_bundle, recipe=recipe)
    model.prepare_for(torch.float32)
    inputs = batch_of(model.train(), catalogue, workspace / "images")
    plain, cached = (gradients(TrainStep(model, torch.float32, n), inputs) for n in (None, 3))
    assert_same(plain, cached)
    assert any(name.startswith("model.vision") for name in cached[1])


def test_features_stay_in_the_cache_until_their_chunk_wants_them(
    catalogue: Items, workspace: Path, tiny_bundle: Path
) -> None:
    model = model_of(tiny_bundle)
    images = workspace / "images"
    cache = feature_cache(model.vision, 1.0, images, torch.float32)
    readers = [
        Reader(model.prompt_builder, model.vision, images, cache=cache, lazy_features=apart) for apart in (False, True)
    ]
    one, two = (PairCollator(catalogue, PAIRS, reader)(list(PAIRS)) for reader in readers)
    assert one["batch"].vision_out is not None
    assert two["batch"].vision_out is None
    assert {t.tokens.data_ptr() for t in two["batch"].vision_rows} <= {t.tokens.data_ptr() for t in cache.kept.values()}  # type: ignore[union-attr]
    plain = gradients(TrainStep(model, torch.float32), one)
    for chunk in (None, 3):
        assert_same(plain, gradients(TrainStep(model, torch.float32, chunk), two))


def test_chunks_under_bf16(catalogue: Items, workspace: Path, tiny_bundle: Path) -> None:
    """The two steps round alike, so they differ by no more than bf16 differs from itself."""
    model = model_of(tiny_bundle)
    inputs = batch_of(model, catalogue, workspace / "images")
    plain, cached = (gradients(TrainStep(model, torch.bfloat16, n), inputs) for n in (None, 4))
    assert_same(plain, cached, off=2e-2)
    exact = gradients(TrainStep(model, torch.float32), inputs)
    name = "model.head.weight"
    assert (cached[1][name] - exact[1][name]).norm() < 0.1 * exact[1][name].norm()


def test_dropout_draws_the_same_numbers_in_both_passes() -> None:
    """Against the same chunks encoded once, with a graph, after the same seeds."""
    torch.manual_seed(0)
    table, drop = nn.Linear(8, 4), nn.Dropout(0.5)
    x = torch.randn(10, 8)
    final = torch.tensor([3, 1, 2, 9, 4, 5, 5, 0, 7, 6])
    batch = Batch(torch.arange(100).view(10, 10), final, final, torch.arange(10), torch.ones(10).bool())
    seen: list[Tensor] = []

    def encode(chunk: Batch) -> dict[str, Tensor]:
        seen.append(drop(torch.ones(len(chunk.ids), 4)))
        return {"multimodal": table(x[chunk.ids[:, 0] // 10]) * seen[-1]}

    torch.manual_seed(1)
    out = encode_in_chunks(encode, batch, 4)["multimodal"]
    after = torch.rand(1)
    assert out.shape == (10, 4)
    out.pow(2).sum().backward()
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert [len(s) for s in first] == [4, 4, 2]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(1)
    encode_in_chunks(encode, batch, 4)
    assert torch.equal(after, torch.rand(1))  # what is drawn afterwards does not hang on the chunks' contents
    order = final.argsort(stable=True)
    masks = torch.empty(10, 4)
    for rows, mask in zip(order.split(4), first, strict=True):
        masks[rows.sort().values] = mask
    grad = table.weight.grad
    assert grad is not None
    table.weight.grad = None
    (table(x) * masks).pow(2).sum().backward()
    assert torch.allclose(grad, table.weight.grad, atol=1e-5)  # type: ignore[arg-type]


def test_a_chunk_is_as_wide_as_its_longest_item_and_holds_its_pictures(
    catalogue: Items, workspace: Path, tiny_bundle: Path
) -> None:
    model = model_of(tiny_bundle)
    batch = batch_of(model, catalogue, workspace / "images")["batch"]
    rows = batch.pool_pos.argsort()[:4].sort().values
    some = batch.take(rows)
    assert some.ids.shape == (4, int(batch.pool_pos[rows].max()) + 1)
    assert [int(rows[r]) for r in some.image_owner] == [int(r) for r in batch.image_owner if int(r) in rows.tolist()]
    bare = batch.take(torch.tensor([n for n in range(len(batch.ids)) if n not in batch.image_owner.tolist()]))
    assert bare.pixels is None
    assert not len(bare.image_owner)


def test_a_batch_norm_that_is_trained_cannot_be_cut_in_chunks(tiny_bundle: Path) -> None:
    model = model_of(tiny_bundle)
    model.head = nn.Sequential(model.head, nn.BatchNorm1d(16))
    with pytest.raises(Mismatch, match=r"head\.1 takes its mean"):
        TrainStep(model, torch.float32, 4)


# --- distinct items --------------------------------------------------------------------------------------------------


def test_an_item_of_two_pairs_is_encoded_once_and_counts_twice(
    catalogue: Items, workspace: Path, tiny_bundle: Path
) -> None:
    model = model_of(tiny_bundle)
    inputs = batch_of(model, catalogue, workspace / "images")
    assert len(inputs["ids"]) == 14
    assert len(inputs["batch"].ids) == 12  # p1 and p2 stand in two pairs
    ends = [a for a, _ in PAIRS] + [b for _, b in PAIRS]
    assert inputs["ids"] == ends
    read, _ = Reader(model.prompt_builder, model.vision, workspace / "images")([catalogue[i] for i in ends])
    each = {k: v for k, v in inputs.items() if k != "item_index"} | {"batch": read}
    step = TrainStep(model, torch.float32)
    assert_same(gradients(step, each), gradients(step, inputs))
    assert inputs["exclude"][0, 1]  # p1 twice
    assert inputs["exclude"][0, 8]  # p1 and t1, partners in another pair
    assert not inputs["exclude"][0, 2]


# --- features on disk ------------------------------------------------------------------------------------------------


class Count:
    """Counts of images decoded and of runs of the vision encoder."""

    decoded = 0
    images = 0


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Iterator[Count]:
    from n2kit.inputs import feature_cache as features

    seen, decode, encode = Count(), batches.open_image, features.encode_images

    def counted(vision: Any, pixels: Tensor) -> Any:
        seen.images += len(pixels)
        return encode(vision, pixels)

    def opened(*a: Any) -> Any:
        seen.decoded += 1
        return decode(*a)

    monkeypatch.setattr(batches, "open_image", opened)
    monkeypatch.setattr(features, "encode_images", counted)
    return seen  # type: ignore[return-value]


@pytest.fixture
def run(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> Any:
    items = read_items(workspace / "items.jsonl")

    def call(folder: str = "run", pairs: Pairs | None = None, **settings: Any) -> RunResult:
        given = {"train.batch_size": 4, "train.save_steps": 2, "train.log_steps": 1, "train.lr": 1e-3}
        given |= {"train.precision": "fp32", "train.max_steps": 4}
        recipe = resolve(given | settings, base=bundle.read_recipe(tiny_bundle), env={}).recipe
        return train(
            tiny_bundle, items, pairs or read_pairs(workspace / "train.csv", items), recipe, tmp_path / folder,
            images=workspace / "images", report=call.events.append,  # type: ignore[attr-defined]
        )  # fmt: skip

    call.events = []  # type: ignore[attr-defined]
    return call


def test_the_second_epoch_and_the_second_run_look_at_no_picture(
    run: Any, count: Count, workspace: Path, tmp_path: Path
) -> None:
    first = run("first", **{"train.max_steps": 6})  # 8 pairs by 4: three epochs
    assert (count.decoded, count.images) == (16, 16)
    second = run("second", **{"train.max_steps": 6, "train.feature_cache_gb": 3.0})
    assert (count.decoded, count.images) == (16, 16)
    one, two = weights(first.bundle), weights(second.bundle)
    assert all(torch.equal(one[k], two[k]) for k in one)
    none = run("none", **{"train.max_steps": 6, "train.feature_cache_gb": 0})
    assert count.decoded == 16 + 48
    three = weights(none.bundle)
    assert max((one[k].float() - three[k].float()).abs().max() for k in one) < 1e-5

    model = bundle.load(first.bundle)
    items = read_items(workspace / "items.jsonl")
    from n2kit.embed import embed

    before = count.decoded
    embed(model, "x", items, tmp_path / "v.parquet", images=workspace / "images", precision="fp32")
    assert count.decoded == before + 8  # the items of val and test: the trained ones' features are there
    embed(model, "x", items, tmp_path / "w.parquet", images=workspace / "images", precision="fp32")
    assert count.decoded == before + 8


def picture(path: Path, colour: tuple[int, int, int]) -> None:
    Image.new("RGB", (40, 30), colour).save(path)


def test_features_go_by_an_images_content(tiny_bundle: Path, tmp_path: Path, count: Count) -> None:
    model = bundle.load(tiny_bundle)
    images = tmp_path / "images"
    images.mkdir()
    picture(images / "a.png", (255, 0, 0))
    picture(images / "b.png", (255, 0, 0))
    items = [Item("a", "a.png", "one"), Item("b", "b.png", "one")]

    from n2kit.embed import encode

    def vectors(cache: Any) -> Any:
        return encode(model, items, images=images, precision="fp32", cache=cache).vectors

    def fresh() -> Any:
        return feature_cache(model.vision, 1.0, images, torch.float32)

    cache = fresh()
    red = vectors(cache)
    assert count.decoded == 2  # in one batch both are new
    assert len(list((Path(os.environ["N2KIT_CACHE"]) / "features").rglob("*.safetensors"))) == 1
    vectors(fresh())
    assert count.decoded == 2
    picture(images / "b.png", (0, 255, 0))
    for cached in (cache, fresh()):
        green = vectors(cached)
        assert count.decoded == 3  # only the one that has changed, and only once
        assert abs(green[0] - red[0]).max() == 0
        assert abs(green[1] - red[1]).max() > 1e-4
    assert abs(green - vectors(None)).max() < 1e-6
    (images / "b.png").unlink()
    with pytest.raises(BadInput, match="no such file"):
        vectors(cache)


def test_features_of_another_encoder_or_precision_are_not_taken(tiny_bundle: Path, workspace: Path) -> None:
    def folder(change: Any = None, dtype: str = "") -> str:
        vision = bundle.load(tiny_bundle).vision
        assert vision is not None
        if change is not None:
            change(vision)
        store = FeatureStore(vision, 10**9, dtype)
        assert store.find("0" * 64) is None
        assert store._folder is not None
        return store._folder.name

    def nudge(vision: nn.Module) -> None:
        next(vision.parameters()).data.view(-1)[0] += 1e-3

    assert folder() == folder()
    assert len({folder(), folder(nudge), folder(dtype="bf16"), folder(lambda v: v.bfloat16())}) == 4


def test_a_broken_file_is_written_anew_and_the_oldest_go_first(tiny_bundle: Path, tmp_path: Path) -> None:
    vision = bundle.load(tiny_bundle).vision
    assert vision is not None
    tokens = torch.ones(10, 24)
    row = VisionOut(tokens, tokens[0], torch.ones(10).bool())  # 1,066 bytes; pooled is a view of the tokens
    root = tmp_path / "features"
    store = FeatureStore(vision, 12_000, root=root)
    names = [f"{n:064x}" for n in range(40)]
    store.add(names[0], row)
    file = next(root.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:50])
    assert store.find(names[0]) is None
    store.add(names[0], row)
    assert (found := store.find(names[0])) is not None
    assert all(torch.equal(a, b) for a, b in zip(found, row, strict=True))
    for n in range(1, 30):
        store.add(names[n], row)

    def held() -> list[int]:
        return [n for n in range(40) if (file.parent / f"{names[n]}.safetensors").is_file()]

    assert (
        8 <= len(held()) <= 11
    )  # full of this run's own, which stay: thrown out before their turn they would all be useless
    assert held() == list(range(len(held())))
    for age, n in enumerate(held()):
        os.utime(file.parent / f"{names[n]}.safetensors", (age + 1, age + 1))
    later = FeatureStore(vision, 12_000, root=root)
    assert later.find(names[0]) is not None  # used: no longer the oldest
    for n in range(30, 34):
        later.add(names[n], row)
    assert {0, 30, 31, 32, 33} <= set(held())
    assert {1, 2}.isdisjoint(held())
    assert sum(f.stat().st_size for f in root.rglob("*.safetensors")) <= 12_000


def test_what_others_remove_while_the_cache_is_measured_is_passed_over(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = bundle.load(tiny_bundle).vision
    assert vision is not None
    root = tmp_path / "features"
    gone = root / ".encoder-of-another-process"
    gone.mkdir(parents=True)
    real = os.scandir

    def scandir(path: Any) -> Any:
        if not isinstance(path, int) and Path(path) == gone and gone.exists():
            gone.rmdir()
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    store = FeatureStore(vision, 12_000, root=root)
    store.add("0" * 64, VisionOut(torch.ones(10, 24)))
    assert not gone.exists()
    assert store.problem is None
    assert store.find("0" * 64) is not None


def test_a_cache_folder_that_cannot_be_written_stops_no_training(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("N2KIT_CACHE", str(tmp_path / "file"))
    assert run(**{"train.max_steps": 2}).steps == 2
    (note,) = (e for e in run.events if e["event"] == "note")
    assert "features are not kept on disk" in note["text"]


@pytest.mark.slow
def test_two_caches_at_once(tiny_bundle: Path, workspace: Path, tmp_path: Path) -> None:
    """Two processes that write the same features at the same time."""
    code = """
import sys
from pathlib import Path
import torch
from n2kit.bundle import io as bundle
from n2kit.contract import VisionOut
from n2kit import read_items
from n2kit.embed import encode
from n2kit.inputs.feature_cache import feature_cache
torch.set_num_threads(1)
model = bundle.load(sys.argv[1])
root = Path(sys.argv[2])
items = read_items(root / "items.jsonl").items
for _ in range(3):
    cache = feature_cache(model.vision, 1.0, root / "images", torch.float32)
    assert encode(model, items, images=root / "images", precision="fp32", cache=cache).vectors.shape[0] == len(items)
print(len(cache.kept))
"""
    command = ["-c", code, tiny_bundle, workspace]
    running = [forks.Popen(command, stdout=subprocess.PIPE, text=True, env=alone(tmp_path)) for _ in range(2)]
    assert [p.communicate(timeout=120)[0].strip() for p in running] == [
        "12",
        "12",
    ]  # the workspace has two files of each picture
    files = [f.name for f in (tmp_path / "cache").rglob("*") if f.is_file()]
    assert len([name for name in files if name.endswith(".safetensors")]) == 12
    assert not [name for name in files if name.endswith(".tmp")]


# --- steps that teach nothing, or too much ---------------------------------------------------------------------------


def test_a_batch_without_negatives_is_counted_and_said(run: Any) -> None:
    clique = ["noto:1", "twemoji:1", "noto:2", "twemoji:2"]
    pairs = Pairs([(a, b) for n, a in enumerate(clique) for b in clique[n + 1 :]])
    result = run(pairs=pairs, **{"train.batch_size": 2, "train.max_steps": 3})
    assert result.steps_without_negatives == 3
    (note,) = (e for e in run.events if e["event"] == "note")
    assert note["text"].startswith("3 steps had no negatives")
    assert run("other").steps_without_negatives == 0


def test_what_counts_as_a_negative() -> None:
    exclude = torch.eye(4).bool()
    assert not has_no_negatives(exclude)
    exclude[0, 1] = exclude[1, 0] = exclude[2, 3] = exclude[3, 2] = True
    assert not has_no_negatives(exclude)  # 0 and 3 are left
    exclude[0, 3] = exclude[3, 0] = exclude[1, 2] = exclude[2, 1] = True
    assert has_no_negatives(exclude)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_the_last_good_checkpoint_outlives_a_loss_that_explodes(
    what: str, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forward, steps = TrainStep.forward, []

    def explode(self: TrainStep, *args: Any, **facts: Any) -> dict[str, Any]:
        out = forward(self, *args, **facts)
        steps.append(1)
        if len(steps) == 4:
            weight = self.model.head.weight
            out["loss"] = out["loss"] * torch.nan if what == "loss" else out["loss"] + (weight * 0).sum().sqrt()
        return out

    monkeypatch.setattr(TrainStep, "forward", explode)
    with pytest.raises(Failed, match=f"the {what} is (nan|inf) at step 4") as caught:
        run(**{"train.max_steps": 6})
    assert "checkpoint-2 is kept" in (caught.value.hint or "")
    (kept,) = (tmp_path / "run" / "checkpoints").glob("checkpoint-*")
    assert all(bool(t.isfinite().all()) for t in load_file(kept / "model.safetensors").values())
    monkeypatch.setattr(TrainStep, "forward", forward)
    assert (resumed := run(**{"train.max_steps": 6})).resumed_from == 2
    assert resumed.steps == 6


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_in_chunks_says_so_and_ends_where_the_plain_one_does(run: Any) -> None:
    plain = run("plain", **{"train.max_steps": 2})
    run.events.clear()
    cached = run("cached", **{"train.max_steps": 2, "train.grad_cache": 3})
    assert run.events[0]["grad_cache"] == 3
    one, two = weights(plain.bundle), weights(cached.bundle)
    assert max((one[k].float() - two[k].float()).abs().max() for k in one) < 1e-5


def test_rows_of_all_processes_stand_lefts_first() -> None:
    assert left_rows_first([4, 2, 4]).tolist() == [0, 1, 4, 6, 7, 2, 3, 5, 8, 9]


@pytest.mark.slow
@pytest.mark.parametrize("chunk", ["null", "2"])
def test_two_processes_are_one(
    chunk: str, workspace: Path, tiny_bundle: Path, tmp_path: Path, cli: Any, catalogue: Items
) -> None:
    """Mixed items, known positives across processes; the first step's gradient, and the weights after two steps."""
    (tmp_path / "items.jsonl").write_text(
        "".join(json.dumps({"id": i.id, "image": i.image, "title": i.title}) + "\n" for i in catalogue.items)
    )
    (tmp_path / "pairs.csv").write_text("".join(f"{a},{b}\n" for a, b in PAIRS) + "p3,i1\n")
    arguments: list[str | Path] = [
        "train", tiny_bundle, "--items", tmp_path / "items.jsonl", "--pairs", tmp_path / "pairs.csv",
        "--images", workspace / "images", "--max-steps", "2", "--batch-size", "4", "--lr", "1e-3", "--device", "cpu",
        "--set", "train.precision=fp32", "--set", "train.log_steps=1", "--set", "train.warmup=0", "--set", f"train.grad_cache={chunk}",
        "--set", "train.save_steps=1",
    ]  # fmt: skip
    alone_ = cli(*arguments, "-o", tmp_path / "one", "--json")
    assert alone_.code == 0, alone_.err
    done = together(2, [*arguments, "-o", tmp_path / "two", "--json"], alone(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = first_gradient(tmp_path / "one"), first_gradient(tmp_path / "two")
    assert one.keys() == two.keys()
    largest = max(g.abs().max() for g in one.values())
    assert largest > 0
    assert max((one[k] - two[k]).abs().max() for k in one) < 1e-5 * largest
    one, two = weights(tmp_path / "one/bundle"), weights(tmp_path / "two/bundle")
    before = weights(tiny_bundle)
    assert one.keys() == two.keys()
    # AdamW divides a gradient by its own size: of one that is near its eps, rounding shows. A wrong one is off by the rate, 1e-3.
    assert max((one[k].float() - two[k].float()).abs().max() for k in one) < 1e-4
    assert max((one[k].float() - before[k].float()).abs().max() for k in one) > 1e-3
    single = [json.loads(line) for line in alone_.out.splitlines()]
    double = [json.loads(line) for line in done.stdout.splitlines()]  # nothing but events, each once
    assert [e["event"] for e in double] == [e["event"] for e in single]
    assert next(e for e in double if e["event"] == "start")["processes"] == 2
    for a, b in zip(single, double, strict=True):
        if a["event"] == "step":
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
    events = (tmp_path / "two" / "events.jsonl").read_text().splitlines()
    assert len(events) == len(double) - 2  # what was read, and the result, are of the command


@pytest.mark.slow
def test_a_step_that_cannot_be_divided_is_refused_once(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = together(
        2,
        ["train", tiny_bundle, "--items", workspace / "items.jsonl", "--pairs", workspace / "train.csv", "--images", workspace / "images",
         "--batch-size", "3", "--device", "cpu", "-o", tmp_path / "odd"],
        alone(tmp_path),
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("error: train.batch_size 3 cannot be divided among 2 processes") == 1
    assert "hint: --batch-size 4" in done.stderr
