"""Baselines: one vector an item, heads that learn from training pairs alone, and features that are computed once."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import sqrtm

import n2kit
from n2kit.bench.baselines import frozen as frozen_module
from n2kit.bench.baselines import tfidf as tfidf_module
from n2kit.bench.baselines.baselines import BaselineOut, run_baseline
from n2kit.bench.baselines.closed_form import CLOSED_FORM
from n2kit.bench.baselines.frozen import Features, FrozenFeatures
from n2kit.bench.baselines.heads import standardised, train_head
from n2kit.bench.baselines.tfidf import tfidf
from n2kit.bench.matrix.baseline_names import BASELINES, NAMES, HeadSettings
from n2kit.bench.matrix.spec import read_matrix
from n2kit.builder import build, loss_of
from n2kit.contract.interfaces import Loss
from n2kit.data.images import UnreadableImage
from n2kit.data.items import Item, Items, read_items
from n2kit.data.pairs import Pairs, read_pairs
from n2kit.errors import BadInput, Mismatch, Unavailable
from n2kit.evaluate import evaluate
from n2kit.inputs.feature_cache import FeatureCache
from n2kit.inputs.state_cache import StateCache
from n2kit.plugins.catalogue import default_catalogue
from n2kit.whitening import fit

QUICK = {"head.width": 8, "baseline.max_steps": 6, "baseline.eval_steps": 2, "baseline.lrs": [1e-2]}
TINY = {"llm": "qwen:tiny", "vision": "siglip:tiny", "mllm": "smolvlm:tiny"}


@pytest.fixture(scope="module")
def shared() -> FrozenFeatures:
    """One set of features for all tests of this file, as for all baselines of a matrix."""
    return FrozenFeatures()


def call(workspace: Path, name: str, **changed: Any) -> BaselineOut:
    items = changed.pop("items", None) or read_items(workspace / "items.jsonl")
    data = {
        "items": items,
        "pairs": read_pairs(workspace / "train.csv", items),
        "val_pairs": read_pairs(workspace / "val.csv", items),
        "images": workspace / "images",
        "settings": QUICK,
    }
    return run_baseline(name, **data | TINY | changed)


def info_nce(name: str = "notellm2") -> Loss:
    return loss_of(default_catalogue().resolve("loss", name))


@pytest.mark.parametrize("name", NAMES)
def test_every_baseline_gives_each_item_a_unit_vector_and_says_what_it_costs(
    name: str, workspace: Path, shared: FrozenFeatures
) -> None:
    out = call(workspace, name, frozen=shared)
    assert out.ids == [item.id for item in read_items(workspace / "items.jsonl")]
    assert out.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(out.vectors, axis=1), 1, atol=1e-5)
    assert set(out.costs) == {"parameters", "trained_parameters", "train_s", "train_cpu_s", "steps", "embed_ms_item"}
    assert out.costs["embed_ms_item"] > 0
    assert bool(out.costs["trained_parameters"]) == bool(out.costs["steps"]) == BASELINES[name].trained
    assert (out.costs["parameters"] > 0) == (name != "tfidf")


def test_a_multimodal_model_is_asked_as_it_is(workspace: Path, shared: FrozenFeatures) -> None:
    """By its prompt, without a head: what an untrained build of it gives, whatever the seed."""
    out = call(workspace, "mllm", frozen=shared, seed=3)
    model = n2kit.build(mllm="smolvlm:tiny", variant="basic", settings={"head.width": None})
    want = model.encode(list(read_items(workspace / "items.jsonl")), images=workspace / "images")
    np.testing.assert_allclose(out.vectors, want, atol=1e-5)


def test_the_seed_decides_a_head_and_nothing_of_the_features(workspace: Path, shared: FrozenFeatures) -> None:
    first, again, other = (call(workspace, "concat", frozen=shared, seed=seed).vectors for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert np.array_equal(*(call(workspace, "text", frozen=FrozenFeatures(), seed=seed).vectors for seed in (0, 1)))


# ---------------------------------------------------------------------------------------------------------------------- heads


TRAIN, VAL = slice(0, 200), slice(200, 220)  # of the toy's pairs; the rest is for testing


def toy(pairs: int = 260, seed: int = 0) -> tuple[Items, list[Features], list[tuple[str, str]]]:
    """Two items a topic; each modality shows a part of the topic in a few features, and noise in many more."""
    draw = np.random.default_rng(seed)
    topic = np.repeat(draw.normal(size=(pairs, 6)), 2, axis=0)
    modalities = []
    for part in (topic[:, :3], topic[:, 3:]):
        values = np.concatenate([part + 0.1 * draw.normal(size=part.shape), draw.normal(size=(2 * pairs, 10))], axis=1)
        scale = draw.uniform(0.1, 20, size=values.shape[1])  # as of a backbone, whose features differ in scale
        modalities.append(Features((values * scale).astype(np.float32), np.ones(2 * pairs, bool), 1.0, 0))
    items = Items([Item(str(n)) for n in range(2 * pairs)])
    return items, modalities, [(str(2 * n), str(2 * n + 1)) for n in range(pairs)]


def learned(modalities: list[Features], items: Items, pairs: list[tuple[str, str]], **options: Any) -> np.ndarray:
    settings = HeadSettings(lrs=[1e-2], max_steps=120, batch_size=64)
    out = train_head(modalities, items, Pairs(pairs[TRAIN]), Pairs(pairs[VAL]), info_nce, settings, width=16, **options)
    return out.vectors


def recall(items: Items, vectors: np.ndarray, pairs: list[tuple[str, str]]) -> float:
    return evaluate([i.id for i in items], vectors, pairs[VAL.stop :], ks=(1,)).recall[1]


def test_a_head_finds_in_both_halves_what_pairs_have_in_common() -> None:
    items, modalities, pairs = toy()
    plain = np.concatenate([standardised(modality, np.arange(2 * TRAIN.stop)) for modality in modalities], axis=1)
    untrained = recall(items, plain / np.linalg.norm(plain, axis=1, keepdims=True), pairs)
    both = {
        normalize_each: recall(items, learned(modalities, items, pairs, normalize_each=normalize_each), pairs)
        for normalize_each in (False, True)
    }
    single = max(recall(items, learned([modality], items, pairs), pairs) for modality in modalities)
    assert min(both.values()) > untrained + 0.3
    assert min(both.values()) > single


def test_a_head_sees_no_item_outside_the_training_and_validation_pairs() -> None:
    items, modalities, pairs = toy()
    hidden = [Features(modality.values.copy(), modality.present, 1.0, 0) for modality in modalities]
    for modality in hidden:
        modality.values[2 * VAL.stop :] = 1000.0  # items of the test pairs
    seen, blind = learned(modalities, items, pairs), learned(hidden, items, pairs)
    assert np.array_equal(seen[: 2 * VAL.stop], blind[: 2 * VAL.stop])


def test_the_last_step_is_always_looked_at() -> None:
    items, modalities, pairs = toy()
    settings = HeadSettings(lrs=[1e-9, 1e-2], max_steps=12, eval_steps=20, batch_size=32)
    out = train_head(modalities, items, Pairs(pairs[TRAIN]), Pairs(pairs[VAL]), info_nce, settings, width=16)
    assert (out.lr, out.steps) == (1e-2, 12)
    assert out.mrr is not None


def test_validation_pairs_choose_the_learning_rate_and_the_step() -> None:
    items, modalities, pairs = toy()
    settings = HeadSettings(lrs=[1e-9, 1e-2], max_steps=60, eval_steps=5, batch_size=32)
    given = (modalities, items, Pairs(pairs[TRAIN]))
    chosen = train_head(*given, Pairs(pairs[VAL]), info_nce, settings, width=16)
    assert chosen.lr == 1e-2
    assert chosen.steps % 5 == 0
    assert chosen.mrr is not None
    unchosen = train_head(*given, None, info_nce, settings, width=16)
    assert (unchosen.lr, unchosen.steps, unchosen.mrr) == (1e-9, 60, None)


def test_standardising_goes_by_the_training_items_and_leaves_absent_ones_at_zero() -> None:
    values = np.array([[1, 5], [3, 5], [100, 5], [7, 7]], np.float32)
    out = standardised(Features(values, np.array([True, True, True, False]), 1.0, 0), np.array([0, 1, 3]))
    assert out.tolist() == [[-1, 0], [1, 0], [98, 0], [0, 0]]  # the second feature is the same in all training items


def test_a_head_is_trained_by_any_loss_that_needs_vectors_alone() -> None:
    items, modalities, pairs = toy(20)
    settings = HeadSettings(lrs=[1e-2], max_steps=3, batch_size=8)
    for name in ("infonce", "sigmoid", "triplet", "cosent"):
        train_head(modalities, items, Pairs(pairs), None, lambda name=name: info_nce(name), settings, width=4)
    with pytest.raises(Mismatch, match="wants generation"):
        train_head(modalities, items, Pairs(pairs), None, lambda: info_nce("notellm"), settings, width=4)


# ----------------------------------------------------------------------------------------------------------- without a gradient


class Given(FrozenFeatures):
    """Features that a test makes up."""

    def __init__(self, text: Features, image: Features) -> None:
        super().__init__()
        self.given = text, image

    def text(self, *_: Any, **__: Any) -> Features:
        return self.given[0]

    def image(self, *_: Any, **__: Any) -> Features:
        return self.given[1]


def closed(
    name: str, modalities: list[Features], items: Items, pairs: Pairs, val: Pairs | None = None, **more: Any
) -> BaselineOut:
    text, image = modalities
    data = {"items": items, "pairs": pairs, "val_pairs": val, "frozen": Given(text, image)}
    return run_baseline(name, **data | TINY | more)


def by_hand(values: np.ndarray, own: list[int]) -> np.ndarray:
    """Standardise by the rows `own`, in plain numpy."""
    return (values - values[own].mean(0)) / values[own].std(0)


def unit_rows(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def whiten(x: np.ndarray, covariance: np.ndarray, strength: float) -> np.ndarray:
    """Compute unit x (S + λ tr(S)/d I)^(−1/2), by the matrix' own square root."""
    d = len(covariance)
    root = sqrtm(covariance + strength * np.trace(covariance) / d * np.eye(d)).real
    return unit_rows(x @ np.linalg.inv(root))


