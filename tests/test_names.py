"""Names of components: n2kit's aliases are names too, taken ones are refused, and what is shown cannot drive a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from installed import install, on_path
from n2kit.errors import BadInput
from n2kit.plugins import isolation
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.isolation import probe_imports
from n2kit.scaffold import SCAFFOLDS, write_package
from n2kit.testing.check import check_component

SPEC = """
from n2kit.contract import ComponentSpec, Preset, VisionCard, hookimpl
from pydantic import BaseModel

N2KIT_PLUGIN_API = (2, 1)

class Options(BaseModel):
    pass

def card(config, locate):
    return VisionCard(tokens=4, token_width=8, pooled_width=8, image_size=16, parameters=0)

def _spec(name, summary="s", presets=("tiny",)):
    return ComponentSpec(kind="vision", name=name, summary=summary, target="named:Options", config="named:Options",
                         card="named:card", presets={p: Preset() for p in presets})

@hookimpl
def n2kit_register_components():
    return [
        _spec("resnet"), _spec("fine", "red \\x1b[31mtext\\u202e"), _spec("x" * 65), _spec("line\\nbreak"),
        _spec("odd-preset", presets=["a b"]), _spec("long", "s" * 301),
    ]
"""


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "named-dist", {"named.py": SPEC})
    with on_path(site, monkeypatch):
        yield tmp_path


def test_a_strangers_component_with_an_aliass_name_is_not_hidden(named: Path, cli: Any) -> None:
    plan = ("plan", "--llm", "qwen:tiny", "--connector", "mlp:2", "--json", "--vision")
    done = cli(*plan, "resnet:tiny")
    assert done.code == 2
    assert "vision 'resnet' is provided by two installed packages" in done.err
    assert "hint: write one of: n2kit/resnet, named-dist/resnet" in done.err
    assert json.loads(cli(*plan, "named-dist/resnet:tiny").out)["id"].startswith("qwen:tiny+named-dist/resnet:tiny+")
    own = cli(*plan, "n2kit/resnet:tiny")
    assert own.code == 0, own.err
    assert json.loads(cli(*plan, json.loads(own.out)["id"].split("+")[1]).out)["id"] == json.loads(own.out)["id"]
    (found,) = [p for p in json.loads(cli("plugins", "list", "--json").out) if p["distribution"] == "named-dist"]
    assert "vision 'resnet' also in n2kit: write distribution/name" in found["warnings"]


def test_one_bad_spec_takes_only_itself(named: Path, cli: Any) -> None:
    (found,) = [p for p in json.loads(cli("plugins", "list", "--json").out) if p["distribution"] == "named-dist"]
    assert found["problem"] is None
    assert found["components"] == ["vision:resnet", "vision:fine"]
    assert [w for w in found["warnings"] if "left out" in w] == [
        "vision 'xxxxxxxxxxxxxxxxxxxx…' is left out: its name has 65 characters, and 64 are the most",
        r"vision 'line\nbreak' is left out: 'line\nbreak' is no name: letters, digits, and . _ - between them",
        "vision 'odd-preset' is left out: 'a b' is no name: letters, digits, and . _ - between them",
        "vision 'long' is left out: its summary has 301 characters, and 300 are the most",
    ]
    done = cli("plan", "--llm", "qwen:tiny", "--vision", "odd-preset:tiny")
    assert done.code == 3
    assert "vision 'odd-preset' of named-dist is left out: 'a b' is no name" in done.err


def test_control_codes_are_shown_and_not_obeyed(named: Path, cli: Any) -> None:
    for done in (cli("ls", "fine"), cli("ls", "vision"), cli("plugins", "info", "named")):
        assert done.code == 0, done.err
        assert r"red \x1b[31mtext\u202e" in done.out
        assert "\x1b" not in done.out
    assert json.loads(cli("ls", "fine", "--json").out)[0]["summary"] == "red \x1b[31mtext\u202e"


@pytest.mark.parametrize(("name", "kind"), [("resnet", "vision"), ("sum", "loss"), ("hello", "llm"), ("qwen", "llm")])
def test_the_scaffold_refuses_taken_names(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(BadInput, match=f"'{name}' is taken"):
        write_package(name, kind, tmp_path / "p")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("kind", SCAFFOLDS)
def test_what_the_scaffold_writes_names_itself_by_its_distribution(tmp_path: Path, kind: str) -> None:
    files = write_package(f"a-{kind}", kind, tmp_path)
    test = (tmp_path / "tests" / f"test_n2kit_a_{kind}.py").read_text()
    assert f'component = "n2kit-a-{kind}/a-{kind}' in test
    assert {"LICENSE", ".gitignore", ".github/workflows/test.yaml", f"n2kit_a_{kind}/py.typed"} <= set(files)


def test_the_index_of_the_scaffold_keeps_its_laws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package("mine", "index", tmp_path / "package")
    install(
        tmp_path,
        "n2kit-mine",
        {"n2kit_mine_entry.py": "from n2kit_mine import *\nfrom n2kit_mine import N2KIT_PLUGIN_API\n"},
    )
    monkeypatch.syspath_prepend(tmp_path / "package")
    with on_path(tmp_path, monkeypatch):
        results = list(check_component("index", "n2kit-mine/mine"))
        assert default_catalogue().resolve("index", "mine:7").config().chunk == 7
    assert [r for r in results if r.state != "passed"] == []
    assert len(results) >= 4


def test_a_plugin_that_was_slow_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    (tmp_path / "slow_once.py").write_text(
        "import pathlib, time\nmark = pathlib.Path(__file__).with_name('mark')\n"
        "if not mark.exists():\n    mark.touch()\n    time.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    point = EntryPoint("slow", "slow_once", "n2kit")
    monkeypatch.setattr(isolation, "SECONDS", 1)
    assert probe_imports([point]) == {
        "slow_once": "took more than 1 s to import; the next command tries it again, --disable-plugin leaves it out"
    }
    monkeypatch.setattr(isolation, "SECONDS", 30)
    assert probe_imports([point]) == {}


def test_options_of_components_are_listed_with_their_types(cli: Any) -> None:
    done = cli("config", "schema", "--loss", "notellm2", "--connector", "qformer")
    assert done.code == 0, done.err
    assert "| connector.tokens | integer ≥ 1 |" in done.out
    assert "| loss." in done.out
    assert set(json.loads(cli("config", "schema", "--loss", "notellm2", "--json").out)) == {"loss"}
    assert cli("config", "schema", "--loss", "nothing").code == 2
    assert "| connector qformer | tokens | integer ≥ 1 |" in cli("plugins", "info", "connectors").out
