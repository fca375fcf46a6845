"""A kind of components is one declaration: what of it is said elsewhere is made of it, and a further one is one entry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from installed import install
from n2kit.contract.kinds import BACKBONES, CHOICES, KIND_SPECS, KINDS, Kind
from n2kit.plugins.manager import OWN, load_target
from n2kit.recipe.choices import SECTIONS
from n2kit.recipe.settings import Recipe
from n2kit.scaffold import SCAFFOLDS
from n2kit.testing import laws_of
from n2kit.testing.under_test import class_under_test

ROOT = Path(__file__).parents[1]
FURTHER = """
KIND_SPECS["reranker"] = KindSpec(
    interface="n2kit_rerank.parts:Reranker",
    option="What orders the nearest items again; n2kit ls reranker.",
    under_test="n2kit_rerank.laws:RerankerUnderTest",
    laws=("n2kit_rerank.laws",),
    recipe=RecipeKey("what orders the nearest items again"),
    capabilities={"pairs": "reads both items together"},
)
KINDS: tuple"""
PLUGIN = """
from n2kit.contract import ComponentSpec, hookimpl
from pydantic import BaseModel, Field

N2KIT_PLUGIN_API = (2, 1)

class Options(BaseModel):
    depth: int = Field(3, ge=1, description="how many are ordered again")

@hookimpl
def n2kit_register_components():
    return [
        ComponentSpec(kind="reranker", name=name, summary="an order", target=f"n2kit_rerank.parts:{cls}",
                      config="rerank:Options", shorthand="depth", capabilities=frozenset({"pairs"}))
        for name, cls in (("swap", "Swap"), ("drop", "Drop"))
    ]
"""
PARTS = """
class Reranker:
    def __init__(self, config):
        self.depth = config.depth

class Swap(Reranker):
    def order(self, rows):
        return [*reversed(rows[: self.depth]), *rows[self.depth :]]

class Drop(Reranker):
    def order(self, rows):
        return rows[: self.depth]
"""
LAWS = """
from n2kit.testing import ComponentUnderTest, law

class RerankerUnderTest(ComponentUnderTest):
    def make(self):
        return self.component.make()

@law("reranker")
def keeps_every_row(under_test):
    \"\"\"What is ordered again is what was there.\"\"\"
    rows = under_test.part.order(list(range(9)))
    assert sorted(rows) == list(range(9)), f"of 9 rows {len(rows)} are left"
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def n2kit(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The program with one file of n2kit changed, and a plug-in of the kind that it declares."""
    root = tmp_path_factory.mktemp("seven")
    core, contract = root / "core" / "n2kit", root / "core" / "n2kit" / "contract"
    contract.mkdir(parents=True)
    for folder, made in ((ROOT / "core" / "n2kit", core), (ROOT / "core" / "n2kit" / "contract", contract)):
        for file in folder.iterdir():
            if file.name not in ("contract", "kinds.py", "__pycache__"):
                (made / file.name).symlink_to(file)
    (root / "registry.yaml").symlink_to(ROOT / "registry.yaml")
    source = (ROOT / "core" / "n2kit" / "contract" / "kinds.py").read_text("utf8")
    assert source.count("\nKINDS: tuple") == 1
    (contract / "kinds.py").write_text(source.replace("\nKINDS: tuple", FURTHER), "utf8")

    site = root / "site"
    (site / "n2kit_rerank").mkdir(parents=True)
    for name, text in (("parts", PARTS), ("laws", LAWS), ("__init__", "")):
        (site / "n2kit_rerank" / f"{name}.py").write_text(text, "utf8")
    install(site, "rerank-dist", {"rerank.py": PLUGIN})
    path = os.pathsep.join(map(str, (root / "core", ROOT / "cli", ROOT / "plugins", site)))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("N2KIT_")}
    environment = kept | {"PYTHONPATH": path, "N2KIT_CACHE": str(root / "cache"), "XDG_CONFIG_HOME": str(root / "none")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "n2kit_cli.main", *arguments]
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    return run


def test_one_entry_of_one_file_is_a_kind(n2kit: Run) -> None:
    """It is listed, named, described, resolved in a recipe, and planned by its own flag."""
    (found,) = [p for p in json.loads(n2kit("plugins", "list", "--json").stdout) if p["distribution"] == "rerank-dist"]
    assert found["problem"] is None
    assert found["components"] == ["reranker:swap", "reranker:drop"]
    assert [entry["name"] for entry in json.loads(n2kit("ls", "reranker", "--json").stdout)] == ["drop", "swap"]
    assert "reranker.depth" in n2kit("config", "schema", "--reranker", "swap").stdout
    assert "\nreranker: null\n" in n2kit("config", "show").stdout
    plan = ("plan", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--connector", "mlp:2", "--json")
    assert n2kit(*plan, "--reranker", "swap:5").returncode == 0
    wrong = n2kit(*plan, "--reranker", "swap:0")
    assert wrong.returncode == 2
    assert "reranker swap:0: depth: Input should be greater than or equal to 1" in wrong.stderr
    unknown = n2kit(*plan, "--set", "reranker=swop")
    assert unknown.returncode == 2
    assert "hint: did you mean swap" in unknown.stderr


@pytest.mark.slow
def test_its_laws_are_held(n2kit: Run) -> None:
    done = n2kit("plugins", "check", "rerank-dist", "--json")
    (result,) = json.loads(done.stdout)
    assert done.returncode == 1
    assert result["problems"] == ["reranker/rerank-dist/drop: keeps_every_row: of 9 rows 3 are left"]
    assert result["laws"] == 1


def test_the_kinds_are_declared_once() -> None:
    assert get_args(Kind) == KINDS
    assert BACKBONES == ("llm", "vision", "mllm")
    assert tuple(Recipe.model_fields)[: len(CHOICES)] == CHOICES
    for kind, spec in KIND_SPECS.items():
        assert isinstance(load_target(spec.interface, owner=OWN), type), kind
        assert class_under_test(kind).__name__.endswith("UnderTest")
        assert any(kind in law.kinds for law in laws_of(kind))
        assert {law.capability for law in laws_of(kind)} - {None} <= set(spec.capabilities)
    assert SCAFFOLDS == KINDS


def test_the_types_that_code_reads_are_those_of_the_kinds() -> None:
    """A type checker sees the sections as `recipe/choices.py` writes them; they are those that are made."""
    source = (ROOT / "core" / "n2kit" / "recipe" / "choices.py").read_text("utf8")
    for kind in CHOICES:
        key = KIND_SPECS[kind].recipe
        assert key is not None
        section = SECTIONS[key.tuning].__name__
        assert f"        {kind}: {section} {'| None ' if key.default is None else ''}= " in source


def test_the_page_of_card_fields_is_that_of_the_code() -> None:
    import runpy

    page = ROOT / "docs" / "card-fields.md"
    assert page.read_text("utf8") == runpy.run_path(str(ROOT / "docs" / "make_card_fields.py"))["page"](), (
        "python docs/make_card_fields.py"
    )