TOY_PAIRS = (Pairs(toy(60)[2][:40]), Pairs(toy(60)[2][40:48]))  # training and validation; the other 12 are for testing
OWN = list(range(80))  # rows of the training items


def doubles(modality: Features) -> np.ndarray:
    return modality.values.astype(np.float64)


def test_standardised_features_are_raw_ones_scaled_by_the_training_items() -> None:
    items, modalities, _ = toy(60)
    n, v = (by_hand(doubles(modality), OWN) for modality in modalities)
    expected = {
        "text-std": unit_rows(n),
        "vision-std": unit_rows(v),
        "concat-std": unit_rows(np.concatenate([n / np.sqrt(n.shape[1]), v / np.sqrt(v.shape[1])], 1)),
    }
    for name, vectors in expected.items():
        out = closed(name, modalities, items, *TOY_PAIRS)
        np.testing.assert_allclose(out.vectors, vectors, atol=1e-5)
        assert out.notes == []


def test_whitening_follows_the_formula_with_the_numbers_that_were_chosen() -> None:
    items, modalities, pairs = toy(60)
    out = closed("whitened", modalities, items, *TOY_PAIRS)
    (note,) = out.notes
    found = re.match(r"chosen: whitened, λ text (\S+), λ image (\S+), w (\S+), the best of", note)
    assert found is not None, note
    *strengths, w = map(float, found.groups())
    halves = []
    for modality, strength in zip(modalities, strengths, strict=True):
        x = by_hand(doubles(modality), OWN)
        differences = [
            x[int(a)] - x[int(b)] for a, b in pairs[:40]
        ]  # training pairs alone: validation pairs only choose
        halves.append(whiten(x, sum(np.outer(d, d) for d in differences) / 80, strength))
    expected = np.concatenate([np.sqrt(1 - w) * halves[0], np.sqrt(w) * halves[1]], 1)
    np.testing.assert_allclose(out.vectors, expected, atol=1e-4)
    assert out.costs["train_s"] > 0
    assert out.costs["trained_parameters"] == 0


