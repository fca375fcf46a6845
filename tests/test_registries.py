"""Open registries: loggers and item readers of plug-ins; the two of examples/ as their users have them."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import n2kit
from installed import install, on_path
from n2kit.errors import BadInput, Unavailable

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
