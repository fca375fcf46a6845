"""The page of a matrix: it loads nothing, runs nothing of the user's, and shows what the numbers say."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bench_rows as rows
from n2kit.bench.report import aggregate, charts, neighbours, panels, read_results, tables, write
from n2kit.data.items import Item, Items
from n2kit.errors import BadInput
from n2kit.pages.render import style
from n2kit.recipe.variants import SPECS

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7*7 }} </style>'
CONCEPTS = 40
PAIRS = [(f"a{n}", f"b{n}") for n in range(CONCEPTS)]


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.source = path.read_text("utf8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text: str) -> None:
        self.words.append(text)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> tuple[Items, Path]:
    images = tmp_path_factory.mktemp("images")
    items = []
    for n, pair in enumerate(PAIRS):
        for item_id in pair:
            Image.new("RGB", (300, 200), (6 * n, 255 - 6 * n, 90)).save(images / f"{item_id}.png")
            items.append(Item(item_id, f"{item_id}.png", title=f"thing {n}", category="x" if n % 2 else "y"))
    return Items(items), images


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, catalogue: tuple[Items, Path]) -> Path:
    folder = tmp_path_factory.mktemp("page") / "my matrix"
    rows.fill(folder, rows.World(PAIRS), seeds=2, items=catalogue[0])
    (folder / "matrix.yaml").write_text("seeds: 2\n")
    write(folder, *catalogue)
    return folder


@pytest.fixture(scope="module")
def page(matrix: Path) -> Page:
    return Page(matrix / "report.html")


def test_the_page_loads_nothing(page: Page) -> None:
    assert all(a["href"] and a["href"].startswith("#") for a in page.of("a"))
    assert not page.of("link")
    assert not page.of("iframe")
    assert not any("src" in attributes or "srcset" in attributes for _, attributes in page.tags)
    assert all(url.startswith("data:image/webp;base64,") for url in re.findall(r"url\(([^)]*)", page.source))
    assert "@import" not in page.source
    assert "http" not in re.sub(r"base64,[\w+/=]+|http-equiv", "", page.source)


def test_only_the_pages_own_script_may_run(page: Page) -> None:
    (policy,) = [m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_every_link_leads_somewhere(page: Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.tags}
    links = [str(a["href"])[1:] for a in page.of("a")]
    assert set(links) <= ids
    assert {"arms", "price", "ablations", "where", "saliency", "neighbours", "problems", "redo"} == set(links)


def test_the_page_shows_every_arm_and_how_to_redo_every_cell(page: Page, matrix: Path) -> None:
    results = read_results(matrix)
    board = aggregate(results)
    shown = [t["title"] for t in page.of("td") if "arm" in str(t.get("class")) and "title" in t]
    assert shown == [arm.label for arm in board.arms]
    assert page.source.count('<button class="copy js"') == len(results.rows) + 1
    assert all(row.command in page.text for row in results.rows)
    assert re.search(r"n2kit bench '[^']*/my matrix/matrix\.yaml' -o '[^']*/my matrix'", page.text)
    assert "loss is nan at step 7" in page.text
    assert "3.11.9" in page.text


def test_what_is_not_separable_is_not_coloured(page: Page, matrix: Path) -> None:
    found, _ = panels.panels(aggregate(read_results(matrix)))
    effects = [e for panel in found for e in panel.effects]
    unsure = sum(not e.difference.separable for e in effects)
    assert 0 < unsure < len(effects)
    assert page.source.count('class="num flat"') == unsure


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Everything that a user can write is hostile: ids, texts, arms, axes, settings, reasons, commands, versions, the folder's name."""
    folder = tmp_path_factory.mktemp("hostile") / HOSTILE.replace("/", "")
    pairs = [(f"{HOSTILE}{a}", f"{HOSTILE}{b}") for a, b in PAIRS[:12]]
    items = Items([Item(i, title=HOSTILE, topics=(HOSTILE,), category=HOSTILE) for pair in pairs for i in pair])
    world = rows.World(pairs)
    more: dict[str, Any] = {
        "versions": {HOSTILE: HOSTILE},
        "device": HOSTILE,
        "command": HOSTILE,
        "costs": {"embed_ms_item": 1},
    }
    for variant in ("basic", HOSTILE):
        axes = {"llm": HOSTILE, "vision": HOSTILE, "variant": variant, "setting": {HOSTILE: HOSTILE}}
        rows.evaluated(
            folder, world, HOSTILE + variant, 0, 0.9, items, axes=axes, saliency=rows.saliency_of(3, 1.0), **more
        )
    rows.evaluated(
        folder,
        world,
        f"b{HOSTILE}",
        0,
        0.9,
        items,
        axes={"baseline": HOSTILE},
        **more | {"costs": {"embed_ms_item": 9}},
    )
    rows.cell(folder, HOSTILE, 1, state="failed", reason=HOSTILE, hint=HOSTILE, command=HOSTILE)
    (folder / "env.json").write_text('{"<script>alert(1)</script>": "<script>alert(1)</script>"}')
    write(folder, items)
    return Page(folder / "report.html")


