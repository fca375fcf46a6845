"""Which cells a matrix has, what they are called, what their keys depend on, and what bad input gets. Nothing is trained here."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from n2kit.bench import identity
from n2kit.bench.cells import Cell
from n2kit.bench.commands import commands
from n2kit.bench.expand import expand
from n2kit.bench.presets import filled
from n2kit.bench.spec import Matrix, read_matrix
from n2kit.bench.store import Store
from n2kit.bench.tasks import crowded, open_cells, tasks
from n2kit.errors import BadInput
from n2kit.recipe import Recipe
from n2kit.templates import load_template
from n2kit.weights import Weights

NAMES = ("items", "images", "pairs", "val_pairs", "test_pairs", "pool", "on_bad_image")
DATA: dict[str, str | None] = dict.fromkeys(NAMES, "same")
TINY = {"llm": "qwen:tiny", "vision": "siglip:tiny", "connector": "qformer:4"}
CONFIG = {
    "model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 64, "vocab_size": 100, "max_position_embeddings": 512,
}  # fmt: skip
FILES = ("--items", "items.jsonl", "--pairs", "train.csv", "--test-pairs", "test.csv", "--images", "images")


def cells(data: dict[str, str | None] = DATA, **matrix: Any) -> list[Cell]:
    return expand(filled(Matrix.model_validate(TINY | matrix)), data)


def checkpoint(folder: Path, value: int) -> None:
    """What a plan reads of a language model."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file({"model.embed_tokens.weight": np.full((100, 32), value, np.float32)}, folder / "model.safetensors")


def arms(found: list[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.arm for cell in found))


def test_what_a_variant_does_not_use_multiplies_nothing() -> None:
    found = cells(
        vision="siglip:tiny,clip:tiny", connector="qformer:4,mlp", fusion="gate,sum",
        variant="text_only,only_late_fusion,basic,notellm2",
    )  # fmt: skip
    count = {
        v: sum(cell.axes["variant"] == v for cell in found)
        for v in ("text_only", "only_late_fusion", "basic", "notellm2")
    }
    assert count == {"text_only": 1, "only_late_fusion": 4, "basic": 4, "notellm2": 8}
    text = found[0].axes
    assert (text["vision"], text["connector"], text["fusion"]) == (None, None, None)


def test_seeds_are_a_number_or_a_list() -> None:
    assert [cell.seed for cell in cells(seeds=3)] == [0, 1, 2]
    assert [cell.seed for cell in cells(seeds=[7, 5, 7])] == [7, 5]
    assert len({cell.key for cell in cells(seeds=3)}) == 3


def test_labels_are_short_and_can_be_told_apart(tmp_path: Path) -> None:
    folders = []
    for place in ("one", "two"):
        folder = tmp_path / place / "my-llm"
        folder.mkdir(parents=True)
        checkpoint(folder, len(folders))
        folders.append(folder)
    one = f"qwen@file:{folders[0]}"
    assert arms(cells(llm=one, variant="text_only")) == ["my-llm+text_only"]
    both = arms(cells(llm=f"{one},qwen@file:{folders[1]}", variant="text_only"))
    assert both == [f"qwen:0.6b@file:{folder}+text_only" for folder in folders]
    alone = arms(cells(llm=f"{one},qwen@file:{folders[1]}", baselines="text,text-linear", seeds=2))
    assert alone == [f"{name}: qwen:0.6b@file:{folder}" for name in ("text", "text-linear") for folder in folders]
    assert arms(cells(loss="infonce")) == ["qwen:tiny+siglip:tiny+qformer:4+gate+infonce+notellm2"]


def test_arms_add_to_the_product_and_share_trainings() -> None:
    wanted = [
        {"name": "blind", "inference": "no-image"},
        {"name": "few", "settings": {"connector": {"tokens": 2}}},
        {"name": "fresh", "trained": False},
    ]
    full, blind, few, fresh = cells(variant="notellm2", arms=wanted)
    assert blind.arm == f"{full.arm} (blind)"
    assert (blind.run_key, blind.key != full.key) == (full.run_key, True)
    assert (few.axes["connector"], few.axes["setting"]) == ("qformer:2", {"connector.tokens": 2})
    assert fresh.run_key != full.run_key
    assert [len(task.cells) for task in tasks([full, blind, few, fresh])] == [4, 2, 1, 1]  # features of one tower first


