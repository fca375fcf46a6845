"""Laws of stores: they keep what they are given, letter by letter, and read conditions as numpy does."""

from __future__ import annotations

from typing import Any

import numpy as np

from n2kit.contract.store import FULL_TEXT, AllOf, AnyOf, Comparison, Condition, Negation, Store
from n2kit.index.where import holds
from n2kit.testing.laws import law
from n2kit.testing.laws.index import noting
from n2kit.testing.under_test import IndexUnderTest, folder

FIELDS: dict[str, type] = {"kind": str, "price": float}
IDS = [*(f"i{n}" for n in range(36)), "it's", 'a "b"', "back\\slash", "中文"]
KIND = np.array([["x", "y's", "", 'z"\\'][n % 4] for n in range(len(IDS))], object)
PRICE = np.array([float(n) if n % 3 else np.nan for n in range(len(IDS))])


def _kind(sign: Any, value: str) -> Comparison:
    return Comparison("kind", sign, value)


def _price(sign: Any, value: float) -> Comparison:
    return Comparison("price", sign, value)


CONDITIONS: tuple[Condition, ...] = (
    *(_price(sign, 10.0) for sign in ("=", "!=", "<", "<=", ">", ">=")), *(_kind(sign, "y's") for sign in ("=", "!=", "<", ">=")),
    _kind("=", 'z"\\'), _kind("=", ""), _kind("!=", ""), Negation(_price("<", 10)), Negation(_kind("=", "x")),
    AllOf((_kind("=", "x"), _price(">", 8.5))), AnyOf((_kind("=", "x"), _kind("=", "y's"), _kind("=", "nothing"))),
    AnyOf((_price("=", 1), _price("=", 2), _kind("=", "x"))), Negation(AnyOf((_kind("=", "x"), _kind("=", "")))),
    Negation(AllOf((_price(">", 3), Negation(_kind("!=", "x"))))), AnyOf(tuple(_kind("=", f"k{n}") for n in range(3000))),
)  # fmt: skip


@law("index", of=Store)
def it_keeps_what_it_is_given(under_test: IndexUnderTest) -> None:
    """Opened again, it gives back each id, vector, text and number; what was not given is "" or NaN."""
    vectors = under_test.vectors().numpy()[: len(IDS)]
    with folder() as where:
        _filled(under_test, where, vectors).close()
        store: Store = under_test.component.cls().open(where, under_test.config)
        try:
            assert len(store) == len(IDS), f"it counts {len(store)} rows, and not {len(IDS)}"
            pieces = list(store.scan(FIELDS, vectors=True))
            found = {name: np.concatenate([piece[name] for piece in pieces]) for name in ("id", "vector", *FIELDS)}
            row = {item_id: n for n, item_id in enumerate(found["id"].tolist())}
            assert row.keys() == set(IDS), f"it has other ids: {sorted(row.keys() ^ set(IDS))[:3]}"
            order = [row[item_id] for item_id in IDS]
            assert (found["kind"][order] == KIND).all(), "a text is another"
            assert np.array_equal(found["price"][order], PRICE, equal_nan=True), "a number is another"
            assert np.array_equal(found["vector"][order], vectors), "a vector is another"
            assert np.array_equal(store.vectors(IDS[::-1]), vectors[::-1]), "vectors(ids) are others"
            store.delete(["it's", "中文", "never there"])
            assert len(store) == len(IDS) - 2, "not just the rows that were named are deleted"
        finally:
            store.close()


@law("index", of=Store)
def it_reads_conditions_as_numpy_does(under_test: IndexUnderTest) -> None:
    """Each condition leaves the rows that satisfy it, however many; a row without a value satisfies no comparison."""
    vectors = under_test.vectors().numpy()[: len(IDS)]
    with folder() as where:
        store = _filled(under_test, where, vectors)
        try:
            for condition in CONDITIONS:
                allowed = holds(condition, {"kind": KIND, "price": PRICE})
                ((found, _),) = store.search(vectors[:1], len(IDS), condition)
                want = {item_id for item_id, keep in zip(IDS, allowed, strict=True) if keep}
                assert set(found) == want, f"{str(condition)[:80]} gives {len(found)} rows, and not {len(want)}"
        finally:
            store.close()


@law("index", of=Store, capability=FULL_TEXT)
def it_finds_words(under_test: IndexUnderTest) -> None:
    """`match` finds the rows that hold a word, those that came later too, and none that was deleted."""
    vectors = under_test.vectors().numpy()[:4]
    texts = np.array(["a red chair", "a blue chair", "红色 椅子", "lamp"], object)
    with folder() as where:
        store: Store = under_test.component.cls().create(
            where, vectors.shape[1], {"text": str}, under_test.config, replace=False
        )
        try:
            store.insert(["a", "b", "c"], vectors[:3], {"text": texts[:3]})
            store.index_words("text")
            store.upsert(["d"], vectors[3:], {"text": texts[3:]})
            store.delete(["b"])
            store.compact()
            for word, want in [("chair", {"a"}), ("椅子", {"c"}), ("lamp", {"d"}), ("table", set())]:
                found = {item_id for item_id, _ in store.match(word, 9, "text")}
                assert found == want, f"{word} is found in {sorted(found)}, and not in {sorted(want)}"
        finally:
            store.close()


@law("index", of=Store)
def each_option_is_read(under_test: IndexUnderTest) -> None:
    """No option is accepted and ignored: making, searching and opening read each one."""
    read: set[str] = set()
    given = under_test.config
    watched: Any = type(type(given).__name__, (type(given),), {"__getattribute__": noting(type(given), read)})
    config = watched.model_construct(**dict(given))
    read.clear()
    vectors, cls = under_test.vectors().numpy()[:4], under_test.component.cls()
    with folder() as where:
        store: Store = cls.create(where, vectors.shape[1], {"text": str}, config, replace=False)
        try:
            store.insert(list("abcd"), vectors, {"text": np.array(["x"] * 4, object)})
            if FULL_TEXT in under_test.spec.capabilities:
                store.index_words("text")
            store.compact()
            store.search(vectors[:1], 2)
        finally:
            store.close()
    ignored = [name for name in type(given).model_fields if name not in read]
    assert not ignored, f"it does not read its option {', '.join(ignored)}"


def _filled(under_test: IndexUnderTest, where: Any, vectors: np.ndarray) -> Store:
    store: Store = under_test.component.cls().create(where, vectors.shape[1], FIELDS, under_test.config, replace=False)
    store.insert(IDS, vectors, {"kind": KIND, "price": PRICE})
    return store
