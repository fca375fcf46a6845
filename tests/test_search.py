"""Recommendations by conditions, with variety, without near-duplicates, from several items, explained."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n2kit.embed.vectors_file import Vectors
from n2kit.errors import BadInput
from n2kit.index import search as searching
from n2kit.index.choice import choose_index
from n2kit.index.facts import Facts
from n2kit.index.folder import StoredIndex
from n2kit.index.search import SearchOptions, mean_vector, search
from n2kit.index.store import index_vectors

COUNT = 300
IDS = [f"i{n}" for n in range(COUNT)]
KIND = np.array([f"k{n % 5}" for n in range(COUNT)], object)
PRICE = np.arange(COUNT, dtype=float)


def drawn() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(COUNT, 8)).astype(np.float32)
    vectors[1::2] = vectors[::2] + 0.01  # each twice, nearly
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=["flat", "sq8", "hnsw", "ivf:4"])
def stored(request: pytest.FixtureRequest) -> StoredIndex:
    made = index_vectors(Vectors(IDS, drawn(), "f"), choose_index(request.param))
    made.facts = Facts(IDS, {"kind": KIND, "price": PRICE})
    return made


@pytest.mark.parametrize("few", [0, 20_000])
@pytest.mark.parametrize("condition", ["kind = 'k3'", "price < 12", "kind != 'k3' and price > 3"])
def test_a_filter_that_leaves_k_items_gives_k(
    stored: StoredIndex, condition: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "FEW", few)
    vectors = drawn()
    allowed = {
        "kind = 'k3'": KIND == "k3", "price < 12": PRICE < 12, "kind != 'k3' and price > 3": (KIND != "k3") & (PRICE > 3)
    }[condition]  # fmt: skip
    found = search(stored, vectors[0], 10, SearchOptions(condition), without=["i0"])
    scores = np.where(allowed & (np.arange(COUNT) != 0), vectors @ vectors[0], -9)
    want = [IDS[n] for n in np.argsort(-scores)[:10]]
    assert len({n.id for n in found}) == 10
    assert all(allowed[int(n.id[1:])] for n in found)
    assert len({n.id for n in found} & set(want)) >= (8 if few else 10) or stored.made_by.component != "flat"
    assert search(stored, vectors[0], 10, SearchOptions("price < 0")) == []
    assert len(search(stored, vectors[0], 10, SearchOptions("price < 4"))) == 4


def test_near_duplicates_are_left_out(stored: StoredIndex) -> None:
    found = search(stored, drawn()[0], 10, SearchOptions(distinct=0.995))
    assert len({int(n.id[1:]) // 2 for n in found}) == len(found) == 10


def test_variety_takes_less_of_what_is_alike(stored: StoredIndex) -> None:
    vectors = drawn()

    def likeness(options: SearchOptions) -> float:
        own = np.stack([vectors[int(n.id[1:])] for n in search(stored, vectors[0], 6, options)])
        return float((own @ own.T).sum() - 6)

    plain, varied = likeness(SearchOptions()), likeness(SearchOptions(diversify=0.5))
    assert varied < plain
    first = search(stored, vectors[0], 6, SearchOptions(diversify=0.5))[0]
    assert first == search(stored, vectors[0], 1)[0]


def test_several_items_are_searched_between(stored: StoredIndex) -> None:
    vector = mean_vector(stored, ["i0", "i50"])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    found = search(stored, vector, 5, without=["i0", "i50"])
    assert not {"i0", "i50"} & {n.id for n in found}
    with pytest.raises(BadInput, match="'nope' is not in the index"):
        mean_vector(stored, ["i0", "nope"])


def test_what_is_refused(stored: StoredIndex) -> None:
    for options, reason in [({"diversify": 2.0}, "no share"), ({"distinct": 3.0}, "no cosine")]:
        with pytest.raises(BadInput, match=reason):
            SearchOptions(**options)  # type: ignore[arg-type]
    bare = index_vectors(Vectors(IDS, drawn(), "f"), choose_index("flat"))
    with pytest.raises(BadInput, match="does not remember"):
        search(bare, drawn()[0], 3, SearchOptions("kind = 'k3'"))


def test_the_command_line(
    cli: Any, tiny_bundle: Path, at_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--items", "items.jsonl", "--images", "images")
    assert cli("embed", tiny_bundle, *given, "-o", tmp_path / "v", "--dtype", "float16", "--dim", "8").code == 0
    index = tmp_path / "index"
    assert cli("index", tmp_path / "v", "-o", index, *given).code == 0
    asked = ("recommend", "--index", index)

    def ids(*more: str) -> list[str]:
        return [n["id"] for n in json.loads(cli(*asked, *more, "--json").out)["neighbours"]]

    assert len(ids("--id", "noto:3", "-k", "20", "--where", "title = 'thing 3' or title in ('thing 4')")) == 3
    assert "noto:3" not in ids("--id", "noto:3", "--id", "noto:4", "-k", "22", "--diversify", "0.4", "--distinct", "1")
    monkeypatch.setattr("sys.stdin", io.StringIO("noto:3\n\nnoto:4\n"))
    told = json.loads(cli(*asked, "--id", "-", "-k", "2", "--json").out)["queries"]
    assert [(one["query"], len(one["neighbours"])) for one in told] == [("noto:3", 2), ("noto:4", 2)]
    new = ("--bundle", tiny_bundle, "--title", "thing 3", "--image", "images/noto_3.png", "-k", "2")
    explained = cli(*asked, *new, "--explain")
    assert explained.out.startswith("| rank | id | score | title | without image | without text |"), explained.err
    for more, reason in [
        (("--id", "noto:3", "--where", "colour = 'red'"), "no column colour"),
        (("--id", "noto:3", "--explain"), "--explain is of a new item"),
        (("--id", "-", "--id", "noto:3"), "leave out the other --id"),
        (("--bundle", tiny_bundle, "--title", "x", "--explain"), "has not both"),
        (("--id", "noto:3", "--diversify", "2"), "diversify"),
    ]:
        found = cli(*asked, *more)
        assert (found.code, reason in found.err) == (2, True), found.err
