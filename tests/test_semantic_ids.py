"""Semantic ids: unlike for unlike items, the same every day, and none twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from n2kit.embed.vectors_file import Vectors, write_table
from n2kit.errors import BadInput
from n2kit.index.semantic_ids import semantic_ids


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.normal(size=(8, 12)), 40, axis=0)
    found = (groups + 0.05 * rng.normal(size=groups.shape)).astype(np.float32)
    found[1] = found[0]  # nothing but the last code tells them apart
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    file = tmp_path_factory.mktemp("v") / "v.parquet"
    write_table(Vectors([f"i{n}" for n in range(320)], found, "0123456789abcdef"), file)
    return file


def codes(file: Path) -> np.ndarray:
    return np.array(pq.read_table(file)["codes"].to_pylist())


def test_like_items_share_codes_and_no_two_have_the_same(vectors: Path, tmp_path: Path) -> None:
    done = semantic_ids(vectors, tmp_path / "a.parquet", levels=3, codes=8)
    found = codes(tmp_path / "a.parquet")
    assert found.shape == (320, 4)
    assert len({tuple(row) for row in found}) == 320
    assert done.collisions == 320 - len({tuple(row) for row in found[:, :3]})
    assert done.collisions >= 1
    assert done.largest == found[:, 3].max() + 1
    assert done.used == [len(set(found[:, level])) / 8 for level in range(3)]
    assert sum(len(set(found[40 * n : 40 * n + 40, 0])) == 1 for n in range(8)) >= 6  # of eight groups
    assert len(set(found[::40, 0])) >= 6


def test_the_same_codes_another_day(vectors: Path, tmp_path: Path) -> None:
    semantic_ids(vectors, tmp_path / "a.parquet", levels=2, codes=4)
    semantic_ids(vectors, tmp_path / "b.parquet", like=tmp_path / "a.parquet")
    assert np.array_equal(codes(tmp_path / "a.parquet"), codes(tmp_path / "b.parquet"))


def test_what_is_refused(vectors: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    write_table(Vectors(["a", "b"], np.eye(2, 12, dtype=np.float32), "f" * 16), other)
    semantic_ids(vectors, tmp_path / "a.parquet", codes=4)
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (vectors, {"codes": 12}, "a power of two|levels of 12"),
        (vectors, {"levels": 17}, "17 levels"),
        (vectors, {"codes": 512}, "fewer than 512 codes"),
        (other, {"like": tmp_path / "a.parquet"}, "is of model 0123456789abcdef"),
        (vectors, {"like": vectors}, "no semantic ids"),
    ]
    for file, options, reason in cases:
        with pytest.raises(BadInput, match=reason):
            semantic_ids(file, tmp_path / "x.parquet", **options)
    with pytest.raises(BadInput, match="exists"):
        semantic_ids(vectors, tmp_path / "a.parquet")


def test_fewer_items_than_numbers_of_a_vector(tmp_path: Path) -> None:
    write_table(Vectors([f"i{n}" for n in range(24)], np.eye(24, 64, dtype=np.float32), "f"), tmp_path / "v.parquet")
    assert semantic_ids(tmp_path / "v.parquet", tmp_path / "a.parquet", codes=4).items == 24


def test_the_command_line(cli: Any, vectors: Path, tmp_path: Path) -> None:
    done = cli("semantic-ids", vectors, "--codes", "8", "-o", tmp_path / "a.parquet", "--json")
    assert json.loads(done.out)["items"] == 320
    assert "codes used by level: " in done.err
