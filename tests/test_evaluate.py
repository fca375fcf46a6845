"""Ranks and metrics against plain loops, ties, intervals, buckets, and two models compared."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from n2kit.data.items import Item, Items
from n2kit.embed.vectors_file import Vectors
from n2kit.errors import BadInput
from n2kit.evaluate import RankingReport, bootstrap, buckets, check_same_items, compare, evaluate, greedy_pairs, ranks
from n2kit.evaluate.metrics import names, per_query

Pair = tuple[str, str]
PROTOCOLS = ("notellm2", "standard")


def lattice(rows: int, width: int = 3, seed: int = 0) -> np.ndarray:
    """Small whole numbers: many scores tie, and all are exact."""
    return np.random.default_rng(seed).integers(-2, 3, (rows, width)).astype(np.float32)


def random_pairs(rows: int, count: int, seed: int = 0) -> list[Pair]:
    drawn = np.random.default_rng(seed).integers(0, rows, (count, 2))
    return [(str(a), str(b)) for a, b in drawn.tolist()]


def plain_ranks(
    ids: list[str], vectors: np.ndarray, report: RankingReport, pool: list[str], worst: bool
) -> dict[Pair, int]:
    """Each query's targets, best first, each behind the others that are better, and behind those as good if ties are lost."""
    at = {i: vectors[n].astype(float) for n, i in enumerate(ids)}
    out = {}
    for query in dict.fromkeys(a for a, _ in report.pairs):
        score = {i: float(at[query] @ at[i]) for i in pool if i != query}
        targets = sorted((b for a, b in report.pairs if a == query), key=lambda b: -score[b])
        others = [i for i in score if i not in targets]
        for place, target in enumerate(targets):
            own = score[target]
            above = sum(score[i] > own or (worst and score[i] == own) for i in others)
            out[query, target] = 1 + place + above
    return out


def by_pair(report: RankingReport, values: np.ndarray) -> dict[Pair, int]:
    return dict(zip(report.pairs, values.tolist(), strict=True))


def test_pairs_are_kept_one_to_one_in_order() -> None:
    assert greedy_pairs([("a", "b"), ("c", "b"), ("b", "d"), ("c", "e"), ("f", "f")]) == [("a", "b"), ("c", "e")]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("vectors", ["tied", "real"])
def test_ranks_equal_a_plain_loop(protocol: Any, vectors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "QUERIES", 3)
    monkeypatch.setattr(ranks, "POOL", 7)
    ids = [str(n) for n in range(40)]
    x = lattice(40) if vectors == "tied" else np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
    report = evaluate(ids, x, random_pairs(40, 60), ks=(1, 5), protocol=protocol)
    queries = {a for a, _ in report.pairs}
    pool = ids if protocol == "standard" else [i for i in ids if i not in queries]
    assert report.pool == len(pool)
    for worst, got in ((True, report.ranks), (False, report.optimistic)):
        want = plain_ranks(ids, x, report, pool, worst)
        have = by_pair(report, got)
        for query in queries:  # targets that tie with each other may trade places
            of = [p for p in report.pairs if p[0] == query]
            assert sorted(have[p] for p in of) == sorted(want[p] for p in of)
    if vectors == "real":
        assert (report.ranks == report.optimistic).all()
    elif protocol == "standard":
        assert (report.ranks > report.optimistic).any()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(6))
