"""Open registries: loggers, item readers, baselines, metrics, prompt templates, report sections of plug-ins; two are in examples/."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import n2kit
from installed import install, on_path
from n2kit.errors import BadInput, Unavailable
from n2kit_cli.main import make_app

EXAMPLES = Path(__file__).parents[1] / "examples"
ODD = """
from n2kit.contract import hookimpl
N2KIT_PLUGIN_API = (2, 1)

@hookimpl
def n2kit_register_loggers():
    return {"odd": "odd_parts:Odd", "late": "odd_parts:Late"}

@hookimpl
def n2kit_register_item_readers():
    return {".odd": "odd_parts:numbers", ".ends": "odd_parts:ends", ".csv": "odd_parts:numbers"}
"""
PARTS = """
class Odd:
    def __init__(self, folder):
        raise SystemExit(0)

class Late:
    def __init__(self, folder): ...
    def log(self, step, values):
        raise SystemExit(0)
    def end(self): ...

def numbers(path):
    yield 7

def ends(path):
    raise SystemExit(0)
"""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, where the two plug-ins of examples/ and an odd one are installed."""
    site = tmp_path / "site"
    site.mkdir()
    for name in ("csvlog", "sqlite"):
        monkeypatch.syspath_prepend(EXAMPLES / f"plugin-{name}")
        install(
            site,
            f"n2kit-{name}",
            {f"entry_{name}.py": f"from n2kit_{name} import *\nfrom n2kit_{name} import N2KIT_PLUGIN_API\n"},
        )
    install(site, "odd-dist", {"odd.py": ODD, "odd_parts.py": PARTS})
    monkeypatch.chdir(tmp_path)
    with on_path(site, monkeypatch):
        yield tmp_path


def train(cli: Any, workspace: Path, bundle: Path, logger: str) -> Any:
    data = ("--items", workspace / "items.jsonl", "--images", workspace / "images", "--pairs", workspace / "train.csv")
    steps = ("--max-steps", "2", "--batch-size", "4", "--set", "train.log_steps=1")
    return cli("train", bundle, *data, *steps, "-o", "run", "--log-to", logger)


