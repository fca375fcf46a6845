"""Training on pairs: it learns, resumes, refuses another run, keeps frozen parts."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import n2kit
from n2kit import Item, read_items, read_pairs
from n2kit.bundle import io as bundle
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.embed import encode
from n2kit.errors import BadInput, Failed
from n2kit.inputs.feature_cache import FeatureCache
from n2kit.inputs.reader import OnBadImage, Reader
from n2kit.recipe.settings import Recipe, resolve
from n2kit.train import RunResult, train
from n2kit.train.pairs import PairCollator
from n2kit.train.validate import found_in


@pytest.fixture
def run(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> Any:
    items = read_items(workspace / "items.jsonl")

    def call(folder: str = "run", pairs: Pairs | None = None, **settings: Any) -> RunResult:
        given = {
            "train.batch_size": 4,
            "train.save_steps": 2,
            "train.log_steps": 1,
            "train.lr": 1e-3,
            "train.precision": "fp32",
        }
        recipe = resolve(given | settings, base=bundle.read_recipe(tiny_bundle), env={}).recipe
        return train(
            tiny_bundle, items, pairs or read_pairs(workspace / "train.csv", items), recipe, tmp_path / folder,
            images=workspace / "images", val_pairs=read_pairs(workspace / "val.csv", items), report=call.events.append,  # type: ignore[attr-defined]
        )  # fmt: skip

    call.events = []  # type: ignore[attr-defined]
    return call


def weights(result: RunResult) -> dict[str, torch.Tensor]:
    root = Path(result.bundle)
    return {
        f"{f.relative_to(root)}:{k}": v for f in sorted(root.rglob("*.safetensors")) for k, v in load_file(f).items()
    }


def test_training_lowers_the_loss_and_reports_terms(run: Any, tiny_bundle: Path) -> None:
    result = run(**{"train.max_steps": 30, "train.lr": 3e-3, "train.new_lr": 3e-3})
    steps = [e for e in run.events if e["event"] == "step"]
    assert len(steps) == 30
    assert sum(e["loss"] for e in steps[-5:]) < 0.7 * sum(e["loss"] for e in steps[:5])
    assert {"multimodal", "visual", "temperature", "items_per_s", "eta_s"} <= set(steps[0])
    assert set(result.recall) == {"1", "10"}
    before, after = (
        load_file(tiny_bundle / "vision/model.safetensors"),
        load_file(Path(result.bundle) / "vision/model.safetensors"),
    )
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert bundle.load(result.bundle).encode([{"title": "x"}]).shape == (1, 16)
    assert bundle.read_manifest(Path(result.bundle)).fingerprint == result.fingerprint


def test_stopped_and_resumed_equals_unbroken(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after step 3 saves; the same command ends with the weights of a run that nobody stopped."""
    whole = run("whole", **{"train.max_steps": 8})

    real = run.events.append

    class Stop(list[Any]):
        def append(self, event: Any) -> None:
            real(event)
            if event["event"] == "step" and event["step"] == 3:
                os.kill(os.getpid(), signal.SIGINT)

    run.events = Stop()
    stopped = run("broken", **{"train.max_steps": 8})
    assert stopped.interrupted
    assert stopped.steps in (3, 4)
    run.events = []
    resumed = run("broken", **{"train.max_steps": 8})
    assert resumed.resumed_from == stopped.steps
    assert resumed.steps == 8
    one, two = weights(whole), weights(resumed)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert run("broken", **{"train.max_steps": 8}).done_before


def test_a_half_written_checkpoint_is_passed_over(run: Any, tmp_path: Path) -> None:
    run.events = []
    result = run(**{"train.max_steps": 4})
    (tmp_path / "run" / "result.json").unlink()
    broken = tmp_path / "run" / "checkpoints" / "checkpoint-4"
    (broken / "trainer_state.json").unlink()
    again = run(**{"train.max_steps": 4})
    assert again.resumed_from == 2
    one, two = weights(result), weights(again)
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_killed_between_the_last_checkpoint_and_the_bundle(run: Any, tmp_path: Path) -> None:
    result = run(**{"train.max_steps": 4})
    (tmp_path / "run" / "result.json").unlink()
    again = run(**{"train.max_steps": 4, "train.log_steps": 2})  # how often it logs changes no weight
    assert (again.resumed_from, again.steps) == (4, 4)
    assert again.recall == result.recall
    assert again.loss == pytest.approx(result.loss)


def test_a_run_may_tune_other_parts_than_were_built(run: Any, tiny_bundle: Path) -> None:
    result = run(**{"train.max_steps": 2, "vision.tune": "full", "train.lr": 1e-2})
    before, after = (
        load_file(tiny_bundle / "vision/model.safetensors"),
        load_file(Path(result.bundle) / "vision/model.safetensors"),
    )
    assert any(not torch.equal(before[k], after[k]) for k in before)


