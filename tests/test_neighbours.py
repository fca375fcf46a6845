"""The neighbours of all items: as numpy finds them, by the rules, and finished byte by byte alike after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from n2kit.embed.vectors_file import Vectors, write_table
from n2kit.errors import BadInput
from n2kit.index import build_index, neighbours
from n2kit.index.facts import Facts
from n2kit.index.neighbours import all_neighbours
from n2kit.index.rules import Rules

COUNT, K = 60, 5
KIND = np.array([["a", "b", ""][n % 3] for n in range(COUNT)], object)
PRICE = np.array([float(n % 4) if n else np.nan for n in range(COUNT)])
IDS = [f"i{n}" for n in range(COUNT)]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    found = np.random.default_rng(0).normal(size=(COUNT, 8)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def index(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("index")
    write_table(Vectors(IDS, vectors, "0123456789abcdef"), root / "v.parquet")
    build_index(root / "v.parquet", root / "index", facts=Facts(IDS, {"kind": KIND, "price": PRICE}))
    return root / "index"


def lists(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in pq.read_table(file).to_pylist():
        found.setdefault(row["id"], []).append(row["neighbour"])
        assert row["rank"] == len(found[row["id"]])
    return found


def by_hand(vectors: np.ndarray, allowed: Any) -> dict[str, list[str]]:
    found = {}
    for n, scores in enumerate(vectors @ vectors.T):
        chosen: list[int] = []
        for other in np.argsort(-scores, kind="stable"):
            if other != n and len(chosen) < K and allowed(n, int(other), chosen):
                chosen.append(int(other))
        found[IDS[n]] = [IDS[m] for m in chosen]
    return found


CASES: list[tuple[Rules, Any]] = [
    (Rules(), lambda n, m, chosen: True),
    (Rules(exclude_same="kind"), lambda n, m, chosen: KIND[n] == "" or KIND[n] != KIND[m]),
    (Rules(exclude_same="price"), lambda n, m, chosen: PRICE[n] != PRICE[m]),
    (Rules(cap=("kind", 1)), lambda n, m, chosen: KIND[m] == "" or all(KIND[m] != KIND[c] for c in chosen)),
    (Rules("price", ("kind", 2)), lambda n, m, chosen: PRICE[n] != PRICE[m] and (KIND[m] == "" or sum(KIND[m] == KIND[c] for c in chosen) < 2)),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "allowed"), CASES)
def test_they_are_what_numpy_finds_by_the_same_rules(
    rules: Rules, allowed: Any, vectors: np.ndarray, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 16)
    done = all_neighbours(index, tmp_path / "n.parquet", K, rules)
    assert lists(tmp_path / "n.parquet") == by_hand(vectors, allowed)
    assert (done.items, done.rows, done.computed) == (COUNT, COUNT * K, COUNT)


def test_mutual_ones_have_each_other(vectors: np.ndarray, index: Path, tmp_path: Path) -> None:
    all_neighbours(index, tmp_path / "n.parquet", K, mutual=True)
    every = by_hand(vectors, lambda *_: True)
    want = {i: [m for m in own if i in every[m]] for i, own in every.items()}
    assert lists(tmp_path / "n.parquet") == {i: own for i, own in want.items() if own}


def test_fewer_items_than_neighbours(index: Path, tmp_path: Path) -> None:
    assert all_neighbours(index, tmp_path / "n.parquet", 100).rows == COUNT * (COUNT - 1)
    assert all_neighbours(index, tmp_path / "m.parquet", 100, Rules("kind")).rows == 2 * 20 * 40 + 20 * 59


def test_interrupted_it_computes_only_what_is_missing(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 16)
    out, real = tmp_path / "n.parquet", neighbours._block
    all_neighbours(index, tmp_path / "whole.parquet", K)
    calls: list[int] = []

    def counted(stored: Any, queries: np.ndarray, *more: Any) -> Any:
        calls.append(int(queries[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(stored, queries, *more)

    monkeypatch.setattr(neighbours, "_block", counted)
    with pytest.raises(KeyboardInterrupt):
        all_neighbours(index, out, K)
    (parts,) = tmp_path.glob(".n.parquet.parts-*")
    (parts / "0000000016.npz").write_bytes((parts / "0000000016.npz").read_bytes()[:-200])
    assert all_neighbours(index, out, K).computed == COUNT - 16
    assert calls == [0, 16, 32, 16, 32, 48]
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["n.parquet", "whole.parquet"]
    assert all_neighbours(index, out, K).computed == 0
    for name, ending in (("n.csv", "csv"), ("n.JSONL.gz", "jsonl"), ("n.npz", "npz"), ("n.pkl", "pkl")):
        with pytest.raises(BadInput, match=rf"{name}: Parquet is written here, and no \.{ending}"):
            all_neighbours(index, tmp_path / name, K)
    with pytest.raises(BadInput, match="another index or by other rules"):
        all_neighbours(index, out, K + 1)
    assert all_neighbours(index, out, K + 1, force=True).computed == COUNT


def test_the_command_line(cli: Any, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "n.parquet"
    facts = json.loads(cli("neighbours", index, "-k", "3", "-o", out, "--cap", "kind=2", "--json").out)
    assert (facts["items"], facts["rows"], facts["computed"]) == (COUNT, 3 * COUNT, COUNT)
    assert "finished before" in cli("neighbours", index, "-k", "3", "-o", out, "--cap", "kind=2").err
    (tmp_path / "text").write_text("x")
    for arguments, reason in [
        ((index, "-o", tmp_path / "x", "--exclude-same", "knid"), "did you mean kind?"),
        ((index, "-o", tmp_path / "x", "--cap", "kind"), "expected COLUMN=NUMBER"),
        ((index, "-o", tmp_path / "x", "--cap", "kind=0"), "expected COLUMN=NUMBER"),
        ((index, "-o", tmp_path / "text"), "holds no neighbours"),
        ((tmp_path, "-o", tmp_path / "x"), "is no index"),
    ]:
        found = cli("neighbours", *arguments)
        assert (found.code, reason in found.err) == (2, True), found.err