def test_an_arm_that_is_no_other_is_there_once() -> None:
    assert len(cells(variant="notellm2", arms=[{"name": "four tokens", "settings": {"connector.tokens": 4}}])) == 1


def test_inference_without_what_a_variant_does_not_read_is_refused() -> None:
    (cell,) = cells(arms=[{"name": "blind", "variant": "text_only", "inference": "no-image"}])
    assert cell.refusal is not None
    assert "reads text alone" in cell.refusal[0]


def test_combinations_that_cannot_be_are_refused_by_the_rules_of_the_plan() -> None:
    good, bad = cells(fusion="gate,none", variant="notellm2")
    assert good.refusal is None
    assert bad.refusal is not None
    assert "fusion none was asked for" in bad.refusal[0]


def test_models_without_chance_or_training_have_one_seed() -> None:
    alone = {"name": "zero", "variant": "text_only", "trained": False, "settings": {"head.width": None}}
    assert [cell.seed for cell in cells(arms=[alone], seeds=3)] == [0]
    assert len(cells(arms=[alone | {"settings": {}}], seeds=3)) == 3  # the head is random


def test_baselines_take_the_backbones_that_they_read_and_seeds_if_they_are_trained() -> None:
    found = cells(
        llm="qwen:tiny,llama:tiny", vision="siglip:tiny,clip:tiny", baselines="tfidf,text,vision,concat", seeds=3
    )
    count = {name: sum(cell.baseline == name for cell in found) for name in ("tfidf", "text", "vision", "concat")}
    assert count == {"tfidf": 1, "text": 2, "vision": 2, "concat": 4 * 3}
    assert len(found) == sum(count.values())  # and no variant, for none was named
    assert arms(found)[:4] == ["tfidf", "text: qwen:tiny", "text: llama:tiny", "vision: siglip:tiny"]
    assert "concat: qwen:tiny+clip:tiny" in arms(found)
    work = [task for task in tasks(found) if not task.features]
    assert sorted(len(task.cells) for task in work) == [3, 7, 7]  # those without an LLM, and those of each
    head = {"baseline.max_steps": 7}
    changed = [a.baseline for a, b in zip(found, cells(
        llm="qwen:tiny,llama:tiny", vision="siglip:tiny,clip:tiny", baselines="tfidf,text,vision,concat", seeds=3, settings=head
    ), strict=True) if a.key != b.key]  # fmt: skip
    assert set(changed) == {"concat"}
    assert cells(variant="basic", settings=head)[0].key == cells(variant="basic")[0].key


def test_learning_rates_of_parts_that_there_are_not_change_nothing() -> None:
    rate = {"train.lrs.connector": 1e-3}
    assert cells(variant="text_only", settings=rate)[0].key == cells(variant="text_only")[0].key
    assert cells(variant="basic", settings=rate)[0].key != cells(variant="basic")[0].key


def test_weights_of_a_hub_go_by_their_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(Weights, "locate", lambda self, patterns=None: Path("hub/snapshots") / commit)
    for revision in (None, "main", commit):
        assert identity.weights_id(Weights("hf", "org/name", revision)) == f"hf:org/name@{commit}"


def test_baselines_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(identity, "version", version)
    (words,) = cells(baselines="tfidf")
    assert words.refusal == (
        "the baseline tfidf needs scikit-learn, which is not installed",
        'pip install "n2kit[bench]"',
    )
    (text,) = expand(Matrix(mllm=["llava:tiny"], baselines=["text"]), DATA)
    assert (text.arm, (text.refusal or ("",))[0]) == ("text: llava:tiny", "baseline text takes no multimodal LLM apart")


def test_commands_say_how_the_parts_of_a_multimodal_llm_are_tuned() -> None:
    (cell,) = expand(Matrix(mllm=["llava:tiny"], settings={"llm.tune": "lora:4", "train.max_steps": 3}), DATA)
    build = commands(cell, Matrix(), Path("out")).partition(";")[0]
    assert "--mllm llava:tiny" in build
    assert """--set 'llm.tune="lora:4"'""" in build
    assert "--llm" not in build


def test_how_joined_models_are_trained_changes_no_baseline() -> None:
    same = [cells(baselines="concat", settings=s)[0].key for s in ({}, {"train.max_steps": 9}, {"train.lr": 1e-3})]
    assert len(set(same)) == 1
    assert cells(baselines="concat", settings={"head.width": 8})[0].key != same[0]


