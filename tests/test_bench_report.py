"""From cells to tables and pages: averages over seeds, who can be told apart, and files that are safe to open."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

import bench_rows as rows
from n2kit.bench.report import aggregate, compare, read_results, sections, summary, table, warning, write
from n2kit.bench.report.aggregate import Leaderboard, holm
from n2kit.bench.report.labels import component
from n2kit.bench.report.tables import tex_escaped
from n2kit.errors import BadInput
from n2kit.evaluate import evaluate
from n2kit.evaluate.export import write_ranks

HIT, MISS = 1, 500
HOSTILE = '<script>alert("x")</script> & | $\\end{tabular}$ `_%#~^'


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 LLMs × 2 vision encoders × 7 variants × 2 seeds and more, on 60 concepts."""
    folder = tmp_path_factory.mktemp("matrix")
    rows.fill(folder, rows.World([(f"a{n}", f"b{n}") for n in range(60)]), seeds=2)
    return folder


def board_of(folder: Path, metric: str | None = None, **more: Any) -> Leaderboard:
    return aggregate(read_results(folder), metric, **more)


def hits(count: int, of: int = 200) -> list[int]:
    return [HIT] * count + [MISS] * (of - count)


def test_figures_are_means_over_seeds_and_queries(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "x", 0, [1, 2, 20, 200])
    rows.ranked(tmp_path, "x", 1, [1, 11, 5, 1])
    arm = board_of(tmp_path).arms[0]
    recall, mrr = arm.figures["recall@10"], arm.figures["mrr"]
    assert recall.value == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 4)
    assert recall.seeds == pytest.approx((2 / 4, 3 / 4))
    assert recall.deviation == pytest.approx(0.25 / 2**0.5)
    assert mrr.value == pytest.approx((1 + (1 / 2 + 1 / 11) / 2 + (1 / 20 + 1 / 5) / 2 + (1 / 200 + 1) / 2) / 4)
    assert arm.figures["mean_rank"].value == pytest.approx((1 + 6.5 + 12.5 + 100.5) / 4)
    assert recall.low < recall.value < recall.high


def test_seeds_are_averaged_before_queries_are_drawn(tmp_path: Path) -> None:
    """Whatever queries are drawn, each is found by exactly one of the two seeds: the mean cannot move."""
    rows.ranked(tmp_path, "x", 0, [HIT, MISS] * 10)
    rows.ranked(tmp_path, "x", 1, [MISS, HIT] * 10)
    figure = board_of(tmp_path).arms[0].figures["recall@10"]
    assert (figure.value, figure.low, figure.high) == (0.5, 0.5, 0.5)


def test_costs_are_means_of_what_was_measured(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "x", 0, [1, 2], costs={"train_s": 10.0, "embed_ms_item": None})
    rows.ranked(tmp_path, "x", 1, [1, 2], costs={"train_s": 20.0, "embed_ms_item": 3.0})
    assert board_of(tmp_path).arms[0].costs == {"train_s": 15.0, "embed_ms_item": 3.0}


def test_a_plot_names_the_arms_whose_price_is_not_known(tmp_path: Path) -> None:
    for arm, costs in (("x", {"peak_memory_mb": 9.0}), ("y", {"peak_memory_mb": 8.0}), ("z", {})):
        rows.ranked(tmp_path, arm, 0, hits(10), costs=costs)
    (plot,) = sections.prices(board_of(tmp_path), {})
    assert plot["unmeasured"] == ["z"]


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.2]) == pytest.approx([0.04, 0.09, 0.09, 0.2])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_who_can_be_told_apart_from_the_best(tmp_path: Path) -> None:
    for seed, shift in ((0, 0), (1, 4)):
        rows.ranked(tmp_path, "best", seed, hits(150 - shift))
        rows.ranked(tmp_path, "nearly", seed, [MISS] * 3 + hits(148 - shift, 197))
        rows.ranked(tmp_path, "worse", seed, hits(60 - shift))
    rows.ranked(tmp_path, "lucky", 0, hits(110))
    rows.ranked(tmp_path, "lucky", 1, hits(147))
    board = board_of(tmp_path)
    assert {arm.label: arm.verdict for arm in board.arms} == {
        "best": "best", "nearly": "not separable", "lucky": "seeds overlap", "worse": "separable",
    }  # fmt: skip
    difference = board.by_label["worse"].difference
    assert difference is not None
    assert difference.value == pytest.approx(-90 / 200)
    assert difference.low < difference.value < difference.high < 0
    assert difference.p < difference.corrected < 0.05