def test_whitening_without_pairs_goes_by_all_items_and_says_that_nothing_was_chosen() -> None:
    items, modalities, pairs = toy(60)
    out = closed("whitened-no-pairs", modalities, items, *TOY_PAIRS)
    assert out.notes == ["nothing was chosen (no pairs): whitened, λ text 0.3, λ image 0.3, w 0.5"]
    halves = [by_hand(doubles(modality), list(range(120))) for modality in modalities]
    halves = [whiten(x, np.cov(x.T, bias=True), 0.3) for x in halves]
    np.testing.assert_allclose(out.vectors, np.concatenate(halves, 1) / np.sqrt(2), atol=1e-4)
    other = closed("whitened-no-pairs", modalities, items, Pairs(pairs[5:9]), None)
    assert np.array_equal(out.vectors, other.vectors)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_who_belongs_to_whom_among_test_items_changes_no_vector(name: str) -> None:
    """The features of the test items change places: the catalogue stays the same set, and their pairs are torn apart."""
    items, modalities, _ = toy(60)
    order = np.concatenate([np.arange(96), np.random.default_rng(1).permutation(np.arange(96, 120))])
    torn = [Features(modality.values[order], modality.present, 1.0, 0) for modality in modalities]
    assert "test_pairs" not in inspect.signature(run_baseline).parameters
    one, other = (closed(name, some, items, *TOY_PAIRS) for some in (modalities, torn))
    assert one.notes == other.notes
    np.testing.assert_allclose(one.vectors[order], other.vectors, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CLOSED_FORM if name != "whitened-no-pairs"])