def test_what_users_wrote_stays_text(hostile: Page) -> None:
    assert len(hostile.of("script")) == 1
    assert len(hostile.of("style")) == 1
    assert not hostile.of("img")
    assert not any(name.startswith("on") for _, attributes in hostile.tags for name in attributes)
    assert hostile.text.count("<script>alert(1)</script>") > 20
    assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|(?<![.\d])49\b", hostile.text)
    assert {"price", "ablations", "where", "saliency", "neighbours", "problems"} <= {
        a.get("id") for _, a in hostile.tags
    }


def test_neighbours_agree_with_the_ranks(matrix: Path) -> None:
    """The right answer stands where its rank says, or is not among those shown."""
    found = neighbours.examples(aggregate(read_results(matrix)))
    assert len(found) == neighbours.DISAGREE + neighbours.DRAWN
    assert len({e.query for e in found}) == len(found)
    queries = {a for a, _ in PAIRS}
    for example in found:
        assert len(example.found) == neighbours.ARMS
        for one in example.found:
            assert len(one.items) == neighbours.NEIGHBOURS
            assert not queries & set(one.items)
            place = one.items.index(example.targets[0]) + 1 if example.targets[0] in one.items else None
            assert place == (one.rank if one.rank <= neighbours.NEIGHBOURS else None)


def test_a_pool_bounds_the_neighbours(matrix: Path) -> None:
    pool = [b for _, b in PAIRS[:3]]
    found = neighbours.examples(aggregate(read_results(matrix)), pool)
    targets = {b for _, b in PAIRS}  # always in the pool, as in an evaluation
    assert all(set(one.items) <= targets for e in found for one in e.found)


def test_queries_drawn_at_random_come_first_then_the_most_disputed() -> None:
    ranks = np.array([[1, 1, 8, 500, 2, 1, 3, 3, 3], [1, 400, 8, 1, 2, 2, 3, 3, 3]])
    chosen = neighbours.choose(ranks, seed=0)
    drawn = [n for n, why in chosen if why == "drawn at random"]
    assert [why for _, why in chosen] == ["drawn at random"] * neighbours.DRAWN + ["the arms disagree"] * 4
    assert drawn == np.random.default_rng(0).permutation(9)[: neighbours.DRAWN].tolist()
    assert [n for n, why in chosen if why == "the arms disagree"][:2] == [n for n in (3, 1, 5) if n not in drawn][:2]
    assert len({n for n, _ in chosen}) == len(chosen)


def test_neighbours_have_scores_and_categories(page: Page, catalogue: tuple[Items, Path]) -> None:
    """By the parts that every page of n2kit has."""
    shown = re.findall(r'<figure class="shown.*?</figure>', page.source, re.S)
    assert len(shown) > 50
    assert sum(bool(re.search(r'<span class="soft">-?\d\.\d\d</span>', one)) for one in shown) > 50
    assert {re.findall(r'<span class="tag" dir="auto">(.*?)</span>', one)[1] for one in shown} == {"x", "y"}
    assert all(line in page.source for line in style().splitlines())


def test_charts_have_axis_titles_and_a_legend_of_dominated_points(page: Page) -> None:
    scatters = [a for _, a in page.tags if " against " in str(a.get("aria-label"))]
    assert page.source.count('class="title"') == 2 * len(scatters) > 0
    assert "dominated, another arm is better and no dearer" in page.text
    assert "Recall@1, %" in page.text