def test_many_arms_can_still_be_told_apart(tmp_path: Path) -> None:
    """The correction multiplies p by the number of arms: there must be enough resamples for the smallest to survive."""
    rows.ranked(tmp_path, "best", 0, hits(200))
    for n in range(60):
        rows.ranked(tmp_path, f"arm {n}", 0, hits(n))
    assert {arm.verdict for arm in board_of(tmp_path).arms[1:]} == {"separable"}


def test_less_is_better_for_mean_rank(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "low", 0, [3, 4, 5])
    rows.ranked(tmp_path, "high", 0, [30, 40, 50])
    assert [arm.label for arm in board_of(tmp_path, "mean_rank").arms] == ["low", "high"]


def test_arms_on_other_queries_are_shown_but_not_compared(tmp_path: Path) -> None:
    for arm in ("x", "y"):
        rows.ranked(tmp_path, arm, 0, hits(100))
    rows.ranked(tmp_path, "partial", 0, [HIT] * 50)
    board = board_of(tmp_path)
    assert [arm.label for arm in board.arms] == ["x", "y", "partial"]
    assert board.by_label["partial"].verdict == "other queries"
    assert board.by_label["partial"].difference is None
    assert board.by_label["y"].verdict == "not separable"


def test_the_newer_cell_of_an_arm_and_seed_counts(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "x", 0, hits(10))
    old = rows.ranked(tmp_path, "x", 0, hits(10)).rename(tmp_path / "cells" / "before")
    os.utime(old / "cell.json", (1, 1))
    rows.ranked(tmp_path, "x", 0, hits(90))
    board = board_of(tmp_path)
    assert [len(arm.rows) for arm in board.arms] == [1]
    assert board.arms[0].figures["recall@1"].value == pytest.approx(0.45)


def test_cells_of_other_data_are_left_out_and_counted(tmp_path: Path) -> None:
    old = rows.ranked(tmp_path, "old", 0, hits(10), data=rows.DATA | {"items": "other"})
    os.utime(old / "cell.json", (1, 1))
    rows.ranked(tmp_path, "new", 0, hits(10))
    refused = rows.cell(tmp_path, "refused", 0, state="refused", data={})  # before any data were read
    os.utime(refused / "cell.json", (2**31, 2**31))
    board = board_of(tmp_path)
    assert [row.arm for row in board.results.rows] == ["new", "refused"]
    assert board.results.data == rows.DATA
    assert [arm.label for arm in board.arms] == ["new"]
    assert any("1 cell run on other data" in sentence for sentence in summary(board))


def test_states_are_counted(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "x", 0, hits(10))
    rows.cell(tmp_path, "x", 1, state="failed", reason="loss is nan", metrics=None)
    rows.cell(tmp_path, "y", 0, state="refused", reason="does not fit")
    rows.cell(tmp_path, "z", 0, state="running")
    (tmp_path / "cells" / "begun").mkdir()
    board = board_of(tmp_path, planned=8)
    assert board.results.counts == {"done": 1, "failed": 1, "refused": 1, "unfinished": 2}
    assert "Of 8 cells: 1 done, 1 failed, 1 refused, 2 unfinished, 3 to come." in summary(board)
    rows.collect(tmp_path)  # from then on it says which cells there are, and a folder may be another matrix's
    assert board_of(tmp_path, planned=8).results.counts["unfinished"] == 1


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda c: (c / "cell.json").write_text("{"), "cell.json:1: not valid JSON"),
        (lambda c: (c / "cell.json").write_text("[]"), "cell.json: not a JSON object"),
        (lambda c: (c / "cell.json").write_text('{"format": 1}'), "cell.json: key: Field required"),
        (lambda c: (c / "cell.json").write_text('{"format": 2}'), "cell.json: format 2, this version reads 1"),
        (lambda c: (c / "ranks.parquet").unlink(), "done, but without ranks.parquet"),
        (lambda c: (c / "ranks.parquet").write_bytes(b"PAR1"), "ranks.parquet: no readable ranks"),
    ],
)
def test_a_damaged_cell_is_named(tmp_path: Path, damage: Any, complaint: str) -> None:
    damage(rows.ranked(tmp_path, "x", 0, hits(3)))
    with pytest.raises(BadInput) as error:
        board_of(tmp_path)
    assert str(tmp_path / "cells") in error.value.message
    assert complaint in error.value.message
    assert error.value.hint