def test_row_order_and_blocks_change_nothing(protocol: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors that are there several times tie to the last bit, wherever in a block they stand."""
    rng = np.random.default_rng(seed)
    distinct = rng.normal(size=(30, 5 + 12 * seed)).astype(np.float32)
    x = distinct[rng.integers(0, 30, 90)]
    ids = [str(n) for n in range(90)]
    pairs = random_pairs(90, 50, seed)
    want = evaluate(ids, x, pairs, protocol=protocol)
    assert (want.ranks > want.optimistic).any()
    for queries, pool in ((1, 1), (2, 13), (50, 31), (1000, 1000)):
        monkeypatch.setattr(ranks, "QUERIES", queries)
        monkeypatch.setattr(ranks, "POOL", pool)
        order = rng.permutation(90)
        got = evaluate([ids[n] for n in order], x[order], pairs, protocol=protocol)
        assert np.array_equal(got.ranks, want.ranks)
        assert np.array_equal(got.optimistic, want.optimistic)
        assert got.figures(resamples=20) == want.figures(resamples=20)


def test_the_order_of_the_pairs_changes_no_figure() -> None:
    ids, pairs = [str(n) for n in range(40)], random_pairs(40, 60)
    want = evaluate(ids, lattice(40), pairs, protocol="standard").figures(resamples=50)
    got = evaluate(ids, lattice(40), pairs[::-1] + pairs, protocol="standard").figures(resamples=50)
    for name, figure in want.items():
        assert vars(got[name]) == pytest.approx(vars(figure), abs=1e-12)


def test_a_constant_scorer_gets_no_credit() -> None:
    ids = [str(n) for n in range(20)]
    pairs = [("0", "1"), ("0", "2"), ("3", "4")]
    for protocol, ranked in (("notellm2", [18, 18]), ("standard", [18, 19, 19])):
        report = evaluate(ids, np.ones((20, 4), np.float32), pairs, ks=(1, 10), protocol=protocol)  # type: ignore[arg-type]
        assert report.ranks.tolist() == ranked
        figures = report.figures()
        assert figures["recall@10"].value == 0
        assert figures["recall@10"].optimistic == 1
        assert figures["mrr"].value < 0.06
        assert figures["mrr"].optimistic == 1


def test_the_query_is_left_out_by_identity() -> None:
    """A copy of the query stays in the pool, and counts."""
    x = np.array([[1, 0], [0.8, 0.6], [1, 0], [0, 1]], np.float32)
    report = evaluate(list("qtcx"), x, [("q", "t")], protocol="standard")
    assert report.ranks.tolist() == [2]
    assert evaluate(list("qtx"), x[[0, 1, 3]], [("q", "t")], protocol="standard").ranks.tolist() == [1]


def test_a_pool_of_ones_own() -> None:
    ids = [str(n) for n in range(60)]
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    pairs = [(str(n), str(n + 30)) for n in range(10)]
    assert evaluate(ids, x, pairs, pool=["55"]).pool == 11  # targets always are in it
    assert evaluate(ids, x, pairs, pool=["55", "3"], protocol="standard").pool == 12
    assert evaluate(ids, x, pairs, ks=(50,)).recall == {50: 1.0}


def test_metrics_equal_plain_loops() -> None:
    rng = np.random.default_rng(0)
    owner = np.sort(np.r_[np.arange(12), rng.integers(0, 12, 20)])
    ranked = np.concatenate([np.sort(rng.choice(np.arange(1, 30), n, replace=False)) for n in np.bincount(owner)])
    values = per_query(ranked, owner, (1, 3, 10))
    for query in range(12):
        own = ranked[owner == query].tolist()
        assert values["mrr"][query] == 1 / min(own)
        assert values["mean_rank"][query] == pytest.approx(sum(own) / len(own))
        for k in (1, 3, 10):
            assert values[f"recall@{k}"][query] == pytest.approx(sum(r <= k for r in own) / len(own))
            gain = sum(1 / math.log2(1 + r) for r in own if r <= k)
            best = sum(1 / math.log2(1 + r) for r in range(1, min(len(own), k) + 1))
            assert values[f"ndcg@{k}"][query] == pytest.approx(gain / best)
    assert list(values) == names((1, 3, 10))


def test_recall_among_some_pairs() -> None:
    ids = [str(n) for n in range(40)]
    report = evaluate(ids, lattice(40), [(str(n), str(n + 20)) for n in range(20)], ks=(5,))
    assert report.at(5, [1, 4, 6]) == (report.ranks[[1, 4, 6]] <= 5).mean()
    assert math.isnan(report.at(5, []))


def test_what_cannot_be_evaluated_is_refused() -> None:
    vectors = np.eye(4, dtype=np.float32)
    with pytest.raises(BadInput, match="'9'"):
        evaluate(list("0123"), vectors, [("0", "9")])
    with pytest.raises(BadInput, match="no pairs"):
        evaluate(list("0123"), vectors, [])
    vectors[2] = np.nan
    with pytest.raises(BadInput, match="the vector of '2' is not finite"):
        evaluate(list("0123"), vectors, [("0", "1")])


def test_intervals_cover_the_truth() -> None:
    """About 95 of 100 samples of queries have the true share in their interval."""
    rng, inside = np.random.default_rng(0), 0
    for trial in range(200):
        values = (rng.random((120, 1)) < 0.3).astype(float)
        low, high = bootstrap.interval(values, 300, trial)
        inside += bool(low[0] <= 0.3 <= high[0])
    assert 178 <= inside <= 199


def test_the_bootstrap_is_a_resampling_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(50, 2))
    means = bootstrap.resampled(values, 4000, 1)
    assert means.mean(0) == pytest.approx(values.mean(0), abs=0.01)
    assert means.std(0) == pytest.approx(values.std(0) / math.sqrt(50), rel=0.05)
    monkeypatch.setattr(bootstrap, "CELLS", 1)
    assert np.allclose(bootstrap.resampled(values, 30, 1), means[:30])  # as many at a time as memory allows, or one
    assert not np.array_equal(bootstrap.resampled(values, 30, 2), means[:30])


def planted(noise: float, seed: int) -> np.ndarray:
    """300 targets that are their queries and some noise."""
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(300, 16))
    return np.concatenate([queries, queries + noise * rng.normal(size=(300, 16))]).astype(np.float32)


def test_compare_finds_a_real_difference_and_no_other() -> None:
    ids, pairs = [str(n) for n in range(600)], [(str(n), str(n + 300)) for n in range(300)]
    report = {
        n: evaluate(ids, planted(noise, seed), pairs, ks=(1,))
        for n, noise, seed in [("a", 2, 0), ("b", 1.5, 0), ("c", 2, 1)]
    }
    better = compare(report["a"], report["b"])["recall@1"]
    assert better.difference == pytest.approx(better.b - better.a)
    assert 0 < better.low < better.difference < better.high
    assert better.p < 0.01
    null = compare(report["a"], report["c"])["recall@1"]
    assert null.low < 0 < null.high
    assert null.p > 0.05
    same = compare(report["a"], report["a"])["mrr"]
    assert (same.difference, same.p) == (0, 1)
    with pytest.raises(ValueError, match="same queries"):
        compare(report["a"], evaluate(ids, planted(2, 0), pairs[1:], ks=(1,)))


def test_a_null_difference_is_seldom_significant() -> None:
    rng = np.random.default_rng(0)
    ps = [bootstrap.paired(rng.normal(size=(80, 1)), rng.normal(size=(80, 1)), 200, n).p[0] for n in range(200)]
    assert sum(p < 0.05 for p in ps) <= 22


def test_other_items_are_refused_with_both_sides() -> None:
    a, b = (Vectors(ids, np.eye(len(ids)), "") for ids in (["x", "y", "z"], ["x", "w"]))
    with pytest.raises(BadInput) as refusal:
        check_same_items(a, b, ("A", "B"))
    assert refusal.value.message == (
        "A has 3 items, 2 of them alone (the first is 'y'); B has 2 items, 1 of them alone (the first is 'w')"
    )
    check_same_items(a, Vectors(["z", "y", "x"], np.eye(3), ""), ("A", "B"))


ITEMS = Items(
    [
        Item("a", image="a.png", title="x", category="hat"),
        Item("b", title="x" * 9, category="hat"),
        Item("c", image="c.png", category="shoe"),
        Item("d", image="d.png", title="x" * 4, topics=("ab", "c"), content="de", category="hat"),
        *(Item(f"t{n}", image="t.png", title="y" * (n + 1)) for n in range(4)),
    ]
)
PAIRS = [("a", "t0"), ("b", "t1"), ("c", "t2"), ("d", "t3")]
TRAIN = [("a", "t0"), ("a", "t1"), ("a", "b"), ("t1", "t3"), ("t1", "t0"), ("t1", "b"), ("t3", "b"), ("t3", "t0")]


def test_buckets_by_hand() -> None:
    found = {b.name: (b.rule, b.rows.tolist()) for b in buckets(PAIRS, ITEMS, TRAIN)}
    assert found == {
        "query text short": ("at most 0 characters: the lowest 25 % of these items", [2]),
        "query text long": ("at least 9 characters: the highest 50 % of these items", [1, 3]),
        "query without image": ("no image in the items file", [1]),
        "query without text": ("no title, topics or content", [2]),
        "target text short": ("at most 1 characters: the lowest 25 % of these items", [0]),
        "target text long": ("at least 4 characters: the highest 25 % of these items", [3]),
        "query cold": ("in no training pair", [2, 3]),
        "query warm": ("in a training pair", [0, 1]),
        "target cold": ("in no training pair", [2]),
        "target warm": ("in a training pair", [0, 1, 3]),
        "target rare": ("at most 3 training pairs (of warm items): the lowest 67 % of these items", [0, 3]),
        "target popular": ("at least 4 training pairs (of warm items): the highest 33 % of these items", [1]),
        "query category hat": ("the query's category is 'hat'", [0, 1, 3]),
        "query category shoe": ("the query's category is 'shoe'", [2]),
    }
    assert not [b for b in buckets(PAIRS, ITEMS) if "cold" in b.name]
    with pytest.raises(BadInput, match="'z'"):
        buckets([("a", "z")], ITEMS)


def test_figures_of_a_bucket_are_those_of_its_pairs() -> None:
    ids = [str(n) for n in range(40)]
    report = evaluate(ids, lattice(40), random_pairs(40, 60), ks=(5,), protocol="standard")
    rows = np.flatnonzero(report.owner < 4)  # all targets of each
    want = [[r for p, r in zip(rows, report.ranks[rows], strict=True) if report.pairs[p][0] == q]
            for q in {report.pairs[p][0] for p in rows}]  # fmt: skip
    assert report.figures(rows)["mean_rank"].value == pytest.approx(np.mean([np.mean(own) for own in want]))


def test_a_bucket_ranks_without_the_targets_that_it_leaves_out() -> None:
    """They are right answers: a ranking is no worse for having them on top. As if each query's had been out of the pool."""
    ids = [str(n) for n in range(30)]
    vectors = lattice(30)
    report = evaluate(ids, vectors, random_pairs(12, 90), ks=(3,), protocol="standard")
    rows = np.arange(0, len(report.pairs), 3)
    inside = [report.pairs[n] for n in rows]
    alone = []
    for query in sorted({a for a, _ in inside}):
        gone = {b for a, b in report.pairs if a == query} - {b for a, b in inside if a == query}
        own = [pair for pair in inside if pair[0] == query]
        alone.append(evaluate(ids, vectors, own, ks=(3,), pool=set(ids) - gone, protocol="standard").figures())
    found = report.figures(rows)
    assert any(len([p for p in report.pairs if p[0] == a]) > len([p for p in inside if p[0] == a]) for a, _ in inside)
    for name, figure in found.items():
        assert figure.value == pytest.approx(np.mean([one[name].value for one in alone])), name
        assert figure.optimistic == pytest.approx(np.mean([one[name].optimistic for one in alone])), name


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.parquet and b.parquet, vectors of the same 12 items; pairs.csv, items.jsonl."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 0), ("b", 1)):
        rows = np.random.default_rng(seed).normal(size=(12, 4))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        table = pa.table({"id": [f"i{n}" for n in range(12)], "vector": rows.astype(np.float32).tolist()})
        pq.write_table(table, f"{name}.parquet")
    Path("pairs.csv").write_text("query,target\n" + "".join(f"i{n},i{n + 6}\n" for n in range(6)) + "i0,i7\n")
    Path("items.jsonl").write_text("".join(json.dumps({"id": f"i{n}", "title": "x" * n}) + "\n" for n in range(12)))
    return tmp_path


EVAL = ("eval", "--vectors", "a.parquet", "--pairs", "pairs.csv")


@pytest.mark.usefixtures("files")
def test_eval_in_json_is_complete(cli: Any) -> None:
    done = cli(
        *EVAL,
        "--protocol",
        "standard",
        "--items",
        "items.jsonl",
        "--k",
        "1,10",
        "--json",
        "--per-query",
        "q.parquet",
        "--mteb",
        "m.json",
    )
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["queries"], report["pairs"], report["pool"]) == (6, 7, 12)
    assert report["recall"]["10"] == report["metrics"]["recall@10"]["value"]
    assert set(report["metrics"]["mrr"]) == {"value", "low", "high", "optimistic"}
    assert {b["name"] for b in report["buckets"]} >= {"query text short", "target text long", "query without image"}
    assert report["bootstrap"] == {"resamples": 1000, "seed": 0, "level": 0.95, "over": "queries"}
    rows = pq.read_table("q.parquet").to_pylist()
    assert len(rows) == 7
    assert set(rows[0]) == {"query", "target", "rank", "rank_optimistic"}
    scores = json.loads(Path("m.json").read_text())["scores"]["test"][0]
    assert scores["main_score"] == scores["ndcg_at_10"] == report["metrics"]["ndcg@10"]["value"]
    assert {"hf_subset", "languages", "recall_at_1"} <= set(scores)


