"""The keys of cells depend on the recipe, the data, the versions, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench_cells import DATA, NAMES, cells, checkpoint
from n2kit.bench.matrix import keys
from n2kit.bench.matrix.baseline_names import worded_settings_of
from n2kit.plugins.weights import WeightsUri
from n2kit.recipe.prompt_templates import load_template
from n2kit.recipe.settings import Recipe


def test_keys_go_by_content_and_not_by_path(tmp_path: Path) -> None:
    found = []
    for place in ("here", "there"):
        folder = tmp_path / place
        folder.mkdir()
        checkpoint(folder, 0)
        (folder / "README.md").write_text(place)  # no part of the model
        found.append(cells(llm=f"qwen@file:{folder}", variant="text_only")[0].key)
    assert found[0] == found[1]
    checkpoint(tmp_path / "there", 1)
    assert cells(llm=f"qwen@file:{tmp_path / 'there'}", variant="text_only")[0].key != found[0]


@pytest.mark.parametrize("setting", ["train.log_steps=3", "train.save_steps=7", "train.feature_cache_gb=1.5"])
def test_settings_that_change_no_result_change_no_key(setting: str) -> None:
    key, value = setting.split("=")
    assert cells(settings={key: float(value) if "." in value else int(value)})[0].key == cells()[0].key


@pytest.mark.parametrize(
    "setting", [{"train.lr": 1e-3}, {"head.width": 32}, {"llm.tune": "frozen"}, {"prompt.template": "en"}]
)
def test_settings_that_change_the_result_change_the_key(setting: dict[str, Any]) -> None:
    assert cells(settings=setting)[0].key != cells()[0].key


def test_settings_that_count_are_those_that_make_another_run() -> None:
    from n2kit.train.run import FREE

    assert FREE["train"] | {"seed"} == keys.NOT_HASHED


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
    """A setting left at its default is not in a key. Whoever changes one of these raises CELL_VERSION, and this test."""
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
    assert (keys.CELL_VERSION, train, Recipe().train.epochs) == (1, known, 1.0)
    prompt = Recipe().prompt.model_dump(exclude={"template"})
    assert prompt == {"body_tokens": 140, "title_chars": None, "content_chars": None, "topics": None}
    assert load_template("en").suffix == ' The compression word is:"'


def test_learning_rates_of_parts_that_there_are_not_change_nothing() -> None:
    rate = {"train.lrs.connector": 1e-3}
    assert cells(variant="text_only", settings=rate)[0].key == cells(variant="text_only")[0].key
    assert cells(variant="basic", settings=rate)[0].key != cells(variant="basic")[0].key


def test_weights_of_a_hub_go_by_their_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(WeightsUri, "locate", lambda self, patterns=None: Path("hub/snapshots") / commit)
    for revision in (None, "main", commit):
        assert keys.weights_id(WeightsUri("hf", "org/name", revision)) == f"hf:org/name@{commit}"


@pytest.mark.parametrize(("given", "tokens"), [({"prompt.body_tokens": 64}, 64), ({}, 512)])
def test_a_baseline_reads_as_many_tokens_as_the_joined_models(given: dict[str, Any], tokens: int) -> None:
    """An embedder's own number counts where the matrix names none."""
    settings = {"llm.pooling": "mean", **given}
    matrix = {"llm": "bert:tiny", "variant": "text_only", "settings": settings}
    baseline, joined = (cells(baselines=names, **matrix)[-1] for names in (["text"], []))
    assert (baseline.baseline, joined.baseline) == ("text", None)
    assert worded_settings_of(settings, {"llm": "bert:tiny"})[0].prompt == baseline.recipe.prompt
    assert baseline.recipe.prompt.body_tokens == tokens