def test_a_logger_of_a_plugin_gets_every_entry(plugged: Path, workspace: Path, tiny_bundle: Path, cli: Any) -> None:
    done = train(cli, workspace, tiny_bundle, "csv")
    assert done.code == 0, done.err
    with (plugged / "run" / "log.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    losses = [float(value) for step, name, value in rows if name == "loss"]
    events = [json.loads(line) for line in (plugged / "run" / "events.jsonl").read_text().splitlines()]
    assert losses == [pytest.approx(e["loss"], abs=1e-4) for e in events if e["event"] == "step"]


def test_loggers_that_are_none_or_fail(plugged: Path, workspace: Path, tiny_bundle: Path, cli: Any) -> None:
    unknown = train(cli, workspace, tiny_bundle, "csw")
    assert unknown.code == 2
    assert unknown.err.splitlines()[-2:] == ["error: train.loggers: unknown logger 'csw'", "hint: did you mean csv?"]
    assert not (plugged / "run").exists()
    begins = train(cli, workspace, tiny_bundle, "odd")
    assert begins.code == 3
    assert "error: logger odd cannot begin: SystemExit: 0" in begins.err
    late = train(cli, workspace, tiny_bundle, "late")
    assert late.code == 0
    assert "logger late is left out from step 1 on: SystemExit: 0" in late.err


def test_items_out_of_a_format_of_a_plugin(plugged: Path, workspace: Path) -> None:
    want = n2kit.read_items(workspace / "items.jsonl")
    with sqlite3.connect("shop.sqlite") as shop:
        shop.execute("CREATE TABLE items (id, name, picture)")
        shop.executemany("INSERT INTO items VALUES (?, ?, ?)", [(i.id, i.title, i.image) for i in want])
    found = n2kit.read_items("shop.sqlite", columns={"image": "picture"})
    assert [(i.id, i.title, i.image) for i in found] == [(i.id, i.title, i.image) for i in want]
    Path("torn.sqlite").write_bytes(b"no database at all")
    with pytest.raises(BadInput, match="torn.sqlite: no SQLite file with a table `items`: file is not a database"):
        n2kit.read_items("torn.sqlite")


def test_readers_that_fail_are_named_and_cannot_take_n2kits_own_formats(plugged: Path, workspace: Path) -> None:
    for name in ("a.odd", "a.ends"):
        Path(name).write_text("x")
    with pytest.raises(
        Unavailable, match="item reader odd_parts:numbers of odd-dist: TypeError: gives int, no mapping"
    ):
        n2kit.read_items("a.odd")
    with pytest.raises(Unavailable, match="item reader odd_parts:ends of odd-dist: SystemExit: 0"):
        n2kit.read_items("a.ends")
    assert len(n2kit.read_items(workspace / "items.csv")) == 24


MINE = """
from n2kit.contract import Baseline, hookimpl
N2KIT_PLUGIN_API = (2, 1)

@hookimpl
def n2kit_register_baselines():
    return {"letters": "mine:letters", "faint": "mine:faint", "broken": "mine:NAMES"}

@hookimpl
def n2kit_register_metrics():
    return {"first-two": "mine_parts:first_two", "short": "mine_parts:short", "exits": "mine_parts:exits"}

@hookimpl
def n2kit_register_prompt_templates():
    return {"terse": "mine:TERSE", "torn": "mine:NAMES"}

@hookimpl
def n2kit_register_report_sections():
    return {"arms": "mine_parts:arms", "fails": "mine_parts:exits", "nothing": "mine_parts:nothing"}

letters = Baseline("how often each letter is in the title", learns_from=("pairs",), target="mine_parts:letters")
faint = Baseline("an odd shape", target="mine_parts:faint")
NAMES = {"text": "{title}"}
TERSE = {"basic": "<IMG> {title}.", "micl": "<IMG> <IMG_EMB> {title}.", "text": "{title}.", "image": "<IMG>.", "suffix": ' One: "'}
"""
MINE_PARTS = """
import numpy as np
from n2kit.contract import ReportSection

def letters(inputs):
    assert not inputs.features and not inputs.val_pairs and len(inputs.pairs) == 8
    return np.array([[item.title.count(letter) for letter in "0123456789"] for item in inputs.items])

def faint(inputs):
    return np.zeros(3)

def first_two(ranks, owner):
    return np.bincount(owner, ranks <= 2) / np.bincount(owner)

def short(ranks, owner):
    return np.ones(len(ranks) + 1)

def exits(*_):
    raise SystemExit(0)

def arms(rows):
    return ReportSection("Who <ran>", f"{len(rows)} cells.", ["arm", "state"], [(row["arm"], row["state"]) for row in rows])

def nothing(rows):
    return None
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, where a plug-in of baselines, metrics, templates and sections is installed."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "mine-dist", {"mine.py": MINE, "mine_parts.py": MINE_PARTS})
    monkeypatch.chdir(tmp_path)
    with on_path(site, monkeypatch):
        yield tmp_path


def test_they_are_listed(mine: Path, cli: Any) -> None:
    (found,) = [p for p in json.loads(cli("plugins", "list", "--json").out) if p["distribution"] == "mine-dist"]
    assert found["registers"] == {
        "baseline": ["broken", "faint", "letters"],
        "metric": ["exits", "first-two", "short"],
        "prompt template": ["terse", "torn"],
        "report section": ["arms", "fails", "nothing"],
    }
    assert "baseline:letters" in cli("plugins", "list").out
    assert "metric:first-two" in cli("plugins", "info", "mine").err


def bench(cli: Any, workspace: Path, *baselines: str, more: tuple[str, ...] = ()) -> Any:
    data = [f for name in ("items.jsonl", "train.csv", "val.csv", "test.csv") for f in (FLAGS[name], workspace / name)]
    return cli("bench", "--baselines", ",".join(baselines), *data, *more, "-o", "out")


FLAGS = {"items.jsonl": "--items", "train.csv": "--pairs", "val.csv": "--val-pairs", "test.csv": "--test-pairs"}


def test_a_baseline_of_a_plugin_is_an_arm_and_its_section_in_the_report(mine: Path, workspace: Path, cli: Any) -> None:
    done = bench(cli, workspace, "letters", more=("--metric", "first-two", "--k", "2,10"))
    assert done.code == 0, done.err
    (row,) = [json.loads(line) for line in (mine / "out" / "results.jsonl").read_text().splitlines()]
    assert (row["axes"]["baseline"], row["state"]) == ("letters", "done")
    assert row["metrics"]["recall@10"]["value"] == 1.0  # two items of a concept have the same title
    assert row["metrics"]["first-two"] == row["metrics"]["recall@2"]
    assert "--metric first-two" in row["command"] or "matrix.yaml" in row["command"]
    page, table = ((mine / "out" / name).read_text() for name in ("report.html", "results.md"))
    assert '<h2 id="further-1">Who &lt;ran&gt;</h2>' in page
    assert "| letters | done |" in table.partition("## Who")[2]
    assert "left out: report section mine_parts:exits of mine-dist: SystemExit: 0" in table
    assert "further-3" not in page
    assert "first-two" in table.partition("## Who")[0]
    assert "first-two" in page
    assert "first-two" in cli("bench", "compare", "out", "out", "--metric", "first-two").out
    wrong = bench(cli, workspace, "letters", more=("--metric", "frist-two"))
    assert (wrong.code, wrong.err.splitlines()[-2:]) == (
        2,
        ["error: unknown metric 'frist-two'", "hint: did you mean first-two?"],
    )


def test_the_best_step_is_chosen_by_a_metric_of_a_plugin(
    mine: Path, workspace: Path, tiny_bundle: Path, cli: Any
) -> None:
    data = [part for name in ("items.jsonl", "train.csv", "val.csv") for part in (FLAGS[name], workspace / name)]
    steps = ("--images", workspace / "images", "--max-steps", "1", "--batch-size", "4", "-o", "run", "--json", "--set")
    done = cli("train", tiny_bundle, *data, *steps, "train.best_metric=first-two")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    (seen,) = [e for e in events if e["event"] == "recall"]
    assert 0 <= seen["eval_first-two"] <= 1
    wrong = cli("train", tiny_bundle, *data, *steps, "train.best_metric=frist-two")
    assert (wrong.code, wrong.err.splitlines()[-2:]) == (
        2, ["error: train.best_metric: unknown metric 'frist-two'", "hint: did you mean first-two?"],
    )  # fmt: skip


def test_baselines_that_are_none_or_fail(mine: Path, workspace: Path, cli: Any) -> None:
    unknown = bench(cli, workspace, "leters")
    assert unknown.code == 2
    assert unknown.err.splitlines()[-2:] == ["error: unknown baseline 'leters'", "hint: did you mean letters?"]
    broken = bench(cli, workspace, "broken")
    assert broken.code == 3
    assert "baseline mine:NAMES of mine-dist: it is no n2kit.contract.Baseline with a target" in broken.err
    faint = bench(cli, workspace, "faint")
    assert faint.code == 1  # the cell fails, and the others would go on
    assert "it gives vectors of shape [3], not [24, d]" in (mine / "out" / "results.jsonl").read_text()


def test_a_metric_of_a_plugin_stands_beside_the_others(
    mine: Path, workspace: Path, tiny_bundle: Path, cli: Any
) -> None:
    images = ("--items", workspace / "items.jsonl", "--images", workspace / "images")
    assert cli("embed", tiny_bundle, *images, "-o", "v.parquet").code == 0
    ask = (
        "eval",
        "--vectors",
        "v.parquet",
        "--pairs",
        workspace / "test.csv",
        "--k",
        "1,2",
        "--bootstrap",
        "50",
        "--json",
    )
    metrics = json.loads(cli(*ask, "--metric", "first-two").out)["metrics"]
    assert metrics["first-two"] == metrics["recall@2"]
    assert "first-two" in cli(*ask[:-1], "--metric", "first-two").out
    assert n2kit.evaluate("v.parquet", str(workspace / "test.csv"), metrics=["first-two"], resamples=0).figures[
        "first-two"
    ]
    compare = ("eval", "--compare", "v.parquet", "v.parquet", *ask[3:-1])
    assert "first-two" in cli(*compare, "--metric", "first-two").out
    for name, code, said in (
        ("frst-two", 2, "unknown metric 'frst-two'"),
        ("recall@5", 2, "the metric 'recall@5' is n2kit's own"),
        ("short", 3, "metric mine_parts:short of mine-dist: it gives [3], not a finite number for each of 2 queries"),
        ("exits", 3, "metric mine_parts:exits of mine-dist: SystemExit: 0"),
    ):
        done = cli(*ask, "--metric", name)
        assert (done.code, said in done.err) == (code, True), done.err


def test_a_prompt_template_of_a_plugin(mine: Path, cli: Any) -> None:
    build = ("build", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--connector", "mlp:2", "-o", "b", "--set")
    assert cli(*build, "prompt.template=terse").code == 0
    assert n2kit.load("b").prompt_builder.template.basic == "<IMG> {title}."
    torn = cli(*build, "prompt.template=torn", "--force")
    assert torn.code == 3
    assert "prompt template mine:NAMES of mine-dist: missing 4 required positional arguments" in torn.err.replace(
        "__init__() ", ""
    )
    unknown = cli(*build, "prompt.template=ters", "--force")
    assert (unknown.code, "of a plug-in: terse" in unknown.err) == (2, True)


def test_a_format_is_named_where_the_ending_does_not_say_it(plugged: Path, workspace: Path, cli: Any) -> None:
    with sqlite3.connect("shop.data") as shop:
        shop.execute("CREATE TABLE items (id, name)")
        shop.executemany("INSERT INTO items VALUES (?, ?)", [(f"i{n}", f"thing {n}") for n in range(4)])
    assert len(n2kit.read_items("shop.data", format="sqlite")) == 4
    built = ("build", "--llm", "qwen:tiny", "--variant", "text_only", "-o", "b")
    assert cli(*built).code == 0
    embedded = cli("embed", "b", "--items", "shop.data", "--format", "sqlite", "-o", "v.parquet")
    assert embedded.code == 0, embedded.err
    assert cli("index", "v.parquet", "--items", "shop.data", "--format", "sqlite", "-o", "i").code == 0
    wrong = cli("embed", "b", "--items", "shop.data", "--format", "sqllite", "-o", "w.parquet")
    assert wrong.code == 2
    assert wrong.err.splitlines()[-2:] == ["error: unknown format of items 'sqllite'", "hint: did you mean sqlite?"]
    (plugged / "folder").mkdir()
    (plugged / "shop.data").rename(plugged / "folder" / "items.sqlite")
    assert cli("embed", "b", "--data", "folder", "-o", "f.parquet").code == 0  # a folder's items, by the ending


def test_every_command_that_reads_items_takes_a_format() -> None:
    def commands(command: Any, path: str) -> Iterator[tuple[str, set[str]]]:
        yield path, {flag for option in command.params for flag in option.opts}
        for name, below in getattr(command, "commands", {}).items():
            yield from commands(below, f"{path} {name}")

    found = dict(commands(get_command(make_app()), "n2kit"))
    without = {path for path, flags in found.items() if "--items" in flags and "--format" not in flags}
    assert without == {"n2kit data import"}  # whose items are a published data set's