def test_what_is_fitted_by_pairs_is_moved_by_no_other_item(name: str) -> None:
    items, modalities, _ = toy(60)
    loud = [Features(modality.values.copy(), modality.present, 1.0, 0) for modality in modalities]
    for modality in loud:
        modality.values[96:] *= 50.0  # items of the test pairs
    one, other = (closed(name, some, items, *TOY_PAIRS) for some in (modalities, loud))
    chosen = [[note.partition(", the best of")[0] for note in some.notes] for some in (one, other)]
    assert chosen[0] == chosen[1]
    np.testing.assert_allclose(one.vectors[:96], other.vectors[:96], atol=1e-6)


@pytest.mark.parametrize("name", ["concat-std", "whitened"])
def test_a_pair_counts_by_its_grade(name: str) -> None:
    items, modalities, pairs = toy(60)
    unrelated = ("0", "119")
    plain = closed(name, modalities, items, *TOY_PAIRS)
    zero = closed(name, modalities, items, Pairs([*pairs[:40], unrelated], grades={unrelated: 0.0}), TOY_PAIRS[1])
    one = closed(name, modalities, items, Pairs([*pairs[:40], unrelated]), TOY_PAIRS[1])
    assert np.array_equal(plain.vectors, zero.vectors)
    assert not np.allclose(plain.vectors, one.vectors, atol=1e-3)


def test_an_item_without_a_half_has_zeros_there_and_one_that_was_skipped_is_in_no_pair() -> None:
    items, modalities, pairs = toy(60)
    present = np.ones(120, bool)
    present[[3, 110]] = False
    holes = Features(np.where(present[:, None], modalities[1].values, 0), present, 1.0, 0)
    kept = closed("whitened", [modalities[0], holes], items, *TOY_PAIRS).vectors
    width = modalities[0].values.shape[1]
    assert not kept[110, width:].any()
    np.testing.assert_allclose(np.linalg.norm(kept[110, :width]), 1, atol=1e-5)
    broken = replace(holes, unreadable={"3": "no picture", "110": "no picture"})
    skipped = closed("whitened", [modalities[0], broken], items, *TOY_PAIRS, on_bad_image="skip")
    assert not {"3", "110"} & set(skipped.ids)
    without = Pairs([pair for pair in pairs[:40] if "3" not in pair])
    rest = [n for n in range(120) if n not in (3, 110)]
    fewer = [Features(modality.values[rest], present[rest], 1.0, 0) for modality in (modalities[0], holes)]
    alone = closed("whitened", fewer, Items([items.items[n] for n in rest]), without, TOY_PAIRS[1])
    assert skipped.notes == alone.notes
    np.testing.assert_allclose(skipped.vectors, alone.vectors, atol=1e-6)


def test_whitened_is_what_fit_gives(workspace: Path, shared: FrozenFeatures) -> None:
    items = read_items(workspace / "items.jsonl")
    pairs, val = (read_pairs(workspace / name, items) for name in ("train.csv", "val.csv"))
    fitted = fit(build("qwen:tiny", "siglip:tiny"), items, pairs, val_pairs=val, images=workspace / "images")
    out = call(workspace, "whitened", frozen=shared)
    assert out.notes[-1] == fitted.selection.sentence()
    vectors = fitted.model.encode(items, images=workspace / "images")
    np.testing.assert_allclose(out.vectors, vectors, atol=1e-4)


# ------------------------------------------------------------------------------------------------------------------- features


def test_what_an_item_lacks_is_a_half_of_zeros(workspace: Path) -> None:
    items = Items(
        [
            *read_items(workspace / "items.jsonl"),
            Item("text", title="thing 3"),
            Item("bare"),
            Item("picture", "noto_1.png"),
        ]
    )
    out = {name: call(workspace, name, items=items) for name in ("text", "vision", "concat", "tfidf")}
    empty = {name: [i for i, v in zip(o.ids, o.vectors, strict=True) if not v.any()] for name, o in out.items()}
    assert empty == {
        "text": ["bare", "picture"],
        "vision": ["text", "bare"],
        "concat": ["bare"],
        "tfidf": ["bare", "picture"],
    }
    assert "nothing that this baseline reads in 2 items" in out["vision"].notes[0]


