"""Options of an index: written as those of any component, checked before any work, kept in the manifest."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import n2kit
from installed import install, on_path
from n2kit.embed.vectors_file import Vectors, write_table
from n2kit.errors import BadInput
from n2kit.index import outputs
from n2kit.testing.check import check_component

SPEC = """
from typing import Literal

from n2kit.contract import ComponentSpec, hookimpl
from pydantic import BaseModel, Field

N2KIT_PLUGIN_API = (2, 1)


class Options(BaseModel):
    m: int = Field(16, ge=2)
    metric: Literal["dot", "cosine"] = "dot"


@hookimpl
def n2kit_register_components():
    facts = {"kind": "index", "summary": "s", "config": "graph_index:Options", "shorthand": "m"}
    return [
        ComponentSpec(name="graph", target="graph_parts:Graph", **facts),
        ComponentSpec(name="deaf", target="graph_parts:Deaf", **facts),
    ]
"""
PARTS = """
import json
import numpy as np
from n2kit.contract import Index


class Deaf(Index):
    def __init__(self, vectors, m=0):
        self.stored, self.m = vectors, m

    @classmethod
    def build(cls, vectors, config):
        return cls(vectors)

    def search(self, queries, k):
        scores = queries @ self.stored.T
        rows = np.argsort(-scores, axis=1)[:, :k]
        more = k - rows.shape[1]
        found = np.take_along_axis(scores, rows, 1)
        return np.pad(found, ((0, 0), (0, more)), constant_values=-2), np.pad(rows, ((0, 0), (0, more)), constant_values=-1)

    def vector(self, row):
        return self.stored[row]

    def save(self, folder):
        np.save(folder / "v.npy", self.stored)
        (folder / "m.json").write_text(json.dumps(self.m))

    @classmethod
    def load(cls, folder):
        return cls(np.load(folder / "v.npy"), json.loads((folder / "m.json").read_text()))


class Graph(Deaf):
    @classmethod
    def build(cls, vectors, config):
        assert config.metric in ("dot", "cosine")
        return cls(vectors, config.m)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with vectors, where an index plug-in with options is installed."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "graph-dist", {"graph_index.py": SPEC, "graph_parts.py": PARTS})
    drawn = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    write_table(Vectors([str(n) for n in range(20)], unit, "abc"), tmp_path / "v.parquet")
    monkeypatch.chdir(tmp_path)
    with on_path(site, monkeypatch):
        yield tmp_path


@pytest.mark.parametrize(
    "written",
    [("--type", "graph:48"), ("--type", "graph", "--set", "index.m=48"), ("--type", "graph:16", "--set", "index.m=48")],
)
def test_options_reach_the_index_and_its_manifest(here: Path, cli: Any, written: tuple[str, ...]) -> None:
    done = cli("index", "v.parquet", "-o", "i", *written, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["options"] == {"m": 48, "metric": "dot"}
    assert json.loads((here / "i" / "manifest.json").read_text())["options"] == {"m": 48, "metric": "dot"}
    again = n2kit.Index.load("i")
    assert again.stored.index.m == 48  # type: ignore[attr-defined]
    again.save("j")
    assert (here / "i" / "manifest.json").read_bytes() == (here / "j" / "manifest.json").read_bytes()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (("--type", "graph:1"), "index graph:1: m: Input should be greater than or equal to 2"),
        (("--type", "graph", "--set", "index.n=48"), "index graph: n: no such option"),
        (("--type", "flat", "--set", "index.m=48"), "index flat: m: no such option"),
        (("--type", "flat:48"), "index 'flat' has no preset '48'"),
        (("--set", "m=48"), "--set m: n2kit index takes options of the index alone\nhint: write index.m"),
        (("--set", "train.lr=1"), "--set train.lr: n2kit index takes options of the index alone"),
    ],
)
def test_a_wrong_option_is_said_before_any_work(here: Path, cli: Any, written: tuple[str, ...], message: str) -> None:
    done = cli("index", "no-such-file.parquet", "-o", "i", *written)
    assert done.code == 2
    assert message in done.err
    assert not (here / "i").exists()


def test_options_in_python(here: Path) -> None:
    index = n2kit.Index.build("v.parquet", kind="graph", options={"m": 5})
    assert index.stored.made_by.options["m"] == 5
    with pytest.raises(BadInput, match="m: Input should be"):
        n2kit.Index.build("v.parquet", kind="graph", options={"m": "many"})


def test_a_law_holds_indexes_to_their_options(here: Path) -> None:
    found = {name: {r.law: r for r in check_component("index", name)} for name in ("graph", "deaf")}
    assert [r for r in found["graph"].values() if r.state == "failed"] == []
    assert found["deaf"]["every_option_is_read"].reason == "it does not read its option m, metric"


class Copied:
    """An index that writes itself by pickle, and changes a copy of itself."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.stored = vectors

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = queries @ self.stored.T
        rows = np.argsort(-scores, 1)[:, :k]
        return np.take_along_axis(scores, rows, 1), rows

    def vector(self, row: int) -> np.ndarray:
        return self.stored[row] if row < 9 else self.stored  # type: ignore[no-any-return]


def test_a_watched_index_may_be_pickled_and_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "is_foreign", lambda part: isinstance(part, Copied))
    first: Any = Copied(np.eye(2, dtype=np.float32))
    outputs.watch(first)
    outputs.watch(first)
    again, changed = pickle.loads(pickle.dumps(first)), copy.copy(first)
    changed.stored = first.stored[::-1]
    found = [index.search(np.array([[1, 0]], np.float32), 1)[1].item() for index in (first, again, changed)]
    assert found == [0, 0, 1]
    assert changed.vector(0).tolist() == [0, 1]
    with pytest.raises(AssertionError, match="a vector of shape"):
        changed.vector(9)