def test_rows_go_by_the_matrix_that_was_run_last(tmp_path: Path) -> None:
    """results.jsonl says which cells belong to it and what their arms are called now."""
    rows.ranked(tmp_path, "kept", 0, hits(10))
    rows.collect(tmp_path)
    rows.ranked(tmp_path, "of a former matrix", 0, hits(20))
    listed = tmp_path / "results.jsonl"
    listed.write_text(listed.read_text().replace('"kept"', '"called now"') + '{"half a li')
    assert [arm.label for arm in board_of(tmp_path).arms] == ["called now"]
    listed.write_text(listed.read_text() + "\n")
    whole = listed.read_bytes()
    listed.write_bytes(whole.replace(b'{"half a li', b"\xff\xfe"))
    with pytest.raises(BadInput, match=r"results\.jsonl:2: not valid JSON"):
        board_of(tmp_path)
    listed.write_bytes(whole)
    with pytest.raises(BadInput, match=r"results\.jsonl:2: not valid JSON"):
        read_results(tmp_path)


def test_a_category_may_hold_what_ends_a_line_elsewhere(tmp_path: Path) -> None:
    for seed in (0, 1):
        rows.ranked(tmp_path, "x", seed, hits(10), buckets=[{"name": "query category Food\u2028Drink\x85"}])
    rows.collect(tmp_path)
    assert [len(arm.rows) for arm in board_of(tmp_path).arms] == [2]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("qwen:0.6b", "qwen:0.6b"),
        ("llama@file:/models/smollm2-135m/", "smollm2-135m"),
        ("hf:org/name@main", "name"),
        ("timm:resnet50.a1_in1k", "timm:resnet50.a1_in1k"),
    ],
)
def test_a_component_is_called_by_the_last_piece_of_its_source(spec: str, name: str) -> None:
    assert component(spec) == name


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no folder cells"):
        read_results(tmp_path)


def test_a_report_of_nothing_finished(tmp_path: Path) -> None:
    rows.cell(tmp_path, "x", 0, state="failed", reason="disk full")
    write(tmp_path)
    assert "No cell is finished yet" in (tmp_path / "results.md").read_text()
    assert "disk full" in (tmp_path / "results.md").read_text()


def test_names_show_what_differs(matrix: Path) -> None:
    _, found = table(board_of(matrix))
    names = {row[0] for row in found}
    assert {"smollm2 + clip · notellm2 · tokens 32", "smollm2 + clip · notellm2 · zero-shot"} <= names
    assert "smollm2 · text_only" in names
    assert {"tfidf", "concat-linear"} <= names
    assert not any("qformer" in name for name in names)  # the same in all arms


def test_the_summary_follows_from_the_numbers(tmp_path: Path) -> None:
    for seed in (0, 1):
        rows.ranked(tmp_path, "joined", seed, hits(150), axes={"llm": "q"}, costs={"embed_ms_item": 20})
        rows.ranked(tmp_path, "cheap", seed, hits(148), axes={"llm": "q"}, costs={"embed_ms_item": 2})
    rows.ranked(tmp_path, "linear", 0, hits(160), axes={"baseline": "linear"}, costs={"embed_ms_item": 30})
    said = " ".join(summary(board_of(tmp_path)))
    assert "“linear” finds the right item among the first 10 of 1,000 for 80.0 % of 200 queries" in said
    assert "That is a baseline: the best trained model, “joined”, is 5.0 points behind (" in said
    assert "Every other arm is separably worse" in said
    assert "No cheaper arm is within 2 points of the best (30 ms an item)." in said
    assert summary(board_of(tmp_path)) == summary(board_of(tmp_path))