def test_what_was_read_is_named_and_hashes_come_last(
    matrix: Path, catalogue: tuple[Items, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "named"
    shutil.copytree(matrix, folder)
    (folder / "matrix.yaml").write_text("items: data/items.jsonl\npairs: data/train.csv\ntest_pairs: test.csv\n")
    write(folder, *catalogue)
    source = (folder / "report.html").read_text("utf8")
    facts = source.partition('<dl class="facts">')[2].partition("</dl>")[0]
    assert f"<dt>items</dt><dd>{len(catalogue[0]):,} (items.jsonl)</dd>" in facts
    assert "<dt>training pairs</dt><dd>train.csv</dd>" in facts
    assert "SHA-256" not in facts
    assert "SHA-256 of " in source.partition("<summary>Environment</summary>")[2]


def test_columns_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    """A metric that is the same for all arms is said in a sentence, seeds only where arms have different numbers of them."""
    rows.fill(tmp_path / "m", rows.World(PAIRS), seeds=2)
    board = aggregate(read_results(tmp_path / "m"))
    for arm in board.arms:
        arm.figures["recall@100"] = replace(arm.figures["recall@100"], value=1.0)
    assert "recall@100" not in tables.telling_metrics(board)
    assert board.metric in tables.telling_metrics(board)
    assert "Recall@100 is 100.0 for every arm." in tables.left_out(board)


def test_which_arms_are_shown(matrix: Path) -> None:
    board = aggregate(read_results(matrix))
    shown = neighbours.shown_arms(board)
    assert shown[0] is board.best
    assert any(not arm.trained for arm in shown)
    assert {"text_only", "image_only", "basic"} <= {arm.axes.variant for arm in shown}
    assert not any(arm.axes.inference == "no-image" for arm in shown)


def test_an_arm_whose_vectors_were_cut_short_is_not_shown(tmp_path: Path, catalogue: tuple[Items, Path]) -> None:
    rows.fill(tmp_path, rows.World(PAIRS), seeds=1, items=catalogue[0])
    board = aggregate(read_results(tmp_path))
    assert board.best
    vectors = board.best.rows[0].vectors_file
    vectors.write_bytes(vectors.read_bytes()[:-20])
    assert board.best not in neighbours.shown_arms(board)
    write(tmp_path, *catalogue)
    assert "#neighbours" in {a["href"] for a in Page(tmp_path / "report.html").of("a")}


def test_pictures_are_small_and_each_is_there_once(page: Page) -> None:
    image_count = re.findall(r"url\(data:image/webp;base64,([^)]*)\)", page.source)
    bound = (neighbours.DISAGREE + neighbours.DRAWN) * (2 + neighbours.ARMS * neighbours.NEIGHBOURS)
    assert 0 < len(image_count) <= min(bound, 2 * CONCEPTS)
    import io

    for data in image_count:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.format == "WEBP"
            assert max(picture.size) == neighbours.SIDE


def test_a_picture_that_cannot_be_read_is_shown_by_its_text(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no picture")
    items = Items([Item("a", "missing.png", title="one"), Item("b", "b.png"), Item("c", "../c.png")])
    image_count = neighbours.Thumbnails(items, tmp_path)
    for item_id in ("a", "b", "c", "unknown"):
        image_count.add(item_id)
    assert not image_count.data
    assert [image_count.text(i) for i in ("a", "b", "unknown")] == ["one", "b", "unknown"]


def test_a_page_of_what_is_there_so_far(tmp_path: Path, catalogue: tuple[Items, Path]) -> None:
    """Written again after every cell, from the first failure on; only sections with something to show are there."""
    rows.cell(tmp_path, "x", 0, state="failed", reason="disk full")
    write(tmp_path, *catalogue, planned=3)
    first = Page(tmp_path / "report.html")
    assert "No cell is finished yet. Of 3 cells: 1 failed, 2 to come." in first.text
    assert {a["href"] for a in first.of("a")} == {"#problems", "#redo"}
    rows.ranked(tmp_path, "y", 0, [1, 2, 3])  # no vectors, costs, buckets or saliency
    write(tmp_path, *catalogue, planned=3)
    assert {a["href"] for a in Page(tmp_path / "report.html").of("a")} == {"#arms", "#problems", "#redo"}
    assert not list(tmp_path.glob(".*"))


def test_the_same_results_give_the_same_page(matrix: Path, catalogue: tuple[Items, Path], page: Page) -> None:
    write(matrix, *catalogue)
    assert (matrix / "report.html").read_text("utf8") == page.source


def test_saliency_that_is_none_is_refused(tmp_path: Path) -> None:
    rows.ranked(tmp_path, "x", 0, [1, 2], saliency={"layers": [[0.1, 0.2]]})
    with pytest.raises(BadInput, match=r"cell\.json: saliency\.layers is not three numbers a layer"):
        write(tmp_path)


def point(number: int, cost: float, value: float) -> charts.Point:
    return charts.Point(cost, value, value, value, number, "", None)


def test_pareto_front_by_hand() -> None:
    points = [
        point(1, 10, 0.9),
        point(2, 5, 0.9),
        point(3, 5, 0.8),
        point(4, 1, 0.5),
        point(5, 2, 0.4),
        point(6, 0, 0.1),
    ]
    assert [s.number for s in charts.pareto(points)] == [6, 4, 2]
    assert [s.number for s in charts.pareto(points, sign=-1.0)] == [6]
    plot = charts.scatter(points, str, str)
    assert plot.zero is not None
    assert all(0 <= p.x <= charts.WIDTH and 0 <= p.y <= charts.HEIGHT for p in plot.points)
    x = {p.point.number: p.x for p in plot.points}
    assert x[6] < x[4] < x[5] < x[2] == x[3] < x[1]


@pytest.mark.parametrize(
    "values", [[0.0, 1.0], [0.31, 0.32], [5.0], [743.0, 793.0], [], [3.0, 4000.0], [-0.2, 0.5], [0.0]]
)
def test_scales_hold_their_values_and_round_ticks(values: list[float]) -> None:
    for scale in (charts.linear(values), charts.linear(values, zero=True)):
        assert all(0 <= scale(v) <= 1 for v in values)
        assert 1 <= len(scale.ticks) <= 7
        assert all(0 <= scale(t) <= 1 for t in scale.ticks)
    scale = charts.logarithmic(values)
    assert all(0 < scale(v) < 1 for v in values if v > 0)
    assert 2 <= len(scale.ticks) <= 5
    assert all(0 <= scale(t) <= 1 for t in scale.ticks)


def test_variants_stand_in_the_panel_of_the_parts_they_use(matrix: Path) -> None:
    found, more = panels.panels(aggregate(read_results(matrix)))
    variants = [p for p in found if p.title == "Variants"]
    assert {p.rest for p in variants} == {f"{llm} + {vision}" for llm in rows.LLMS for vision in rows.VISIONS}
    assert all([bar.name for bar in p.bars] == [name for name in SPECS if name in rows.NOISE] for p in variants)
    assert all(sum(bar.best for bar in p.bars) == 1 for p in found)
    tokens = next(p for p in found if p.title == "connector.tokens")
    assert [bar.name for bar in tokens.bars] == ["default", "8", "32", "48"]
    assert tokens.rest == "smollm2 + clip · notellm2"
    weights = next(p for p in found if p.title == "loss.text_weight")
    assert [bar.name for bar in weights.bars] == ["default", "1", "3", "19"]
    ways = next(p for p in found if p.title == "At inference")
    assert [bar.name for bar in ways.bars] == ["both", "no-image", "no-text"]
    training = next(p for p in found if p.title == "Training")
    assert [bar.name for bar in training.bars] == ["as it is built", "trained"]
    assert len(found) == 8
    assert more == 0


def test_a_step_is_the_difference_of_its_two_arms(matrix: Path) -> None:
    board = aggregate(read_results(matrix))
    panel = panels.panels(board)[0][0]
    value = {bar.name: bar.arm.figures[board.metric].value for bar in panel.bars}
    assert [(e.a, e.b) for e in panel.effects] == [step[1:] for step in panels.STEPS]
    for e in panel.effects:
        assert e.difference.value == pytest.approx(value[e.b] - value[e.a])
        assert e.difference.low <= e.difference.value <= e.difference.high
