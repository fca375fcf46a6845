"""Late fusion by whitening: each number against plain numpy, the choice, and the fitted model."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
import pytest

from n2kit.evaluate.ranks import rank_targets
from n2kit.inputs import halves
from n2kit.inputs.halves import Half
from n2kit.whitening import candidates, statistics
from n2kit.whitening.candidates import CANDIDATES, Candidate, reciprocal_ranks
from n2kit.whitening.folds import folds
from n2kit.whitening.select import FALLBACK, fitted, select
from n2kit.whitening.statistics import PairRows, pair_spectrum, standard, total_spectrum, whitener

ITEMS, TEXT, IMAGE = 60, 7, 5


def half(width: int, seed: int, missing: tuple[int, ...] = ()) -> Half:
    """Draw a half whose dimensions differ in mean and scale."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(ITEMS, width)) * np.geomspace(0.1, 40, width) + rng.normal(size=width) * 9
    present = ~np.isin(np.arange(ITEMS), missing)
    return Half((values * present[:, None]).astype(np.float32), present)


def related(missing: tuple[int, ...] = ()) -> tuple[Half, Half]:
    """Two halves in which items 2n and 2n+1 are alike."""
    text, image = half(TEXT, 1), half(IMAGE, 2, missing)
    for one in (text, image):
        one.values[1::2] = one.values[::2] + 0.2 * (one.values[1::2] - one.values[::2])
        one.values[~one.present] = 0
    return text, image