def test_an_unreadable_picture_is_what_the_policy_says(workspace: Path, tmp_path: Path) -> None:
    images = shutil.copytree(workspace / "images", tmp_path / "images")
    (images / "noto_1.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImage, match="noto:1"):
        call(workspace, "vision", images=images)
    for _ in range(2):  # from the encoder, and from the disk
        left_out = call(workspace, "concat", images=images, on_bad_image="skip")
        assert list(left_out.skipped) == ["noto:1"]
        assert "noto:1" not in left_out.ids
        assert len(left_out.vectors) == len(left_out.ids) == 23
    kept = call(workspace, "vision", images=images, on_bad_image="text-only")
    assert not kept.vectors[kept.ids.index("noto:1")].any()
    with pytest.raises(UnreadableImage, match="noto:1"):
        call(workspace, "vision", images=images)


def test_features_are_computed_once_and_again_when_their_source_changes(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = shutil.copytree(workspace / "images", tmp_path / "images")
    computed: list[str] = []
    for cache, method in ((StateCache, "_compute"), (FeatureCache, "_compute")):
        own = getattr(cache, method)

        def counted(self: Any, rows: Any, *rest: Any, own: Any = own, name: str = cache.__name__) -> Any:
            computed.extend([name] * len(rows))
            return own(self, rows, *rest)

        monkeypatch.setattr(cache, method, counted)
    monkeypatch.setattr(frozen_module, "TIMED_ITEMS", 0)  # whose cost is measured anew each time
    first = call(workspace, "concat", images=images)
    once = Counter(computed)
    assert once == {"StateCache": 12, "FeatureCache": 24}  # two items of a concept have the same text
    assert np.array_equal(first.vectors, call(workspace, "concat", images=images).vectors)  # as another process would
    assert Counter(computed) == once
    shutil.copy(images / "noto_2.png", images / "noto_1.png")
    changed = call(workspace, "vision", images=images)
    assert np.array_equal(changed.vectors[2], changed.vectors[4])
    call(workspace, "text", settings={"prompt.template": "en"})
    call(workspace, "text", llm="llama:tiny")
    assert Counter(computed)["StateCache"] == 3 * 12


# --------------------------------------------------------------------------------------------------------------------- tf-idf


def test_tfidf_matches_words_characters_and_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a red shoe", "red shoes", "garden lamp", "红色的鞋子", "鞋子", "花园里的灯", "a red shoe", ""]
    vectors = tfidf(Items([Item(str(n), title=text) for n, text in enumerate(texts)]))
    scores = vectors @ vectors.T
    assert scores[0, 1] > 4 * scores[0, 2]
    assert scores[3, 4] > scores[3, 5] > scores[3, 2]
    assert np.array_equal(vectors[0], vectors[6])
    assert not vectors[7].any()
    monkeypatch.setattr(tfidf_module, "LARGEST", 100)
    with pytest.raises(BadInput, match="columns"):
        tfidf(Items([Item(str(n), title=text) for n, text in enumerate(texts)]))


def test_tfidf_reads_title_topics_and_content_alike() -> None:
    items = Items(
        [Item("a", title="oak"), Item("b", topics=("oak",)), Item("c", content="oak"), Item("d", content="#oak#")]
    )
    assert np.allclose(tfidf(items), tfidf(items)[:1])


def test_without_scikit_learn_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(Unavailable) as refused:
        tfidf(Items([Item("a", title="x")]))
    assert refused.value.hint == 'pip install "n2kit[bench]"'


# ------------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("conact", {}, "unknown baseline 'conact'"),
        ("concat", {"vision": None}, "baseline concat needs a backbone: vision"),
        ("text", {"settings": {"baseline.stepz": 3}}, "baseline.stepz"),
        ("vision", {"vision": "qwen:tiny"}, "'qwen' is a llm"),
        ("vision", {"images": None}, "no images folder is given"),
        ("text-linear", {"pairs": Pairs([("noto:1", "twemoji:1")])}, "1 pair: a step needs at least 2"),
    ],
)
def test_what_cannot_be_is_one_line(name: str, changed: dict[str, Any], message: str, workspace: Path) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        call(workspace, name, **changed)
    assert refused.value.hint


def test_the_page_on_baselines_runs(at_workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "baselines.md").read_text("utf8")
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    assert "(24, 256)" in capsys.readouterr().out
    assert all(f"`{name}`" in page for name in NAMES)
    assert all(f"| `baseline.{name}` |" in page for name in HeadSettings.model_fields)


def test_the_example_matrix_is_one() -> None:
    matrix = read_matrix(Path(__file__).parents[1] / "examples" / "bench" / "matrix.yaml", {})
    assert matrix.settings["train.max_steps"] == 10