# ---- keys


def test_keys_go_by_content_and_not_by_path(tmp_path: Path) -> None:
    keys = []
    for place in ("here", "there"):
        folder = tmp_path / place
        folder.mkdir()
        checkpoint(folder, 0)
        (folder / "README.md").write_text(place)  # no part of the model
        keys.append(cells(llm=f"qwen@file:{folder}", variant="text_only")[0].key)
    assert keys[0] == keys[1]
    checkpoint(tmp_path / "there", 1)
    assert cells(llm=f"qwen@file:{tmp_path / 'there'}", variant="text_only")[0].key != keys[0]


@pytest.mark.parametrize("setting", ["train.log_steps=3", "train.save_steps=7", "train.feature_cache_gb=1.5"])
def test_settings_that_change_no_result_change_no_key(setting: str) -> None:
    key, value = setting.split("=")
    assert cells(settings={key: float(value) if "." in value else int(value)})[0].key == cells()[0].key


@pytest.mark.parametrize(
    "setting", [{"train.lr": 1e-3}, {"head.width": 32}, {"llm.tune": "frozen"}, {"prompt.template": "compact"}]
)
def test_settings_that_change_the_result_change_the_key(setting: dict[str, Any]) -> None:
    assert cells(settings=setting)[0].key != cells()[0].key


def test_settings_that_count_are_those_that_make_another_run() -> None:
    from n2kit.train.run import FREE

    assert FREE["train"] | {"seed"} == identity.UNSEEN


def test_epochs_count_only_without_max_steps() -> None:
    steps = {"train.max_steps": 5}
    assert cells(settings=steps)[0].key == cells(settings=steps | {"train.epochs": 9})[0].key
    assert cells()[0].key != cells(settings={"train.epochs": 9})[0].key


@pytest.mark.parametrize("name", NAMES)
def test_other_data_is_another_cell_where_it_matters(name: str) -> None:
    other = cells(DATA | {name: "other"}, variant="notellm2")[0]
    same = cells(variant="notellm2")[0]
    assert other.key != same.key
    assert (other.run_key == same.run_key) == (name in ("test_pairs", "pool"))  # what only the evaluation sees


def test_pictures_do_not_matter_to_a_text_alone() -> None:
    assert cells(DATA | {"images": "other"}, variant="text_only")[0].key == cells(variant="text_only")[0].key


def test_defaults_are_those_of_the_cell_version() -> None:
    """What is left at its default is not in a key. Whoever changes one of these raises CELL_VERSION, and this test."""
    train = Recipe().train.model_dump(
        include={"batch_size", "lr", "new_lr", "lrs", "layer_decay", "weight_decay", "warmup"}
    )
    known = {
        "batch_size": 16,
        "lr": 3e-6,
        "new_lr": 1e-4,
        "lrs": {},
        "layer_decay": 1.0,
        "weight_decay": 0.001,
        "warmup": 0.1,
    }
    assert (identity.CELL_VERSION, train, Recipe().train.epochs) == (1, known, 1.0)
    prompt = Recipe().prompt.model_dump(exclude={"template"})
    assert prompt == {"body_tokens": 140, "title_chars": None, "content_chars": None, "topics": None}
    assert load_template("en").suffix == ' The compression word is:"'


# ---- presets


def test_the_paper_is_complete_for_a_connector_that_chooses_its_tokens() -> None:
    found = cells(preset="paper", connector="qformer:16")
    assert not [cell for cell in found if cell.refusal]
    text = "\n".join(arms(found))
    for variant in ("text_only", "only_late_fusion", "basic", "late_early_fusion", "micl", "notellm2"):
        assert re.search(rf"\+{variant}$", text, re.M), variant
    for name in ("zero-shot", "8 tokens", "32 tokens", "48 tokens", "weights 1:1", "weights 3:1", "weights 19:1"):
        assert f"({name})" in text
    for name in ("+basic (without image)", "+notellm2 (without image)", "+notellm2 (without text)"):
        assert name in text
    assert {cell.seed for cell in found} == {0, 1, 2}
    trained = {cell.run_key for cell in found if cell.trained}
    assert len(trained) < len([cell for cell in found if cell.trained])