def test_a_project_file_cannot_change_what_a_bundle_is(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n2kit.yaml").write_text("head: {width: 128}\ntrain: {seed: 5}\n")
    recipe = resolve(base=bundle.read_recipe(tiny_bundle), env={}).recipe
    assert (recipe.head.width, recipe.train.seed) == (16, 5)


def test_a_folder_of_another_run_is_refused_with_both_hashes(run: Any, tmp_path: Path) -> None:
    run(**{"train.max_steps": 1})
    there = json.loads((tmp_path / "run" / "run.json").read_text())["run"]
    with pytest.raises(BadInput, match=there) as caught:
        run(**{"train.max_steps": 2})
    assert "another recipe (train.max_steps 1, now 2)" in caught.value.message
    hint = f"go on from its bundle: n2kit train {tmp_path / 'run'} -o {tmp_path / 'run-2'} …"
    assert hint in str(caught.value.hint)
    with pytest.raises(BadInput, match="another pairs$"):
        run(pairs=Pairs([("noto:1", "twemoji:2"), ("noto:2", "twemoji:1")]), **{"train.max_steps": 1})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(BadInput, match="is no run folder"):
        run("mine", **{"train.max_steps": 1})


def test_what_is_in_the_way_of_the_bundle_is_said_before_the_training(run: Any, tmp_path: Path) -> None:
    run(**{"train.max_steps": 1})
    (tmp_path / "run" / "result.json").unlink()  # killed before it was done
    (tmp_path / "run" / "bundle" / "thesis.tex").write_text("x")
    run.events.clear()
    with pytest.raises(BadInput, match="holds 'thesis.tex', which n2kit did not write"):
        run(**{"train.max_steps": 1})
    assert not run.events


def test_a_corrected_command_takes_over_a_folder_in_which_nothing_was_trained(run: Any, tmp_path: Path) -> None:
    with pytest.raises(Failed):
        run(
            **{
                "train.max_steps": 20,
                "train.lr": 1e30,
                "train.new_lr": 1e30,
                "train.warmup": 0,
                "train.save_steps": 100,
            }
        )
    corrected = {"train.max_steps": 2}
    assert run(**corrected).steps == 2
    assert run(**corrected).done_before
    assert "lr: 0.001" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_a_hook_that_raises_harms_no_training(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from n2kit.contract import hookimpl
    from n2kit.plugins.manager import manager
    from n2kit_cli.train import _reporter

    class Plugin:
        @hookimpl
        def n2kit_run_finished(self, run: Any) -> None:
            raise ValueError("no luck")

    plugin = Plugin()
    manager().hooks.add(plugin, "grumpy")
    try:
        assert run(**{"train.max_steps": 1}).steps == 1
    finally:
        manager().hooks.unregister(plugin)
    (warning,) = (e for e in run.events if e["event"] == "warning")
    assert warning["plugin"] == "grumpy"
    for event in run.events:  # the command line can show every event there is
        _reporter(lambda *a: None)(event)


def test_what_the_bundle_is_cannot_be_changed_by_training(run: Any) -> None:
    with pytest.raises(BadInput, match="head cannot be changed"):
        run(**{"head.width": 8})


def test_an_exploding_loss_names_the_items(run: Any) -> None:
    with pytest.raises(Failed, match=r"the loss is nan at step \d+; items of the batch: (noto|twemoji)"):
        run(**{"train.max_steps": 20, "train.lr": 1e30, "train.new_lr": 1e30, "train.warmup": 0})


def test_known_positives_and_same_items_are_excluded(workspace: Path, tiny_bundle: Path) -> None:
    items = read_items(workspace / "items.jsonl")
    model = bundle.load(tiny_bundle)
    pairs = Pairs([("noto:1", "twemoji:1"), ("noto:1", "twemoji:2"), ("noto:3", "twemoji:3")])
    out = PairCollator(items, pairs, Reader(model.prompt_builder, model.vision, workspace / "images"))(list(pairs))
    assert out["ids"] == ["noto:1", "noto:1", "noto:3", "twemoji:1", "twemoji:2", "twemoji:3"]
    exclude = out["exclude"]
    assert exclude[0, 1]  # the same item
    assert exclude[0, 4]  # a positive of it, in another pair
    assert exclude[4, 0]
    assert not exclude[0, 5]


def test_a_batch_says_how_alike_its_pairs_are_and_how_often_its_items_occur(tiny_bundle: Path) -> None:
    items = Items([Item(i, title=i) for i in "abcd"])
    pairs = Pairs([("a", "b"), ("a", "c"), ("a", "d")], grades={("a", "c"): 0.25, ("a", "d"): 0.0})
    collate = PairCollator(items, pairs, Reader(bundle.load(tiny_bundle).prompt_builder, None, None))
    out = collate([("a", "c"), ("a", "b")])
    assert out["grades"].tolist() == [0.25, 1.0]
    assert out["log_q"].exp().tolist() == pytest.approx([3 / 6, 3 / 6, 1 / 6, 1 / 6])


@pytest.mark.parametrize(
    ("loss", "options", "matters"), [("cosent", {}, True), ("infonce", {"loss.log_q": True}, False)]
)
def test_a_graded_pairs_file_reaches_the_loss(
    loss: str, options: dict[str, Any], matters: bool, workspace: Path, tmp_path: Path
) -> None:
    """The first loss of a run with the grades, and of one without: they differ where the loss reads grades."""
    items = read_items(workspace / "items.jsonl")
    lines = (workspace / "train.csv").read_text().splitlines()
    graded = [f"{line},{n / 10}" for n, line in enumerate(lines[1:], 1)]
    (tmp_path / "graded.csv").write_text("\n".join([f"{lines[0]},score", *graded]))
    settings: dict[str, Any] = {"variant": "text_only", "loss": loss, "head.width": 8, "train.max_steps": 2, **options}
    settings |= {"train.precision": "fp32", "train.log_steps": 1, "train.batch_size": 4}
    n2kit.build("qwen:tiny", settings=settings).save(tmp_path / "bundle")
    first = []
    for name, path in (("graded", tmp_path / "graded.csv"), ("plain", workspace / "train.csv")):
        pairs = read_pairs(path, items)
        events: list[dict[str, Any]] = []
        recipe = bundle.read_recipe(tmp_path / "bundle")
        result = train(tmp_path / "bundle", items, pairs, recipe, tmp_path / name, report=events.append)
        assert result.steps == 2
        first.append(next(e["loss"] for e in events if e["event"] == "step"))
    assert (first[0] != first[1]) == matters


def test_cached_features_change_nothing(workspace: Path, tiny_bundle: Path) -> None:
    items = read_items(workspace / "items.jsonl").items[:6]
    model = bundle.load(tiny_bundle)
    assert model.vision is not None
    cache = FeatureCache(model.vision, 10**9)
    options: dict[str, Any] = {"images": workspace / "images", "precision": "fp32"}
    plain = model.encode(items, **options)
    first = encode(model, items, cache=cache, **options).vectors
    kept = len(cache.kept)
    again = encode(
        model, items, images=workspace / "nowhere", precision="fp32", cache=cache
    ).vectors  # no picture is opened
    assert kept == 6
    assert abs(plain - first).max() < 1e-6
    assert abs(plain - again).max() < 1e-6
    small = FeatureCache(model.vision, 1)
    assert abs(plain - encode(model, items, cache=small, **options).vectors).max() < 1e-6
    assert not small.kept


def test_pictures_are_looked_for_before_the_first_step(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Those of training, of validation, and of hard negatives."""
    images = tmp_path / "images"
    shutil.copytree(workspace / "images", images)
    items = read_items(workspace / "items.jsonl")
    pairs, val = read_pairs(workspace / "train.csv", items), read_pairs(workspace / "val.csv", items)
    own = bundle.read_recipe(tiny_bundle)
    recipe = resolve({"train.batch_size": 2, "train.max_steps": 2, "train.eval_steps": 2}, base=own, env={}).recipe
    events: list[dict[str, Any]] = []

    def go(pairs: Pairs = pairs, val: Pairs | None = val, policy: OnBadImage = "error") -> RunResult:
        return train(
            tiny_bundle, items, pairs, recipe, tmp_path / "run", images=images, val_pairs=val, on_bad_image=policy,
            report=events.append,
        )  # fmt: skip

    for name in ("noto_8.png", "noto_9.png"):  # one of each validation pair
        (images / name).write_text("no picture")
    with pytest.raises(BadInput, match=r"image 'noto_8.png': not an image"):
        go()
    with pytest.raises(BadInput, match="no validation pair whose two items can be read"):
        go(policy="skip")
    with pytest.raises(BadInput, match=r"image 'noto_8.png': not an image"):
        go(replace(pairs, negatives={next(iter(pairs)): ("noto:8",)}), None)
    assert not [e for e in events if e["event"] == "step"]
    assert go(policy="text-only").steps == 2


def test_a_picture_that_only_decoding_finds_broken_costs_no_step(
    workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(workspace / "images", images)
    items = read_items(workspace / "items.jsonl")
    pairs = read_pairs(workspace / "train.csv", items)
    recipe = resolve(
        {"train.batch_size": 2, "train.max_steps": 4, "train.log_steps": 1},
        base=bundle.read_recipe(tiny_bundle),
        env={},
    ).recipe
    events: list[dict[str, Any]] = []

    def go(policy: OnBadImage = "error") -> RunResult:
        return train(
            tiny_bundle,
            items,
            pairs,
            recipe,
            tmp_path / "run",
            images=images,
            on_bad_image=policy,
            report=events.append,
        )

    file = images / "noto_5.png"
    file.write_bytes(file.read_bytes()[:60])  # the header is whole
    with pytest.raises(BadInput, match=r"image 'noto_5.png'"):
        go()
    done = max(e["step"] for e in events if e["event"] == "step")
    assert 1 <= done < 4
    finished = go("text-only")
    assert (finished.resumed_from, finished.steps) == (done, 4)


def test_bad_images_in_training(workspace: Path, run: Any, tmp_path: Path, tiny_bundle: Path) -> None:
    items = read_items(workspace / "items.jsonl")
    images = tmp_path / "images"
    images.mkdir()
    for file in (workspace / "images").iterdir():
        (images / file.name).write_bytes(b"broken" if file.name == "noto_1.png" else file.read_bytes())
    pairs = read_pairs(workspace / "train.csv", items)
    recipe: Recipe = resolve(
        {"train.max_steps": 2, "train.batch_size": 8}, base=bundle.read_recipe(tiny_bundle), env={}
    ).recipe
    with pytest.raises(BadInput, match="item 'noto:1'.*not an image"):
        train(tiny_bundle, items, pairs, recipe, tmp_path / "r1", images=images)
    smallest = recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_size": 2, "max_steps": 6})})
    skipped = train(tiny_bundle, items, pairs, smallest, tmp_path / "two", images=images, on_bad_image="skip")
    assert skipped.steps == 6  # a batch is filled up where a bad picture leaves one pair
    for policy in ("skip", "text-only"):
        result = train(tiny_bundle, items, pairs, recipe, tmp_path / policy, images=images, on_bad_image=policy)  # type: ignore[arg-type]
        assert list(result.skipped) == ["noto:1"]


@pytest.mark.parametrize("variant", ["notellm2", "only_late_fusion"])
def test_a_frozen_text_space_stays_what_it_is(variant: str, workspace: Path, tmp_path: Path) -> None:
    """Items of text alone keep the frozen language model's own vectors to the bit, and those with a picture move."""
    settings = {"head.width": None, "llm.tune": "frozen", "vision.tune": "frozen"}
    model = n2kit.build("qwen:tiny", "siglip:tiny", connector="qformer:tiny", variant=variant, settings=settings)
    model.save(tmp_path / "start")
    run = n2kit.train(
        tmp_path / "start", workspace / "items.jsonl", workspace / "train.csv", images=workspace / "images",
        out=tmp_path / "run", max_steps=2, batch_size=4, lr=0.1,
    )  # fmt: skip
    trained = n2kit.load(run.bundle)
    texts = ["oak chair", {"title": "a cup", "topics": ["kitchen"]}]
    kept = trained.encode(texts, precision="fp32")
    assert (kept == model.encode(texts, precision="fp32")).all()
    prompt = model.prompt_builder(Item("0", title="oak chair"), image=False)
    with torch.no_grad():
        state = model.llm(model.llm.embed(torch.tensor([prompt.ids])))[0, -1]
    own = torch.nn.functional.normalize(state, dim=-1)
    torch.testing.assert_close(torch.from_numpy(kept[0]), own, atol=1e-6, rtol=0)
    picture = {"title": "x", "image": "noto_3.png"}
    before, after = (one.encode(picture, images=workspace / "images") for one in (model, trained))
    assert abs(after - before).max() > 1e-3


def test_validation_ranks_all_pairs_of_items_that_share_some() -> None:
    """As n2kit eval does: one to one where the pairs are, else every pair, and each query among all other items."""
    assert found_in([("a", "b"), ("c", "d")]) == (2, 2, 2)
    assert found_in([("a", "b"), ("a", "c"), ("b", "c"), ("a", "b"), ("c", "c")]) == (2, 3, 2)
    assert found_in([]) == (0, 0, 0)


def test_a_result_of_before_there_were_pools_is_still_said() -> None:
    old = RunResult(
        "b", "f", 4, 1.0, 0.1, {"1": 0.5}, None, True, False, {}, val_queries=10, intervals={"1": (0.2, 0.8)}
    )
    assert old.sentence() == (
        "50.0 % (95 % interval 20.0 to 80.0) of the queries have their right item first of 10 (10 queries of the validation pairs)."
    )
