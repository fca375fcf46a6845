"""Hooks as pluggy calls them, commands of plug-ins as n2kit lists and guards them, and one release for two versions of n2kit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from installed import install, on_path
from n2kit.plugins.api_version import api_problem, stated_api, versions_of
from n2kit.plugins.manager import manager

HOOKS = """
from n2kit.contract import hookimpl

N2KIT_PLUGIN_API = [(1, 0), (2, 1)]
called = []

@hookimpl(trylast=True)
def n2kit_doctor_checks():
    called.append("first")
    yield ("first", "fine")

@hookimpl(optionalhook=True)
def n2kit_of_a_later_version(run):
    pass

@hookimpl
def n2kit_run_started(run):
    called.append("started")

@hookimpl
def n2kit_step_logged(run, event):
    called.append((run["steps"], event["step"]))

@hookimpl
def n2kit_validated(run, event):
    called.append(sorted(k for k in event if k.startswith("eval_recall"))[0])

@hookimpl
def n2kit_shard_started(run, shard):
    called.append(("started", shard["number"], shard["shards"], shard["items"]))

@hookimpl
def n2kit_shard_finished(run, shard):
    from pathlib import Path

    called.append(("finished", shard["number"], Path(shard["file"]).is_file(), shard["skipped"], Path(run["folder"]).name))
"""
OTHERS = """
import first_hooks
from n2kit.contract import hookimpl

N2KIT_PLUGIN_API = (2, 1)

@hookimpl(tryfirst=True)
def n2kit_doctor_checks():
    first_hooks.called.append("second")
    raise SystemExit(0)

@hookimpl(wrapper=True)
def n2kit_run_started(run):
    first_hooks.called.append("before")
    result = yield
    first_hooks.called.append("after")
    return result

def n2kit_run_finishd(run, result):
    pass

@hookimpl(trylast=True)
def n2kit_shard_started(run, shard):
    raise SystemExit(0)
"""
COMMAND = "import typer\napp = typer.Typer()\n\n@app.command()\ndef hello():\n    print('{}')\n\n@app.command()\ndef more():\n    pass\n"


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = tmp_path / "site"
    site.mkdir()
    files = {"first_hooks.py": HOOKS, "first_cli.py": COMMAND.format("first")}
    install(site, "first-dist", files, commands={"greet": "first_cli:app", "train": "first_cli:app"})
    install(
        site,
        "other-dist",
        {"other_hooks.py": OTHERS, "other_cli.py": COMMAND.format("other")},
        commands={"greet": "other_cli:app", "alone": "other_cli:app"},
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("N2KIT_PLUGINS", "")  # --disable-plugin sets it for child processes
    with on_path(site, monkeypatch):
        yield tmp_path


def calls() -> list[Any]:
    import first_hooks  # type: ignore[import-not-found]

    return first_hooks.called  # type: ignore[no-any-return]


def test_hooks_are_called_in_pluggys_order_and_one_that_exits_harms_no_other(hooked: Path) -> None:
    results, failures = manager().hooks.call("n2kit_doctor_checks")
    assert calls() == ["second", "first"]
    assert results == [[("first", "fine")]]
    assert [(name, type(error)) for name, error in failures] == [("other-dist/other_hooks", SystemExit)]
    manager().hooks.call("n2kit_run_started", run={})
    assert calls()[2:] == ["before", "started", "after"]


def test_an_unknown_hook_takes_only_itself(hooked: Path, cli: Any) -> None:
    found = {p["distribution"]: p for p in json.loads(cli("plugins", "list", "--json").out)}
    assert found["other-dist"]["problem"] is None
    assert "there is no hook n2kit_run_finishd; did you mean n2kit_run_finished" in found["other-dist"]["warnings"][0]
    assert found["first-dist"]["problem"] is None  # an optional hook is no mistake


def test_steps_and_validations_have_hooks(hooked: Path, workspace: Path, tiny_bundle: Path, cli: Any) -> None:
    data = ("--items", workspace / "items.jsonl", "--images", workspace / "images")
    pairs = ("--pairs", workspace / "train.csv", "--val-pairs", workspace / "val.csv")
    more = ("--max-steps", "2", "--batch-size", "4", "--set", "train.log_steps=1")
    assert cli("train", tiny_bundle, *data, *pairs, *more, "-o", "run").code == 0
    assert calls() == ["before", "started", "after", (2, 1), (2, 2), "eval_recall@1"]


def test_shards_have_hooks_and_one_that_exits_stops_no_work(
    hooked: Path, workspace: Path, tiny_bundle: Path, cli: Any
) -> None:
    data = ("--items", workspace / "items.jsonl", "--images", workspace / "images")
    done = cli("embed", tiny_bundle, *data, "--shard-size", "16", "-o", "vectors")
    assert done.code == 0, done.err
    found = [called for called in calls() if isinstance(called, tuple)]
    assert [f[:2] for f in found] == [("started", 0), ("finished", 0), ("started", 1), ("finished", 1)]
    assert found[0] == ("started", 0, 2, 16)
    assert found[3] == ("finished", 1, True, 0, "vectors")
    assert done.err.count("n2kit_shard_started of other-dist/other_hooks failed: SystemExit: 0") == 2


def test_commands_are_listed_obey_and_cannot_shadow(hooked: Path, cli: Any) -> None:
    found = {p["distribution"]: p for p in json.loads(cli("plugins", "list", "--json").out)}
    assert found["first-dist"]["commands"] == ["greet", "train"]
    assert "command 'train' is n2kit's own: the plug-in's is never called" in found["first-dist"]["warnings"]
    assert "command:alone" in cli("plugins", "list").out
    assert cli("train", "hello").code == 2  # n2kit's own
    both = cli("greet", "hello")
    assert both.code == 2
    assert "the command 'greet' is provided by two installed packages: first-dist and other-dist" in both.err
    assert cli("alone", "hello").out == "other\n"
    assert cli("--disable-plugin", "other-dist", "greet", "hello").out == "first\n"
    off = cli("--disable-plugin", "other-dist", "alone", "hello")
    assert off.code == 3
    assert off.err.startswith("error: the command alone of the plug-in other-dist is disabled")


def test_one_release_serves_several_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "several.py").write_text("N2KIT_PLUGIN_API = ((2, 1), (3, 0))  # both\n")
    (tmp_path / "one.py").write_text("N2KIT_PLUGIN_API: tuple[int, int] = (3, 0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert stated_api("several") == ((2, 1), (3, 0))
    assert stated_api("one") == ((3, 0),)
    assert versions_of([(1, 0), [2, 1]]) == ((1, 0), (2, 1))
    assert versions_of("2.1") == versions_of(None) == versions_of((2, True)) == ()
    assert api_problem(((2, 1), (3, 0))) is None
    assert "written for plug-in API 1.0 and 3.0; this n2kit has 2.1: it needs a newer n2kit" in (
        api_problem(((1, 0), (3, 0))) or ""
    )