@pytest.mark.parametrize(
    ("axes", "costs", "said"),
    [
        ({"trained": True}, {"train_s": 300.0, "train_cpu_s": 7200.0}, "Training it took 5 min (2.0 h of CPU) a seed."),
        ({"trained": False}, {"train_s": 5.0, "train_cpu_s": 9.0}, "Fitting it took 5 s (9 s of CPU) a seed."),
        ({"trained": True}, {"train_s": 5.0}, "Training it took 5 s a seed."),
        ({"trained": False}, {"train_s": 0.0, "train_cpu_s": 0.0}, "It took no training."),
    ],
)
def test_the_summary_says_what_the_best_arm_cost(
    axes: dict[str, Any], costs: dict[str, float], said: str, tmp_path: Path
) -> None:
    for seed in (0, 1):
        rows.ranked(tmp_path, "best", seed, hits(150), axes=axes, costs=costs)
    rows.ranked(tmp_path, "worse", 0, hits(20), costs={"train_s": 1.0, "train_cpu_s": 1.0})
    assert summary(board_of(tmp_path))[1] == said


def test_the_summary_holds_no_cost_where_none_was_measured(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "best", 0, hits(150))
    assert not any("took" in sentence for sentence in summary(board_of(tmp_path)))


FREE = {"baseline": "whitened", "trained": False}
JOINED = {"llm": "q", "inference": "both", "trained": True}


def test_a_trained_arm_below_an_untrained_one_is_warned_of(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "whitened", 0, hits(160), axes=FREE)
    rows.ranked(tmp_path, "text", 0, hits(30), axes=FREE)
    rows.ranked(tmp_path, "joined", 0, hits(100), axes=JOINED)
    board = board_of(tmp_path)
    difference = board.by_label["joined"].difference
    assert difference is not None
    low, high = sorted((abs(difference.low), abs(difference.high)))
    said = (
        "Warning: “joined” was trained and is below “whitened”, which took no gradient: recall@10 50.0 against 80.0 %, "
        f"30.0 points behind ({100 * low:.1f} – {100 * high:.1f})"
    )
    assert warning(board) == f"{said}."
    written = {path.name: path.read_text("utf8") for path in write(tmp_path)}
    assert f'<p class="warning" role="alert">{said}.</p>' in written["report.html"]
    assert f"\n\n{said}.\n\n" in written["results.md"]
    rows.ranked(tmp_path, "linear", 0, hits(60), axes={"baseline": "concat", "trained": True})
    assert warning(board_of(tmp_path)) == f"{said}; 1 more trained arm is below it."


def test_a_warning_says_what_is_not_separable(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "whitened", 0, hits(101), axes=FREE)
    rows.ranked(tmp_path, "joined", 0, hits(98)[::-1], axes=JOINED)
    assert "1.5 points behind, which is not separable (interval of the difference −" in str(warning(board_of(tmp_path)))


def test_a_warning_gives_figures_alone_where_a_third_arm_is_the_best(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "good", 0, hits(180), axes=JOINED)
    rows.ranked(tmp_path, "whitened", 0, hits(160), axes=FREE)
    rows.ranked(tmp_path, "bad", 0, hits(100), axes=JOINED)
    assert warning(board_of(tmp_path)) == (
        "Warning: “bad” was trained and is below “whitened”, which took no gradient: recall@10 50.0 against 80.0 %."
    )


def test_a_warning_goes_by_the_better_mean_rank(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "whitened", 0, [3, 4, 5], axes=FREE)
    rows.ranked(tmp_path, "joined", 0, [30, 40, 50], axes=JOINED)
    assert "mean_rank 40.0 against 4.0, 36.0 ranks behind" in str(warning(board_of(tmp_path, "mean_rank")))