@pytest.mark.usefixtures("files")
def test_eval_replaces_nothing_unasked(cli: Any) -> None:
    before = Path("a.parquet").read_bytes()
    for arguments, complaint in (
        (("--per-query", "a.parquet", "--force"), "a.parquet is read here"),
        (("--per-query", "b.parquet"), "b.parquet exists"),
        (("--mteb", "."), ". is a folder"),
    ):
        refused = cli(*EVAL, *arguments)
        assert (refused.code, complaint in refused.err) == (2, True), refused.err
    assert Path("a.parquet").read_bytes() == before
    assert cli(*EVAL, "--per-query", "new/q.parquet").code == 0
    assert cli(*EVAL, "--per-query", "new/q.parquet", "--force").code == 0


@pytest.mark.usefixtures("files")
def test_eval_for_people(cli: Any) -> None:
    done = cli(*EVAL, "--items", "items.jsonl", "--k", "1")
    assert done.out.startswith("| metric | value | 95 % |\n")
    assert "| bucket | which | queries | recall@1 |" in done.out
    assert "6 queries, 7 pairs, pool of 12, protocol standard (some pairs share items); ties" in done.err
    assert "every model" not in done.err
    papers = cli(*EVAL, "--protocol", "notellm2").err
    assert "6 queries, 6 pairs, pool of 6, protocol notellm2; ties" in papers
    assert "at 10, 100 every model finds everything: the pool is no larger" in papers
    assert json.loads(cli(*EVAL, "--bootstrap", "0", "--json").out)["metrics"]["mrr"]["low"] is None


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("protocol", "why"), [("notellm2", "takes an item once"), ("standard", "there twice")])
def test_pairs_that_a_protocol_leaves_out_are_counted(cli: Any, protocol: str, why: str) -> None:
    Path("more.csv").write_text("query,target\ni0,i6\ni0,i6\n")
    command = ("eval", "--vectors", "a.parquet", "--pairs", "more.csv", "--protocol", protocol)
    done = cli(*command)
    assert "1 more pair left out" in done.err
    assert why in done.err
    assert json.loads(cli(*command, "--json").out)["pairs_left_out"] == 1
    Path("more.csv").write_text("query,target\ni0,i6\n")
    assert "left out" not in cli(*command).err


