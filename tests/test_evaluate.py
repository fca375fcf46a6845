"""Ranks against a plain sort."""

from __future__ import annotations

import numpy as np
import pytest

from n2kit.errors import BadInput
from n2kit.evaluate import evaluate, greedy_pairs, protocol


def test_pairs_are_kept_one_to_one_in_order() -> None:
    assert greedy_pairs([("a", "b"), ("c", "b"), ("b", "d"), ("c", "e"), ("f", "f")]) == [("a", "b"), ("c", "e")]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_ranks_equal_a_full_sort(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CHUNK", chunk)
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    ids = [str(n) for n in range(60)]
    pairs = [(str(n), str(n + 30)) for n in range(10)]
    report = evaluate(ids, vectors, pairs, ks=(1, 5, 50))
    pool = [n for n in range(60) if n >= 10]
    expected = [sorted(pool, key=lambda p: -vectors[n] @ vectors[p]).index(n + 30) + 1 for n in range(10)]
    assert report.ranks.tolist() == expected
    assert report.recall[50] == 1.0
    assert (report.queries, report.pool) == (10, 50)
    small = evaluate(ids, vectors, pairs, pool=["55"])
    assert small.pool == 11


def test_a_constant_scorer_finds_nothing() -> None:
    vectors = np.ones((20, 4), np.float32)
    report = evaluate([str(n) for n in range(20)], vectors, [("0", "1"), ("2", "3")], ks=(1, 10))
    assert report.recall[1] == 0.0


def test_what_cannot_be_evaluated_is_refused() -> None:
    vectors = np.eye(4, dtype=np.float32)
    with pytest.raises(BadInput, match="'9'"):
        evaluate(list("0123"), vectors, [("0", "9")])
    with pytest.raises(BadInput, match="no pairs"):
        evaluate(list("0123"), vectors, [])
    vectors[2] = np.nan
    with pytest.raises(BadInput, match="the vector of '2' is not finite"):
        evaluate(list("0123"), vectors, [("0", "1")])