@pytest.mark.parametrize(
    ("count", "axes"),
    [
        (170, JOINED),  # above
        (160, JOINED),  # the same
        (100, JOINED | {"trained": False}),
        (100, JOINED | {"inference": "no-image"}),  # what was taken away is expected to cost
        (100, JOINED | {"inference": "no-text"}),
    ],
)
def test_no_warning_where_no_trained_arm_is_below(count: int, axes: dict[str, Any], tmp_path: Path) -> None:
    rows.ranked(tmp_path, "whitened", 0, hits(160), axes=FREE)
    rows.ranked(tmp_path, "joined", 0, hits(count), axes=axes)
    board = board_of(tmp_path)
    assert warning(board) is None
    written = {path.name: path.read_text("utf8") for path in write(tmp_path)}
    assert not any("Warning" in written[name] for name in ("report.html", "results.md"))


def test_no_warning_about_other_queries_or_without_an_untrained_arm(tmp_path: Path) -> None:
    for name, count in (("x", 100), ("y", 90)):
        rows.ranked(tmp_path, name, 0, hits(count), axes=JOINED)
    assert warning(board_of(tmp_path)) is None
    rows.ranked(tmp_path, "whitened", 0, [HIT] * 50, axes=FREE)
    assert warning(board_of(tmp_path)) is None


@pytest.mark.parametrize(("pool", "said"), [(101, []), (100, ["100"]), (5, ["10, 100"])])
def test_the_summary_says_which_cut_offs_tell_nothing(pool: int, said: list[str], tmp_path: Path) -> None:
    rows.ranked(tmp_path, "x", 0, [1, 2], pool=pool)
    sentences = [s for s in summary(aggregate(read_results(tmp_path))) if "finds everything" in s]
    assert sentences == [f"At {cuts} every model finds everything: the pool is no larger." for cuts in said]


def test_the_summary_says_what_was_left_out(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "whole", 0, [1, 2], items_skipped=0, skipped=[])
    assert not any("could not be used" in sentence for sentence in summary(aggregate(read_results(tmp_path))))
    reasons = ["a: no such file", "b: no picture", "c: no picture"]
    rows.ranked(tmp_path, "part", 0, [1], items_skipped=12, skipped=reasons, pairs_left_out=1)
    said = [s for s in summary(aggregate(read_results(tmp_path))) if "could not be used" in s]
    assert said == [
        "12 items could not be used as they are (a: no such file; b: no picture; c: no picture; …), and with them "
        "1 test pair. A cell's vectors.parquet names all of them."
    ]


def test_the_summary_compares_with_those_alone_that_were_asked_the_same(tmp_path: Path) -> None:
    for name, axes in (("joined", {"llm": "q"}), ("other", {"llm": "q"})):
        rows.ranked(tmp_path, name, 0, hits(190 if name == "joined" else 20), axes=axes)
    rows.ranked(tmp_path, "tfidf", 0, [*hits(100), 1], axes={"baseline": "tfidf"})
    said = " ".join(summary(board_of(tmp_path)))
    assert "Every other arm on its queries is separably worse. No baseline was asked the same queries." in said
    assert "Asked other queries, and so not compared: “tfidf”." in said


def test_the_summary_knows_queries_with_several_right_items(tmp_path: Path) -> None:
    world = rows.World([("q", "a"), ("r", "b")])
    pairs = [("q", "a"), ("q", "b"), ("q", "r")]
    report = evaluate(world.ids, world.vectors(0.0), pairs, ks=(1, 10, 100), protocol="standard")
    home = rows.cell(tmp_path, "x", 0, metrics={"recall@1": {"value": 0.0}}, pairs_beyond=7)
    write_ranks(report, home / "ranks.parquet")
    first, *cautions = summary(aggregate(read_results(tmp_path), "recall@1"))
    assert first.startswith("“x” finds 33.3 % of a query's right items in the first place of 4, the mean of 1 query (")
    assert "7 more test pairs were not asked: they are there twice, or of an item and itself." in cautions


