"""Hard negatives out of an index: in the window, below the margin, never a known positive, always the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from n2kit import read_pairs
from n2kit.data.pair_writing import write_pairs
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput
from n2kit.index import StoredIndex, build_index, index_of
from n2kit.index.mining import Window, mine

COUNT = 60


def angles() -> np.ndarray:
    """Items on a circle, n degrees from item 0: item n is the n-th nearest to it, at cosine cos(n°)."""
    turned = np.deg2rad(np.arange(COUNT))
    return np.stack([np.cos(turned), np.sin(turned)], 1).astype(np.float32)


def write_vectors(folder: Path, vectors: np.ndarray, name: str = "vectors.parquet") -> Path:
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table({"id": [f"i{n}" for n in range(len(vectors))], "vector": column}), folder / name)
    return folder / name


@pytest.fixture
def stored(tmp_path: Path) -> StoredIndex:
    return index_of(write_vectors(tmp_path, angles()))


def mined(stored: StoredIndex, pairs: Pairs, **window: Any) -> dict[tuple[str, str], tuple[str, ...]]:
    return mine(stored, pairs, Window(**{"margin": -2.0} | window)).negatives


def test_ranks_count_what_is_neither_the_query_nor_a_positive(stored: StoredIndex) -> None:
    one = Pairs([("i0", "i4")])
    assert mined(stored, one, first=1, last=5, count=9)[("i0", "i4")] == ("i1", "i2", "i3", "i5", "i6")
    assert mined(stored, one, first=3, last=4, count=9)[("i0", "i4")] == ("i3", "i5")
    both = Pairs([("i0", "i4"), ("i2", "i0")])  # of which the second says so in the other direction
    assert mined(stored, both, first=1, last=5, count=9)[("i0", "i4")] == ("i1", "i3", "i5", "i6", "i7")


def test_the_nearest_of_the_window_that_keep_the_margin(stored: StoredIndex) -> None:
    """Partner at 20°: cos 0.940; below 0.940 − 0.05 is what lies at 28° and beyond."""
    pairs = Pairs([("i0", "i20"), ("i0", "i40")])
    found = mine(stored, pairs, Window(1, 30, 0.05, 2)).negatives
    assert found[("i0", "i20")] == ("i28", "i29")
    assert ("i0", "i40") not in found  # nothing in the window is so far below cos 40°
    assert mined(stored, pairs, first=1, last=100, margin=0.05)[("i0", "i40")] == ("i45", "i46", "i47")


def test_a_small_catalogue_gives_what_it_has(stored: StoredIndex) -> None:
    assert len(mined(stored, Pairs([("i0", "i4")]), first=50, last=1000, count=100)[("i0", "i4")]) == 9
    with pytest.raises(BadInput, match="no pair has an item of ranks 70 to 80"):
        mined(stored, Pairs([("i0", "i4")]), first=70, last=80)


def test_equal_scores_stand_in_the_order_of_the_index(tmp_path: Path) -> None:
    vectors = np.concatenate([angles()[:1], np.repeat(angles()[10:11], 20, 0)])
    stored = index_of(write_vectors(tmp_path, vectors))
    found = mined(stored, Pairs([("i0", "i7")]), first=1, last=50, count=4)
    assert found[("i0", "i7")] == ("i1", "i2", "i3", "i4")
    assert found == mined(stored, Pairs([("i0", "i7")]), first=1, last=50, count=4)


def test_further_positives_are_never_mined(stored: StoredIndex) -> None:
    pairs, window = Pairs([("i0", "i4")]), Window(1, 5, -2.0, 9)
    later = Pairs([("i2", "i0"), ("i0", "i3"), ("i0", "i1")], grades={("i0", "i1"): 0.0})
    assert mine(stored, pairs, window, known=[later]).negatives == {("i0", "i4"): ("i1", "i5", "i6", "i7", "i8")}


def test_many_queries_at_a_time_change_nothing(stored: StoredIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = Pairs([(f"i{n}", f"i{(n + 1) % COUNT}") for n in range(COUNT)])
    seen: list[tuple[int, int]] = []
    whole = mine(stored, pairs, Window(3, 20, -2.0, 3), lambda *done: seen.append(done)).negatives
    assert seen == [(60, 60)]
    monkeypatch.setattr("n2kit.index.mining.QUERIES", 7)
    assert mined(stored, pairs, first=3, last=20) == whole


def test_pairs_that_do_not_belong_together_get_none(stored: StoredIndex) -> None:
    pairs = Pairs([("i0", "i4"), ("i9", "i1")], grades={("i9", "i1"): 0.0})
    assert set(mined(stored, pairs, first=1, last=5)) == {("i0", "i4")}


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.jsonl"])
@pytest.mark.parametrize("grades", [{}, {("i0", "i4"): 0.5, ("i9", "i1"): 1.0}])
def test_what_is_written_can_be_read(name: str, grades: dict[tuple[str, str], float], tmp_path: Path) -> None:
    known = {"i0", "i4", "i9", "i1", "a b", "c|d", 'e"f', "g,h"}
    pairs = Pairs([("i0", "i4"), ("i9", "i1")], grades=grades, negatives={("i0", "i4"): ("a b", "c|d", 'e"f', "g,h")})
    write_pairs(pairs, tmp_path / name)
    again = read_pairs(tmp_path / name, known, negatives=True)
    assert (again.pairs, again.grades, again.negatives) == (pairs.pairs, grades, pairs.negatives)


@pytest.mark.parametrize("strange", ["a\tb", "a\nb"])
def test_an_id_that_a_tsv_cannot_hold_is_refused(strange: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"out\.tsv: an id holds a tab or ends a line"):
        write_pairs(Pairs([("i0", strange)]), tmp_path / "out.tsv")
    assert not list(tmp_path.iterdir())


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    build_index(write_vectors(tmp_path, angles()), tmp_path / "an.index")
    (tmp_path / "pairs.csv").write_text("query,target\ni0,i20\ni0,i58\ni30,i31\n")
    return tmp_path


def test_index_and_vectors_give_the_same_file(shop: Path, cli: Any) -> None:
    arguments = ["mine-negatives", "--pairs", "pairs.csv", "--ranks", "1:45", "--count", "2"]
    one = cli(*arguments, "--index", "an.index", "-o", "one.csv")
    assert (one.code, one.out) == (0, "one.csv\n")
    assert "4 negatives for 2 pairs" in one.err
    assert "1 pair (1 query) without any" in one.err
    two = cli(*arguments, "--vectors", "vectors.parquet", "-o", "two.csv", "--json")
    facts = json.loads(two.out)
    assert (facts["pairs"], facts["negatives"], facts["without"], facts["queries_without"]) == (3, 4, 1, 1)
    (shop / "val.csv").write_text("i28,i0\n")
    assert cli(*arguments, "--known", "val.csv", "--index", "an.index", "-o", "three.csv").code == 0
    assert (shop / "three.csv").read_text().splitlines()[1] == "i0,i20,i29,i30"
    assert (shop / "one.csv").read_bytes() == (shop / "two.csv").read_bytes()
    assert (shop / "one.csv").read_text().splitlines()[:2] == ["query,target,negative_1,negative_2", "i0,i20,i28,i29"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (["--ranks", "9"], "--ranks 9 is no window"),
        (["--ranks", "0:5"], "ranks 0:5 are no window"),
        (["--ranks", "9:3"], "ranks 9:3 are no window"),
        (["--margin", "nan"], "margin nan is no difference"),
        (["--vectors", "vectors.parquet"], "give either --index or --vectors"),
        (["-o", "out.parquet"], "out.parquet: pairs are written as .csv, .tsv, .jsonl"),
        (["-o", "pairs.csv"], "pairs.csv is read here"),
        (["-o", "strange.csv"], "strange.csv exists"),
        (["--index", "nowhere"], "nowhere is no index"),
        (["--pairs", "strange.csv"], "strange.csv:2: unknown id 'x'"),
        (["--known", "strange.csv"], "strange.csv:2: unknown id 'x'"),
        (["--ranks", "59:60"], "pairs.csv: no pair has an item of ranks 59 to 60"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(shop: Path, cli: Any, change: list[str], complaint: str) -> None:
    (shop / "strange.csv").write_text("query,target\nx,i1\n")
    before = sorted(p.name for p in shop.iterdir())
    given = {"--pairs": "pairs.csv", "--index": "an.index", "-o": "out.csv"} | dict(
        zip(change[::2], change[1::2], strict=True)
    )
    result = cli("mine-negatives", *[part for option in given.items() for part in option])
    assert result.code == 2
    assert complaint in result.err
    assert "hint: " in result.err
    assert sorted(p.name for p in shop.iterdir()) == before


def test_training_reads_what_was_mined(at_workspace: Path, tiny_bundle: Path, tmp_path: Path, cli: Any) -> None:
    vectors, hard = tmp_path / "v.parquet", tmp_path / "hard.csv"
    shared = ["--items", "items.jsonl", "--images", "images"]
    assert cli("embed", tiny_bundle, *shared, "-o", vectors).code == 0
    found = cli(
        "mine-negatives", "--vectors", vectors, "--pairs", "train.csv", "-o", hard, "--ranks", "2:12", "--margin", "-1"
    )
    assert found.code == 0, found.err
    trained = cli(
        "train",
        tiny_bundle,
        *shared,
        "--pairs",
        hard,
        "-o",
        tmp_path / "run",
        "--max-steps",
        "2",
        "--batch-size",
        "2",
        "--json",
    )
    assert trained.code == 0, trained.err
