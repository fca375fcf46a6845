"""The library as a program uses it: every example of a docstring, docs/python.md and the notebook run; errors speak of arguments."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import n2kit
from n2kit.api.in_python import reworded
from n2kit.api.reading import pairs_of
from n2kit.data.items import Item, Items
from n2kit.errors import BadInput, N2kitError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text("utf8")
FUNCTIONS = (
    "read_items",
    "read_pairs",
    "fetch_images",
    "build",
    "load",
    "fit",
    "train",
    "embed",
    "evaluate",
    "Index",
    "recommend",
)


def function(name: str) -> Any:
    thing = getattr(n2kit, name)
    return thing.__wrapped__ if inspect.ismodule(thing) else thing


@pytest.fixture
def at_copy(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(workspace, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


def test_every_example_of_the_docstrings_in_the_order_of_a_newcomer(at_copy: Path) -> None:
    finder, flags = doctest.DocTestFinder(recurse=False), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    for name in FUNCTIONS:
        (found,) = finder.find(function(name), name, globs={"n2kit": n2kit})
        assert found.examples, name
        said: list[str] = []
        assert runner.run(found, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_are_named_and_typed(name: str) -> None:
    thing = function(name)
    for one in (thing.build, thing.load, thing.save) if inspect.isclass(thing) else (thing,):
        for parameter in inspect.signature(one).parameters.values():
            assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            assert parameter.name == "self" or parameter.annotation is not parameter.empty
            assert parameter.annotation != "Path", "str | Path"


def test_packages_that_are_functions_are_packages_still() -> None:
    for name in n2kit.CALLED:
        package = importlib.import_module(f"n2kit.{name}")
        assert getattr(n2kit, name) is package
        assert callable(package)
    assert n2kit.train.run.STATE == "run.json"  # type: ignore[attr-defined]
    assert "show_progress" in str(inspect.signature(n2kit.train))


def test_import_is_light() -> None:
    code = (
        "import sys, n2kit; n2kit.read_items; n2kit.Item\n"
        "sys.exit(bool({'torch', 'transformers', 'pandas', 'pyarrow', 'faiss'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_runs(at_copy: Path) -> None:
    blocks = re.findall(r"<!-- tested -->\n```python\n(.*?)```", PAGE, re.S)
    assert len(blocks) >= 5
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/python.md, block {number}", "exec"), names)
    assert set(re.findall(r"`n2kit\.(\w+)", PAGE)) <= {*n2kit.__all__, "errors"}


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text("utf8"))
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path / "examples")
    names: dict[str, Any] = {}
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)
    assert names["neighbours"]
    assert all(not cell.get("outputs") for cell in notebook["cells"])  # nothing of a machine in the repository


def test_tables_and_tuples_are_taken_as_they_are(at_copy: Path, tiny_bundle: Path) -> None:
    class Frame:
        """The one method of a DataFrame that is used."""

        def __init__(self, rows: list[dict[str, Any]]) -> None:
            self.rows = rows

        def to_dict(self, orient: str) -> list[dict[str, Any]]:
            assert orient == "records"
            return self.rows

    frame = Frame([{"id": n, "title": f"thing {n % 3}"} for n in range(6)])
    vectors = n2kit.embed(tiny_bundle, frame, show_progress=True)
    assert vectors.ids == [str(n) for n in range(6)]
    figures = n2kit.evaluate(vectors, Frame([{"a": "0", "b": "3"}, {"a": "1", "b": "4"}]), ks=[1, 2])
    assert figures["recall@1"] == 1.0
    same = n2kit.evaluate(vectors, [("0", "3"), (1.0, 4)], ks=(1, 2))  # type: ignore[list-item]
    assert same.figures == figures.figures
    index = n2kit.Index.build(vectors, items=frame)
    assert n2kit.recommend(index, "0", k=1)[0].id == "3"
    assert {near.id for near in n2kit.recommend(index, vectors.vectors[0], k=2)} == {"0", "3"}
    model = n2kit.load(tiny_bundle)
    assert n2kit.recommend(index, Item("new", title="thing 1"), model=model, k=1)[0].title == "thing 1"


def test_pairs_of_a_program_are_read_and_checked_as_those_of_a_file() -> None:
    items = Items([Item(str(n), title="thing") for n in range(6)])
    table = [
        {"query": 0, "target": 1, "score": 0.5, "negative": 5},
        {"query": 2.0, "target": "3", "score": 0, "negative": None},
    ]
    pairs = pairs_of(table, items)
    assert (pairs.pairs, pairs.grades) == ([("0", "1"), ("2", "3")], {("0", "1"): 0.5, ("2", "3"): 0.0})
    assert pairs.negatives == {("0", "1"): ("5",)}
    assert pairs_of(np.array([["0", "1"], ["2", "3"]]), items).pairs == pairs.pairs
    several = pairs_of([{"query": "0", "target": "1", "negatives": np.array(["4", "5"])}], items)  # as pandas has lists
    assert several.negatives == {("0", "1"): ("4", "5")}
    for rows, says in (
        (
            [("0", "1"), ("2", "2"), ("0", "x")],
            "2 unusable rows\npairs[1]: '2' is paired with itself\npairs[2]: unknown id 'x'",
        ),
        ([("0", "1", "2")], "pairs[0] is ('0', '1', '2')"),
        (["01"], "pairs[0] is 01"),
        ([{"user": 1, "item": 2}], "a log of users and items (user, item)"),
        ([{"query": 0, "target": 1, "score": "high"}], "pairs[0]: grade 'high' is no number"),
    ):
        with pytest.raises(BadInput, match=re.escape(says)):
            pairs_of(rows, items)


def test_a_model_in_memory_is_trained_and_stays_what_it_is(at_copy: Path, tiny_bundle: Path) -> None:
    model = n2kit.load(tiny_bundle)
    before = model.encode([{"title": "oak"}])
    call: dict[str, Any] = {"images": "images", "out": "runs/mine", "val_pairs": "val.csv", "max_steps": 1}
    call |= {"lr": 1e-2, "tune": {"llm": "lora:2"}}
    run = n2kit.train(model, "items.jsonl", "train.csv", **call)
    assert np.array_equal(model.encode([{"title": "oak"}]), before)
    trained = n2kit.load("runs/mine")
    assert trained.recipe.llm.tune.startswith("lora:2")
    assert (trained.recipe.train.lr, trained.recipe.train.new_lr) == (1e-2, 1e-2)
    assert run.recall
    assert n2kit.train(model, "items.jsonl", "train.csv", **call).done_before


BAD = {
    "an id that is there twice": (lambda: n2kit.embed("x", [{"id": 1}, {"id": 1}]), "two items have the id '1'"),
    "no pairs": (lambda: n2kit.train("x", [{"id": 1}], [], out="y"), "no pairs"),
    "a pair of nothing": (lambda: n2kit.train("x", [{"id": 1}], [("1", "2")], out="y"), "pairs[0]: unknown id '2'"),
    "no bundle": (lambda: n2kit.load("nowhere"), "nowhere is no bundle"),
    "no index": (lambda: n2kit.recommend("nowhere", "1"), "nowhere is no index"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_an_error_of_the_library(case: str, at_copy: Path) -> None:
    call, said = BAD[case]
    with pytest.raises(N2kitError, match=re.escape(said)):
        call()


def test_errors_speak_of_arguments(at_copy: Path, tiny_bundle: Path) -> None:
    model = n2kit.load(tiny_bundle)
    with pytest.raises(BadInput) as caught:
        n2kit.embed(model, "items.jsonl")
    assert "images=…" in str(caught.value)
    assert "--" not in str(caught.value)
    with pytest.raises(BadInput, match=r"settings=\{|did you mean"):
        n2kit.build("qwen:tiny", "siglip:tiny", settings={"head.widht": 3})
    vectors = n2kit.embed(model, "items.jsonl", images="images")
    with pytest.raises(BadInput, match="needs the model that made the index"):
        n2kit.recommend(n2kit.Index.build(vectors), {"title": "x"})


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("--images DIR", "images=…"),
        ("--val-pairs FILE measures it", "val_pairs=… measures it"),
        ("correct them, or --lenient drops them", "correct them, or lenient=True drops them"),
        ("--set train.lr=1e-4, or more", 'settings={"train.lr": 1e-4}, or more'),
        ("give another -o", "give another out"),
        ("--on-bad-image skip|text-only goes on", 'on_bad_image="skip" or "text-only" goes on'),
        ("a well-known name - and so", "a well-known name - and so"),
        (
            "n2kit data mine --events log.csv -o data makes pairs",
            "n2kit data mine --events log.csv -o data makes pairs",
        ),
        ("n2kit index V.parquet -o F --type flat makes one", "n2kit index V.parquet -o F --type flat makes one"),
        ("n2kit embed makes one; --force writes it anew", "n2kit embed makes one; force=True writes it anew"),
        ("--images DIR; n2kit index --items FILE", "images=…; n2kit index --items FILE"),
    ],
)
def test_flags_become_arguments(flags: str, arguments: str) -> None:
    assert reworded(flags) == arguments