def pairs(count: int = ITEMS // 2, weights: Any = None) -> PairRows:
    left = np.arange(0, 2 * count, 2)
    return PairRows(left, left + 1, np.ones(count) if weights is None else np.asarray(weights, float))


def reference(one: Half, some: PairRows, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, scale and A by the formulas as they stand in the recipe."""
    own = np.unique(np.concatenate([some.left, some.right]))
    x = one.values[own[one.present[own]]].astype(np.float64)
    mean, deviation = x.mean(0), x.std(0)
    scale = np.array([1 / d if d > 1e-6 * max(1, np.abs(x).max()) else 0 for d in deviation])
    scatter, total = np.zeros((x.shape[1],) * 2), 0.0
    for a, b, grade in zip(some.left, some.right, some.weight, strict=True):
        if one.present[a] and one.present[b]:
            d = (one.values[a].astype(np.float64) - one.values[b]) * scale
            scatter += grade * np.outer(d, d)
            total += 2 * grade
    scatter /= total
    ridge = strength * np.trace(scatter) / len(scatter)
    values, vectors = np.linalg.eigh(scatter + ridge * np.eye(len(scatter)))
    return mean, scale, vectors @ np.diag(values**-0.5) @ vectors.T


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("weights", [None, "graded"])
@pytest.mark.parametrize("missing", [(), (0, 7, 33)])
def test_the_maps_are_those_of_the_recipe(
    strength: float, weights: str | None, missing: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "BLOCK", 7)  # several blocks, and a rest
    text, image = related(missing)
    some = pairs(weights=np.linspace(0.2, 1, ITEMS // 2) if weights else None)
    made = fitted(Candidate("whitened", strength, strength, 0.35), text, image, some)
    for one, own in ((text, made.text), (image, made.image)):
        for got, want in zip(own, reference(one, some, strength), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    mapped = []
    for one in (text, image):
        mean, scale, matrix = reference(one, some, strength)
        mapped.append(unit((one.values - mean) * scale @ matrix) * one.present[:, None])
    weight = np.where(image.present, 0.35, 0.0)[:, None]
    want = np.concatenate([np.sqrt(1 - weight) * mapped[0], np.sqrt(weight) * mapped[1]], 1)
    np.testing.assert_allclose(made(text, image), want, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(made(text, image), axis=1), 1, atol=1e-6)


def test_a_map_makes_the_differences_of_pairs_white() -> None:
    text, _ = related()
    own, some = standard(text, pairs().items()), pairs()
    a = whitener(pair_spectrum(text, own, some), 1e-9)
    differences = (text.values[some.left].astype(np.float64) - text.values[some.right]) * own.scale @ a
    np.testing.assert_allclose(differences.T @ differences / (2 * len(some)), np.eye(TEXT), atol=1e-4)


def test_flat_doubled_and_more_dimensions_than_pairs() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(ITEMS, 40)).astype(np.float32)
    values[:, 3], values[:, 4], values[:, 5] = 7.0, values[:, 0], values[:, 0]
    one = Half(values, np.ones(ITEMS, bool))
    made = fitted(FALLBACK, one, one, pairs(6))
    assert made.text.scale[3] == 0
    vectors = made(one, one)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_pairs_of_equal_items_leave_nothing_to_whiten() -> None:
    one = Half(
        np.repeat(np.random.default_rng(0).normal(size=(ITEMS // 2, 4)), 2, 0).astype(np.float32), np.ones(ITEMS, bool)
    )
    made = fitted(FALLBACK, one, one, pairs())
    np.testing.assert_array_equal(made.text.matrix, np.eye(4))


def test_without_pairs_the_items_themselves_are_whitened() -> None:
    text, image = related()
    nothing = pairs(0)
    choice = select(text, image, nothing)
    assert (choice.chosen, choice.reason) == (FALLBACK, "no pairs")
    made = fitted(choice.chosen, text, image, nothing)
    own = standard(text, np.arange(ITEMS))
    np.testing.assert_allclose(made.text.matrix, whitener(total_spectrum(text, own, np.arange(ITEMS)), 0.3))
    np.testing.assert_allclose(total_spectrum(text, own, np.arange(ITEMS)).level, 1, rtol=1e-6)


@pytest.mark.parametrize("without", [tuple(range(40)), tuple(range(0, 40, 2))])
def test_a_half_that_no_pair_has_twice_is_fitted_on_all_items(without: tuple[int, ...]) -> None:
    """Of the pairs' items none has an image, or one of each pair; the other items keep theirs."""
    text, image = related(without)
    made = fitted(FALLBACK, text, image, pairs(20))
    own = standard(image, np.arange(ITEMS))
    np.testing.assert_array_equal(made.image.scale, own.scale)
    np.testing.assert_allclose(made.image.matrix, whitener(total_spectrum(image, own, np.arange(ITEMS)), 0.3))
    alone = Half(text.values * 0, np.zeros(ITEMS, bool))
    np.testing.assert_allclose(np.linalg.norm(made(alone, image)[40:], axis=1), 1, atol=1e-6)


def test_of_equal_candidates_the_nearest_to_the_fallback_is_chosen() -> None:
    """Where all find everything, nothing speaks for a corner of the grid."""
    one = half(TEXT, 1)
    one.values[1::2] = one.values[::2]
    choice = select(one, one, pairs())
    assert {scored.mrr for scored in choice.table} == {1.0}
    assert choice.chosen == FALLBACK
    assert choice.table[-1].candidate.kind == "concat-std"


def test_pairs_that_hang_together_stay_in_one_fold() -> None:
    chain = PairRows(np.array([0, 1, 2, 10, 20, 21, 30, 40]), np.array([1, 2, 3, 11, 21, 22, 31, 41]), np.ones(8))
    numbers = folds(chain)
    assert not isinstance(numbers, str)
    assert len(set(numbers[:3])) == 1
    assert len(set(numbers[4:6])) == 1
    assert sorted(np.bincount(numbers)) == [1, 2, 2, 3]


@pytest.mark.parametrize(
    ("left", "right", "why"),
    [
        (range(20), range(1, 21), "all pairs hang together"),
        ([*range(20), 50, 54], [*range(1, 21), 51, 55], "91% of the pairs hang together"),
    ],
)
def test_what_cannot_be_split_is_said_and_falls_back(left: Any, right: Any, why: str) -> None:
    text, image = half(TEXT, 1), half(IMAGE, 2)
    some = PairRows(np.array(left) % ITEMS, np.array(right) % ITEMS, np.ones(len(left)))
    choice = select(text, image, some)
    assert (choice.chosen, choice.reason, choice.table) == (FALLBACK, why, [])
    assert why in choice.sentence()


@pytest.mark.parametrize("missing", [(), (0, 7, 33), (0, 1, 7, 33, 40)])
def test_ranks_are_those_of_the_fused_vectors(missing: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate's ranks, against vectors that are fused as a model fuses them, and ranked as n2kit eval ranks."""
    monkeypatch.setattr(candidates, "QUERIES", 4)
    text, image = related(missing)
    some = pairs()
    first, rest = some.at(np.arange(8)), some.at(np.arange(8, 30))
    known = [{int(a), int(b)} for a, b in zip(first.left, first.right, strict=True)]
    pool = np.arange(ITEMS)
    found = reciprocal_ranks(text, image, rest, first, known, pool)
    for number, candidate in enumerate(CANDIDATES):
        vectors = fitted(candidate, text, image, rest)(text, image)
        ranks = rank_targets(vectors, first.left, first.right, pool).pessimistic
        np.testing.assert_allclose(found[:, number], 1 / ranks, err_msg=str(candidate))


def test_a_target_among_several_is_ranked_without_the_others() -> None:
    text, image = related()
    some = pairs()
    asked = PairRows(np.array([0]), np.array([1]), np.ones(1))
    alone = reciprocal_ranks(text, image, some, asked, [{0, 1}], np.arange(ITEMS))
    text.values[2], image.values[2] = text.values[1], image.values[1]  # as near as the target
    beside = reciprocal_ranks(text, image, some, asked, [{0, 1}], np.arange(ITEMS))
    hidden = reciprocal_ranks(text, image, some, asked, [{0, 1, 2}], np.arange(ITEMS))
    assert (beside <= 1 / 2).all()
    assert (hidden > beside).any()
    assert (hidden[0] >= alone[0] - 0.5).all()


def test_noise_beside_a_good_half_is_not_taken_in() -> None:
    """Where the picture says nothing, the text alone wins, or a fusion that hardly weighs the picture."""
    text, _ = related()
    noise = half(IMAGE, 5)
    choice = select(text, noise, pairs(20), pairs())
    assert choice.chosen.kind.startswith("text") or choice.chosen.image_weight in (0.1, 0.2)
    best = choice.best("image")
    assert best is not None
    assert best.mrr < choice.table[0].mrr
    assert [scored.mrr for scored in choice.table] == sorted((s.mrr for s in choice.table), reverse=True)
    assert all(gain.low <= gain.value <= gain.high for gain in choice.gains)
    assert "text alone" in choice.sentence()
    assert f"the best of {len(CANDIDATES)} by cross-validated MRR" in choice.sentence()
    assert "over 60 queries in a pool of 60" in choice.sentence()


def test_pairs_without_weight_count_for_nothing() -> None:
    text, image = related()
    weights = np.r_[np.ones(20), np.zeros(10)]
    assert select(text, image, pairs(weights=weights)).table == select(text, image, pairs(20)).table
    got, want = fitted(FALLBACK, text, image, pairs(weights=weights)), fitted(FALLBACK, text, image, pairs(20))
    np.testing.assert_array_equal(got.text.matrix, want.text.matrix)


def test_an_item_with_one_half_has_that_one_whole() -> None:
    text, image = related((3,))
    for candidate in (Candidate("text", 0.3), Candidate("image", image_strength=0.3), FALLBACK):
        vectors = fitted(candidate, text, image, pairs())(text, image)
        np.testing.assert_allclose(np.linalg.norm(vectors[3, :TEXT]), 1, atol=1e-6)
        assert not vectors[3, TEXT:].any()


def test_a_million_pairs_take_no_more_memory_than_a_block() -> None:
    rng = np.random.default_rng(0)
    one = Half(rng.normal(size=(1000, 64)).astype(np.float32), np.ones(1000, bool))
    many = PairRows(rng.integers(0, 1000, 10**6), rng.integers(0, 1000, 10**6), np.ones(10**6))
    own = standard(one, np.arange(1000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pair_spectrum(one, own, many)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    )  # kB; all differences at once are 512 MB


def test_a_large_table_lies_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "IN_MEMORY", 100)
    made = halves.table(50, 8)
    assert isinstance(made, np.memmap)
    made[3] = 1
    assert made.sum() == 8