def test_arms_of_the_paper_that_the_parts_do_not_allow_are_refused() -> None:
    refused = {cell.arm: cell.refusal[0] for cell in cells(preset="paper", connector="mlp", seeds=1) if cell.refusal}
    assert list(refused) == [f"qwen:tiny+siglip:tiny+mlp:{n}+gate+notellm2 ({n} tokens)" for n in (32, 48)]
    assert all("gives 16" in reason for reason in refused.values())
    other = {cell.arm: cell.refusal[0] for cell in cells(preset="paper", loss="infonce", seeds=1) if cell.refusal}
    assert all("text_weight" in reason for reason in other.values())
    assert len(other) == 4


def test_a_preset_fills_in_what_is_not_said() -> None:
    quick = filled(Matrix.model_validate(TINY | {"preset": "quick", "variant": "micl"}))
    assert (quick.variant, quick.settings["train.max_steps"], quick.seeds) == (["micl"], 20, [0])
    again = Matrix.model_validate(__import__("yaml").safe_load(quick.to_yaml()))
    assert again == quick


def test_the_paper_follows_attention_unless_it_is_told_not_to() -> None:
    assert filled(Matrix.model_validate(TINY | {"preset": "paper"})).saliency > 0
    assert filled(Matrix.model_validate(TINY | {"preset": "paper", "saliency": 0})).saliency == 0


def test_arms_that_come_to_the_same_are_named(tmp_path: Path) -> None:
    found = cells(preset="paper", connector="qformer:16", seeds=1)
    (full,) = [cell for cell in found if cell.arm.endswith("+notellm2")]
    assert full.also == ("16 tokens", "weights 9:1")
    assert open_cells(Store(tmp_path), found, only="weights 9:1") == [full]
    assert Store(tmp_path).row(full)["also"] == full.also


def test_a_seed_among_the_settings_is_refused() -> None:
    for wrong in ({"settings": {"train.seed": 7}}, {"arms": [{"name": "x", "settings": {"train.seed": 7}}]}):
        with pytest.raises(BadInput, match=r"train\.seed is no setting of a matrix"):
            cells(**wrong)


# ---- which are to be run


def test_a_refusal_of_today_leaves_what_was_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (cell,) = cells(variant="basic")
    store.write(store.row(cell) | {"state": "done", "metrics": {"mrr": {"value": 1.0}}})
    now = replace(cell, refusal=("it cannot be", ""))
    assert [row["state"] for row in store.collect([now])] == ["refused"]
    assert open_cells(store, [now]) == []
    assert [row["metrics"] for row in store.collect([cell])] == [{"mrr": {"value": 1.0}}]


def test_a_row_without_a_state_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (cell,) = cells(variant="basic")
    store.write(store.row(cell) | {"state": "failed"})
    file = store.folder_of(cell.key) / "cell.json"
    row = json.loads(file.read_text())
    del row["state"]
    file.write_text(json.dumps(row))
    assert store.read(cell) is None
    assert open_cells(store, [cell]) == [cell]


def test_vectors_serve_cells_that_are_measured_differently(tmp_path: Path) -> None:
    """And those that want no saliency, where the model was followed; not those that want another one."""
    store = Store(tmp_path)
    kinds = {
        "plain": {}, "ks": {"ks": [5]}, "followed": {"saliency": 4}, "otherwise": {"saliency": 4, "bootstrap": 9},
        "seed": {"seeds": [1]},
    }  # fmt: skip
    found = {name: cells(variant="basic", **more)[0] for name, more in kinds.items()}
    assert len({cell.key for cell in found.values()}) == 5
    store.write(store.row(found["followed"]) | {"state": "done"})
    assert store.vectors() == {}  # there is a row, and no vectors
    home = store.folder_of(found["followed"].key)
    (home / "vectors.parquet").write_bytes(b"cut shor")
    assert store.vectors() == {}
    (home / "vectors.parquet").write_bytes(b"whole PAR1")
    (tmp_path / "cells" / "damaged").mkdir()
    for name in ("vectors.parquet", "cell.json"):
        (tmp_path / "cells" / "damaged" / name).write_bytes(b"{PAR1")
    served = {name: cell.source(store.vectors()) for name, cell in found.items()}
    key = found["followed"].key
    assert served == {"plain": key, "ks": key, "followed": key, "otherwise": None, "seed": None}


