"""Laws of indexes in their folders: nothing lost and nothing twice, after every change, and for whoever opens them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from n2kit.embed.vectors_file import Vectors, write_table
from n2kit.index.facts import Facts
from n2kit.index.folder import load_index
from n2kit.index.in_store import InStore
from n2kit.index.search import SearchOptions, search
from n2kit.index.store import build_index
from n2kit.index.store_building import close
from n2kit.index.update import update_index
from n2kit.testing.laws import law
from n2kit.testing.under_test import IndexUnderTest, folder

NEARLY = 0.9  # of the rows that find themselves, where an index is not declared to be exact
K = 5


@law("index")
def after_every_change_it_holds_what_it_should(under_test: IndexUnderTest) -> None:
    """After each upsert, deletion, compaction and reopening: count, ids and the search of all rows for themselves agree with numpy."""
    vectors = under_test.vectors().numpy()
    want = {f"i{n}": vector for n, vector in enumerate(vectors[:150])}
    with folder() as where:
        _build(under_test, where, want)
        _holds(where, want, under_test)
        new = dict(zip(["i3", "i149", "new", "it's"], vectors[150:154], strict=True))
        update_index(where / "index", _written(where, new))
        want |= new
        _holds(where, want, under_test)
        gone = ["i0", "it's", *(f"i{n}" for n in range(100, 120))]
        update_index(where / "index", delete=gone)
        want = {item_id: vector for item_id, vector in want.items() if item_id not in gone}
        _holds(where, want, under_test)
        again = {item_id: vectors[160 + n] for n, item_id in enumerate(["i0", "i3", "new"])}
        update_index(where / "index", _written(where, again), delete=["i4"])
        want = {item_id: vector for item_id, vector in (want | again).items() if item_id != "i4"}
        _compact(where)
        _holds(where, want, under_test)


@law("index")
def a_filter_that_k_items_satisfy_gives_k(under_test: IndexUnderTest) -> None:
    """A condition that k items or more satisfy gives k, and they satisfy it; one that fewer satisfy gives those."""
    vectors = under_test.vectors().numpy()
    ids = [f"i{n}" for n in range(len(vectors))]
    price, kind = np.arange(len(ids), dtype=float), np.array([f"k{n % 4}" for n in range(len(ids))], object)
    conditions = {
        "price < 12": price < 12, "kind = 'k3'": kind == "k3", "not kind = 'k3' and price >= 2": (kind != "k3") & (price >= 2),
        "price >= 196": price >= 196, "price < 0": price < 0,
    }  # fmt: skip
    with folder() as where:
        _build(under_test, where, dict(zip(ids, vectors, strict=True)), Facts(ids, {"price": price, "kind": kind}))
        stored = load_index(where / "index")
        for condition, allowed in conditions.items():
            for query in vectors[:4]:
                found = [int(n.id[1:]) for n in search(stored, query, 10, SearchOptions(condition))]
                most = min(10, int(allowed.sum()))
                assert len(set(found)) == len(found) == most, f"{condition} gives {len(found)} items, and not {most}"
                assert allowed[found].all(), f"{condition} gives items that do not satisfy it"
        close(stored)


def _build(under_test: IndexUnderTest, where: Path, want: dict[str, np.ndarray], facts: Facts | None = None) -> None:
    component = under_test.component
    close(
        build_index(
            _written(where, want), where / "index", name=component.reference, options=component.options, facts=facts
        )
    )


def _written(where: Path, rows: dict[str, np.ndarray]) -> Path:
    write_table(Vectors(list(rows), np.stack(list(rows.values())), "0" * 16), where / "vectors.parquet")
    return where / "vectors.parquet"


def _compact(where: Path) -> None:
    stored = load_index(where / "index")
    if isinstance(stored.index, InStore):
        stored.index.store.compact()
    close(stored)


def _holds(where: Path, want: dict[str, np.ndarray], under_test: IndexUnderTest) -> None:
    """Open the index, and compare it with what it should hold."""
    found = load_index(where / "index")
    counts = {len(found.ids), len(found.ids) if found.index.rows is None else found.index.rows}
    assert counts == {len(want)}, f"it counts {counts} items, and not {len(want)}"
    assert set(found.ids) == want.keys(), f"it has other ids: {sorted(set(found.ids) ^ want.keys())[:3]}"
    vectors = np.stack([want[item_id] for item_id in found.ids])
    scores, rows = found.index.search(vectors, K)
    hits = float((rows[:, 0] == np.arange(len(vectors))).mean())
    exact = "exact" in under_test.spec.capabilities
    assert hits >= (1.0 if exact else NEARLY), f"only {hits:.1%} of the vectors find themselves first"
    if exact:
        truth = -np.sort(-(vectors @ vectors.T), axis=1)[:, :K]
        assert np.allclose(scores, truth, atol=1e-5), "it finds others than numpy does, and is declared exact"
    close(found)
