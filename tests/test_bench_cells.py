"""The cells of a matrix, and their names. Nothing is trained here."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from bench_cells import DATA, TINY, arms, cells, checkpoint
from n2kit.bench.matrix import keys
from n2kit.bench.matrix.baseline_names import BASELINES
from n2kit.bench.matrix.commands import commands
from n2kit.bench.matrix.expand import expand
from n2kit.bench.matrix.presets import filled
from n2kit.bench.matrix.spec import MatrixSpec
from n2kit.bench.runner.store import Store
from n2kit.bench.runner.tasks import pending_cells, tasks
from n2kit.errors import BadInput


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


def test_a_baseline_without_a_gradient_has_one_seed_and_depends_on_the_pairs_that_it_reads_alone() -> None:
    names = "text-std,vision-std,concat-std,whitened,whitened-no-pairs"
    matrix = MatrixSpec.model_validate(TINY | {"baselines": names, "seeds": 3})
    before = list(expand(matrix, DATA))
    assert [cell.baseline for cell in before] == names.split(",")
    assert not any(cell.trained for cell in before)
    reads = {"val_pairs": {"whitened"}, "test_pairs": set(names.split(","))}  # of test pairs the figures alone
    for changed, expected in reads.items():
        after = expand(matrix, DATA | {changed: "other"})
        moved = {a.baseline for a, b in zip(before, after, strict=True) if a.key != b.key}
        assert moved == expected


def test_presets_have_baselines_without_a_gradient() -> None:
    paper, quick = (filled(MatrixSpec.model_validate(TINY | {"preset": name})).baselines for name in ("paper", "quick"))
    assert set(paper) == set(BASELINES) - {"mllm"}  # which is another matrix's
    assert quick == ["tfidf", "vision", "concat-std", "whitened"]


def test_baselines_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(keys, "version", version)
    (words,) = cells(baselines="tfidf")
    assert words.refusal == (
        "the baseline tfidf needs scikit-learn, which is not installed",
        'pip install "n2kit[bench]"',
    )
    (text,) = expand(MatrixSpec(mllm=["llava:tiny"], baselines=["text"]), DATA)
    assert (text.arm, (text.refusal or ("",))[0]) == ("text: llava:tiny", "baseline text takes no multimodal LLM apart")


def test_a_multimodal_llm_as_it_is_is_a_baseline() -> None:
    """Of the multimodal ones of a matrix; where there is none, it says what is missing."""
    (own,) = expand(MatrixSpec(mllm=["llava:tiny"], baselines=["mllm"]), DATA)
    assert own.refusal is None
    assert own.axes["mllm"] == "llava:tiny"
    (none,) = cells(baselines=["mllm"])
    assert none.refusal is not None
    assert "none is named" in none.refusal[0]
    mixed = cells(mllm=["llava:tiny"], baselines=["mllm"])
    assert [cell.axes["mllm"] for cell in mixed] == ["llava:tiny"]


def test_commands_say_how_the_parts_of_a_multimodal_llm_are_tuned() -> None:
    (cell,) = expand(MatrixSpec(mllm=["llava:tiny"], settings={"llm.tune": "lora:4", "train.max_steps": 3}), DATA)
    build = commands(cell, MatrixSpec(), Path("out")).partition(";")[0]
    assert "--mllm llava:tiny" in build
    assert """--set 'llm.tune="lora:4"'""" in build
    assert "--llm" not in build


def test_how_joined_models_are_trained_changes_no_baseline() -> None:
    same = [cells(baselines="concat", settings=s)[0].key for s in ({}, {"train.max_steps": 9}, {"train.lr": 1e-3})]
    assert len(set(same)) == 1
    assert cells(baselines="concat", settings={"head.width": 8})[0].key != same[0]


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
    quick = filled(MatrixSpec.model_validate(TINY | {"preset": "quick", "variant": "micl"}))
    assert (quick.variant, quick.settings["train.max_steps"], quick.seeds) == (["micl"], 20, [0])
    again = MatrixSpec.model_validate(__import__("yaml").safe_load(quick.to_yaml()))
    assert again == quick


def test_the_paper_follows_attention_unless_it_is_told_not_to() -> None:
    assert filled(MatrixSpec.model_validate(TINY | {"preset": "paper"})).saliency > 0
    assert filled(MatrixSpec.model_validate(TINY | {"preset": "paper", "saliency": 0})).saliency == 0
    assert filled(MatrixSpec.model_validate(TINY | {"preset": "paper", "baselines": []})).baselines == []


def test_arms_that_come_to_the_same_are_named(tmp_path: Path) -> None:
    found = cells(preset="paper", connector="qformer:16", seeds=1)
    (full,) = [cell for cell in found if cell.arm.endswith("+notellm2")]
    assert full.also == ("16 tokens", "weights 9:1")
    assert pending_cells(Store(tmp_path), found, only="weights 9:1") == [full]
    assert Store(tmp_path).new_row(full).also == list(full.also)


def test_a_seed_among_the_settings_is_refused() -> None:
    for wrong in ({"settings": {"train.seed": 7}}, {"arms": [{"name": "x", "settings": {"train.seed": 7}}]}):
        with pytest.raises(BadInput, match=r"train\.seed is no setting of a matrix"):
            cells(**wrong)