def test_saliency_is_no_matter_of_cells_that_have_none() -> None:
    def keys(**more: Any) -> list[str]:
        arms = [{"name": "blind", "variant": "basic", "inference": "no-image"}]
        return [cell.key for cell in cells(variant="text_only,only_late_fusion", arms=arms, **more)]

    assert keys(saliency=8) == keys()


def test_only_and_retry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    text, full = cells(variant="text_only,notellm2")
    assert open_cells(store, [text, full]) == [text, full]
    assert open_cells(store, [text, full], only="*+text_only") == [text]
    assert open_cells(store, [text, full], only=full.key) == [full]
    with pytest.raises(BadInput, match="fits no arm and no key"):
        open_cells(store, [text, full], only="text")
    store.write(store.row(text) | {"state": "done"})
    assert open_cells(store, [text, full]) == [text, full]  # its ranks are lost
    (store.folder_of(text.key) / "ranks.parquet").write_bytes(b"PAR1")
    store.write(store.row(full) | {"state": "failed"})
    assert open_cells(store, [text, full]) == []
    assert open_cells(store, [text, full], retry=True) == [full]


def test_a_folder_of_other_data_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    store.claim(DATA)
    store.claim(DATA)
    with pytest.raises(BadInput, match="another test_pairs, pool"):
        store.claim(DATA | {"test_pairs": "x", "pool": None})


def test_a_bench_that_was_killed_while_it_made_the_folder_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".data.json.tmp").write_text("{")
    Store(tmp_path).claim(DATA)
    assert (tmp_path / "data.json").is_file()


def test_commands_pass_over_pairs_of_items_that_were_skipped() -> None:
    (cell,) = cells(variant="basic")
    files = {name: Path(name) for name in ("items", "pairs", "test_pairs", "images")}
    for policy, lenient in (("skip", True), ("text-only", False)):
        said = commands(cell, Matrix.model_validate(TINY | files | {"on_bad_image": policy}), Path("out"))
        assert ("--lenient" in said.rpartition("n2kit eval")[2]) == lenient
        assert "--lenient" not in said.rpartition("n2kit eval")[0]


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).claim(DATA)
    with Store(tmp_path).locked(), pytest.raises(BadInput, match="in use by another process"), Store(tmp_path).locked():
        pass


def test_features_that_have_no_room_are_said() -> None:
    found = cells(vision="siglip:tiny,clip:tiny", variant="basic,text_only", settings={"train.feature_cache_gb": 1})
    values = {cell.tower.name: cell.tower.values for cell in found if cell.tower is not None}
    assert crowded(found, 1000) is None
    many = int(1.5e9 / 4 / sum(values.values()))
    said = crowded(found, many) or ""
    assert f"features of {many} images by siglip:tiny and clip:tiny take up to 1.5 GB" in said
    assert "--set train.feature_cache_gb=2" in said


# ---- bad input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("llm: [qwen\nvision: x", ":2: not valid YAML"),
        ("- a\n- b", ":1: expected the matrix by its keys"),
        ("llm: qwen\nvariants: basic", ":2: variants: there is no such key; did you mean variant"),
        ("llm: qwen\nseeds: -1", ":2: seeds"),
        ("seeds: [0, x]", ":1: seeds.1"),
        ("preset: papers", ":1: preset: Input should be 'paper' or 'quick'"),
        ("arms:\n- name: a\n- name: a", "two arms of one variant are called 'a'"),
        ("arms:\n- name: a\n  infrence: no-image", ":3: arms.0.infrence: there is no such key; did you mean inference"),
        ("bootstrap: many\nks: [0]", "2 entries are wrong"),
        ("bootstrap: 100000000\nks: [9999999999999]", "2 entries are wrong"),
        ("llm: qwen\nsettings: foo", ":2: settings"),
        ("seeds: 5\nllm: qwen\nseeds: 1", ":3: not valid YAML: the key 'seeds' is there twice"),
        ("seeds: 100000000000000000000", ":1: seeds: at most 1000 seeds"),
        ("llm: &x [*x]", "not valid YAML"),
        ("llm: ','", ":1: llm: names nothing"),
    ],
)
def test_a_wrong_matrix_file_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "matrix.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=re.escape(message)):
        read_matrix(file, {})