def test_markdown_csv_and_latex(matrix: Path) -> None:
    board = board_of(matrix)
    written = {path.name: path.read_text("utf8") for path in write(matrix)}
    best = board.arms[0]
    with (matrix / "results.csv").open(newline="") as file:
        first, *_ = found = list(csv.DictReader(file))
    assert [row["arm"] for row in found] == [arm.label for arm in board.arms]
    assert float(first["recall@10"]) == best.figures["recall@10"].value
    assert float(found[1]["p_holm"]) == board.arms[1].difference.corrected  # type: ignore[union-attr]
    columns, cells = table(board)
    deviation = best.figures["recall@10"].deviation
    assert deviation is not None
    assert cells[0][columns.index("recall@10: sd of seeds")] == f"{100 * deviation:.1f}"
    assert f"| {' | '.join(columns)} |" in written["results.md"]
    assert (
        written["results.md"].count("\n| ") == len(cells) + 1 + 1 + 3
    )  # two headers, two failed cells and a refused one
    assert "loss is nan" in written["results.md"]
    assert written["results.tex"].count(" \\\\\n") == len(cells) + 1
    assert "\\toprule" in written["results.tex"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    rows.ranked(tmp_path, HOSTILE, 0, hits(3), axes={"llm": HOSTILE})
    rows.ranked(tmp_path, "x\ny", 0, hits(2))
    rows.cell(tmp_path, HOSTILE, 1, state="failed", reason=HOSTILE)
    written = {path.name: path.read_text("utf8") for path in write(tmp_path)}
    assert "<script" not in written["results.md"].replace("\\<script", "")
    body = [line for line in written["results.tex"].splitlines() if line.endswith("\\\\")]
    assert len(body) == 3
    assert not any("\\end{tabular}" in line for line in body)
    assert tex_escaped("[1ex]") == "{[}1ex]"  # behind the end of a row it would be a distance
    assert tex_escaped("50% & a_b\\c") == r"50\% \& a\_b\textbackslash{}c"
    with (tmp_path / "results.csv").open(newline="") as file:
        assert {row["arm"] for row in csv.DictReader(file)} == {HOSTILE, "x\ny"}


def test_it_needs_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    rows.ranked(tmp_path, "x", 0, hits(3))
    code = "import sys; from pathlib import Path; from n2kit.bench.report import write; write(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def two(tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "a", tmp_path / "b"
    for seed in (0, 1):
        rows.ranked(a, "better", seed, hits(100 + seed))
        rows.ranked(b, "better", seed, hits(140 + seed))
        rows.ranked(a, "same", seed, hits(50))
        rows.ranked(b, "same", seed, hits(50))
    rows.ranked(a, "gone", 0, hits(1))
    rows.ranked(b, "come", 0, hits(1))
    return a, b


def test_compare_pairs_the_queries_of_common_arms(tmp_path: Path) -> None:
    found = compare(*two(tmp_path))
    assert (found.metric, set(found.changes), found.only_a, found.only_b) == (
        "recall@10",
        {"better", "same"},
        ["gone"],
        ["come"],
    )
    difference = found.changes["better"].differences["recall@10"]
    assert difference.value == pytest.approx(40 / 200)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.separable
    none = found.changes["same"].differences["recall@10"]
    assert (none.value, none.corrected) == (0, 1)
    columns, cells = found.table()
    by_arm = {row[0]: dict(zip(columns, row, strict=True)) for row in cells}
    assert by_arm["better"]["B − A"] == "+20.0"
    assert by_arm["same"][""] == "not separable"
    said = json.loads(json.dumps(found.to_dict()))
    assert said["arms"]["better"]["differences"]["recall@10"]["value"] == pytest.approx(0.2)
    assert not found.data


def test_compare_says_so_where_the_data_differ(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    for file in b.glob("cells/*/cell.json"):
        file.write_text(file.read_text().replace(rows.DATA["items"], "other"))
    rows.ranked(b, "same", 0, hits(20, 40), data=rows.DATA | {"items": "other"})
    rows.ranked(b, "same", 1, hits(20, 40), data=rows.DATA | {"items": "other"})
    found = compare(a, b)
    assert "different data (items)" in found.remarks()[0]
    assert not found.changes["same"].differences
    assert found.changes["better"].differences
    assert next(row for row in found.table()[1] if row[0] == "same")[-1] == "other queries"


def test_compare_needs_a_common_arm(tmp_path: Path) -> None:
    rows.ranked(tmp_path / "a", "x", 0, hits(3))
    rows.ranked(tmp_path / "b", "y", 0, hits(3))
    with pytest.raises(BadInput, match="no finished arm in common"):
        compare(tmp_path / "a", tmp_path / "b")