@pytest.mark.usefixtures("files")
def test_graded_training_pairs_are_read_as_training_reads_them(cli: Any) -> None:
    Path("train.csv").write_text("query,target,grade\ni0,i6,1\ni1,i7,0\n")
    done = cli(*EVAL, "--items", "items.jsonl", "--train-pairs", "train.csv", "--json")
    assert done.code == 0, done.err
    assert [b["queries"] for b in json.loads(done.out)["buckets"] if b["name"] == "query warm"] == [2]


@pytest.mark.usefixtures("files")
def test_items_that_lack_one_of_the_pairs_are_named(cli: Any) -> None:
    Path("few.jsonl").write_text("\n".join(Path("items.jsonl").read_text().splitlines()[:2]) + "\n")
    done = cli(*EVAL, "--items", "few.jsonl")
    assert done.code == 2
    assert "error: few.jsonl: no item for" in done.err


@pytest.mark.usefixtures("files")
def test_compare_two_files(cli: Any) -> None:
    command = ("eval", "--compare", "a.parquet", "b.parquet", "--pairs", "pairs.csv")
    shown = json.loads(cli(*command, "--json").out)
    assert set(shown["metrics"]["recall@1"]) == {"a", "b", "difference", "low", "high", "p"}
    assert cli(*command).out.startswith("| metric | A | B | B − A | 95 % | p |\n")
    pq.write_table(pq.read_table("b.parquet").slice(0, 11), "c.parquet")
    refused = cli("eval", "--compare", "a.parquet", "c.parquet", "--pairs", "pairs.csv")
    assert refused.code == 2
    assert "a.parquet has 12 items, 1 of them alone (the first is 'i11'); c.parquet has 11 items" in refused.err


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("eval", "--pairs", "pairs.csv"), "either --vectors or --compare"),
        ((*EVAL, "--compare", "a.parquet", "b.parquet"), "either --vectors or --compare"),
        ((*EVAL, "--k", "0"), "positive whole numbers"),
        ((*EVAL, "--k", "1,99999999999999999999"), "at most 1,000,000,000"),
        ((*EVAL, "--bootstrap", "1000000000000"), "'--bootstrap'"),
        ((*EVAL, "--per-query", "p.out", "--mteb", "p.out"), "give two files"),
        ((*EVAL, "--train-pairs", "pairs.csv"), "give --items too"),
        ((*EVAL, "--k", "1", "--mteb", "m.json"), "--k has no 10"),
        (("eval", "--compare", "a.parquet", "b.parquet", "--pairs", "pairs.csv", "--bootstrap", "0"), "needs a bootstrap"),
        (("eval", "--compare", "a.parquet", "b.parquet", "--pairs", "pairs.csv", "--mteb", "x"), "about one model"),
    ],
)  # fmt: skip
def test_options_that_say_nothing_together(cli: Any, arguments: tuple[str, ...], complaint: str) -> None:
    result = cli(*arguments)
    assert result.code == 2
    assert complaint in result.err