def test_flags_count_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "matrix.yaml"
    file.write_text("llm: [qwen:tiny]\nseeds: 2\nsettings:\n  train:\n    max_steps: 3\n    lr: 1e-4\n")
    read = read_matrix(file, {"seeds": 3, "settings": {"train.max_steps": 7}})
    assert (read.llm, read.seeds, read.settings) == (["qwen:tiny"], [0, 1, 2], {"train.max_steps": 7, "train.lr": 1e-4})


@pytest.mark.usefixtures("at_workspace")
@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--variant", "bassic"), "there is no variant 'bassic'", "did you mean basic"),
        (("--llm", "qwenn:tiny"), "unknown llm 'qwenn'", "did you mean qwen"),
        (("--vision", "qwen:tiny"), "'qwen' is a llm, not a vision", "--llm qwen:tiny"),
        (("--connector", "qformer:0"), "connector", "n2kit ls connector"),
        (("--preset", "papers"), "--preset: preset: Input should be", "docs/bench.md"),
        (("--set", "train.lrr=1"), "train.lrr", "n2kit config show"),
        (("--set", "x"), "expected key=value", "train.lr"),
        (("--baselines", "tfdif"), "unknown baseline 'tfdif'", "did you mean tfidf"),
        (("--baselines", "concat", "--set", "baseline.steps=3"), "baseline.steps", "baseline.max_steps"),
        (("--pairs", "none.csv"), "no pairs file none.csv", ""),
        (("--items", "none.jsonl"), "none.jsonl", ""),
        (("--pool", "none.csv"), "none.csv", ""),
        (("no.yaml",), "no matrix file no.yaml", "n2kit bench --help"),
        (("-o", "items.csv"), "n2kit bench did not make it", "another -o"),
        (("-o", "images"), "n2kit bench did not make it", "another -o"),
        (("--seeds", "0"), "--seeds", ""),
        (("--jobs", "0"), "--jobs", ""),
        (("--max-steps", "0"), "--max-steps", ""),
        (("--map", "title"), "--map 'title': expected field=column", "--map title=name"),
        (("--map", "title=0"), "no column", ""),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    cli: Any, tmp_path: Path, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    out = () if "-o" in arguments else ("-o", tmp_path / "out")
    done = cli("bench", *FILES, "--llm", "qwen:tiny", "--vision", "siglip:tiny", *arguments, *out)
    error = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert (done.code, message in error, hint in done.err) == (2, True, True), done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("at_workspace")
def test_data_must_be_named(cli: Any) -> None:
    done = cli("bench", "--llm", "qwen:tiny")
    assert (done.code, "error: the matrix names no items" in done.err) == (2, True)
    assert "--test-pairs FILE" in cli("bench", *FILES[:4]).err


@pytest.mark.usefixtures("at_workspace")
def test_no_torch_where_nothing_is_run(workspace: Path, tmp_path: Path) -> None:
    """A matrix that is done is shown in no time."""
    import subprocess
    import sys

    shutil.copytree(workspace, tmp_path / "w")
    code = (
        "import sys; from n2kit.bench.expand import expand; from n2kit.bench.matrix import run_matrix;"
        "from n2kit.bench.spec import Matrix; from n2kit.bench.data import read_data\n"
        "m = Matrix(llm=['qwen:tiny'], vision=['siglip:tiny'], items='items.jsonl', pairs='train.csv', test_pairs='test.csv', images='images')\n"
        "print(len(expand(m, read_data(m)[0].digests)), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path / "w", check=True)
    assert done.stdout.split() == ["1", "False"]


# ---- docs/bench.md


PAGE = (Path(__file__).parents[1] / "docs" / "bench.md").read_text("utf8")


def test_every_flag_has_its_line(cli: Any) -> None:
    flags = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", cli("bench", "--help").out, re.M)) - {"--help"}
    lines = re.findall(r"^\| (`.*?) \|", PAGE.split("## Each flag")[1].split("## How")[0], re.M)
    assert flags == set(re.findall(r"`(--[\w-]+)", " ".join(lines)))


def test_the_file_of_the_page_is_a_matrix(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    file = tmp_path / "matrix.yaml"
    file.write_text(text)
    matrix = read_matrix(file, {})
    assert matrix.settings == {"train.max_steps": 300, "train.new_lr": 2e-3}
    named = set(re.findall(r"`(\w+)`", PAGE.split("Other keys: ")[1].split("as the flags")[0]))
    assert named | matrix.model_fields_set == set(Matrix.model_fields)
