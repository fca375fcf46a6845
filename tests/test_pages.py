"""Output for people about their own items: titles beside ids, pages with pictures, sentences with the number that matters."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n2kit.data.items import Item, Items
from n2kit.errors import BadInput, counted
from n2kit.evaluate import evaluate, recall_sentence
from n2kit.evaluate.compare import MetricChange
from n2kit.evaluate.sentences import image_sentence, wilson
from n2kit.pages import draw_examples, label, write_neighbours
from n2kit.utils.folders import bundle_folder, next_run

ITEMS = ("--items", "items.csv", "--images", "images")


@pytest.fixture(scope="module")
def vectors(tiny_bundle: Path, workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from n2kit import load, read_items
    from n2kit.bundle.io import read_manifest
    from n2kit.embed import embed

    out = tmp_path_factory.mktemp("vectors") / "v.parquet"
    fingerprint = read_manifest(tiny_bundle).fingerprint
    embed(load(tiny_bundle), fingerprint, read_items(workspace / "items.csv"), out, images=workspace / "images")
    return out


def test_an_index_remembers_titles_and_shows_them(
    cli: Any, at_workspace: Path, vectors: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    index, page = tmp_path / "index", tmp_path / "page.html"
    assert "24 of them with a title" in cli("index", vectors, "-o", index, *ITEMS).err
    shown = cli("recommend", "--index", index, "--id", "noto:3", "-k", "2", "--html", page)
    assert shown.code == 0, shown.err
    assert shown.out.startswith("| rank | id | score | title |\n")
    assert re.search(r"\| 1 \| \S+ \| [\d.]+ \| thing \d+ \|", shown.out)
    text = page.read_text("utf8")
    assert text.count("<figure") == 3
    assert text.count('src="data:image/webp;base64,') == 3
    assert 'alt="thing 3"' in text
    near = json.loads(cli("recommend", "--index", index, "--id", "noto:3", "-k", "2", "--json").out)["neighbours"]
    assert set(near[0]) == {"id", "score", "title", "image"}
    new = ("--bundle", tiny_bundle, "--title", "<b>new</b>", "--image", "images/noto_3.png")
    assert cli("recommend", "--index", index, *new, "-k", "2", "--html", page).code == 0
    assert '<b dir="auto">&lt;b&gt;new&lt;/b&gt;</b>' in page.read_text("utf8")
    assert page.read_text("utf8").count('src="data:image/webp;base64,') == 3


def test_titles_come_from_a_file_too_and_what_lacks_them_says_how(
    cli: Any, at_workspace: Path, vectors: Path, tmp_path: Path
) -> None:
    index, query = tmp_path / "index", ("--id", "noto:3", "-k", "2")
    assert cli("index", vectors, "-o", index).code == 0
    bare = cli("recommend", "--index", index, *query)
    assert bare.out.startswith("| rank | id | score |\n")
    assert "titles: --items FILE" in bare.err
    refused = cli("recommend", "--index", index, *query, "--html", tmp_path / "page.html")
    assert (refused.code, "remembers no titles" in refused.err) == (2, True)
    assert "| title |" in cli("recommend", "--index", index, *query, "--items", "items.jsonl").out


def test_titles_in_an_index_are_checked_like_its_other_files(
    cli: Any, at_workspace: Path, vectors: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    cli("index", vectors, "-o", index, *ITEMS)
    (index / "titles.json").write_text('{"images": null, "items": {}}')
    refused = cli("recommend", "--index", index, "--id", "noto:3")
    assert (refused.code, "titles.json has changed" in refused.err) == (2, True)


@pytest.mark.parametrize("made", ["items.csv", "images"])
def test_a_page_replaces_nothing_but_a_page(
    made: str, cli: Any, workspace: Path, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(workspace, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    refused = cli("eval", "--vectors", vectors, "--pairs", "test.csv", *ITEMS, "--html", made)
    assert refused.code == 2, refused.err
    assert Path("items.csv").read_text() == (workspace / "items.csv").read_text()


def test_eval_ends_in_a_sentence_and_a_page(cli: Any, at_workspace: Path, vectors: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = ("eval", "--vectors", vectors, "--pairs", "train.csv", "--k", "1,10")
    for _ in range(2):  # the second time in place of the first
        done = cli(*command, *ITEMS, "--html", page)
        assert done.code == 0, done.err
    last = done.err.splitlines()[-1]
    assert re.fullmatch(
        r"[\d.]+ % \(95 % interval [\d.]+ to [\d.]+\) of the queries have their right item among the first 10 of 16 "
        r"\(8 queries\); by chance 62 % would be\.",
        last,
    ), last
    text = page.read_text("utf8")
    assert last in text
    assert "Queries drawn at random" in text
    assert text.count('<figure class="shown query"') == 8
    assert '<figure class="shown right"' in text
    assert json.loads(cli(*command, "--json").out)["sentence"] == last
    bare = cli(*command, "--html", page)
    assert (bare.code, "give --items too" in bare.err) == (2, True)


def test_eval_takes_the_protocol_that_the_pairs_ask_for(
    cli: Any, at_workspace: Path, vectors: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared.csv"
    shared.write_text("query,target\nnoto:3,twemoji:3\nnoto:3,noto:4\n")
    command = ("eval", "--vectors", vectors, "--pairs")
    assert "protocol standard (some pairs share items)" in cli(*command, shared).err
    assert "protocol notellm2 (pairs one to one)" in cli(*command, "test.csv").err
    papers = cli(*command, shared, "--protocol", "notellm2").err
    assert "protocol notellm2;" in papers
    assert "1 more pair left out" in papers
    assert (
        json.loads(cli("eval", "--compare", vectors, vectors, "--pairs", shared, "--json").out)["protocol"]
        == "standard"
    )


def test_a_training_and_a_fit_end_in_a_sentence_and_a_page_and_their_runs_are_bundles(
    cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    data = (*ITEMS, "--pairs", "train.csv")
    run, page = tmp_path / "run", tmp_path / "page.html"
    done = cli("train", tiny_bundle, *data, "-o", run, "--max-steps", "1", "--val-pairs", "val.csv", "--html", page)
    assert done.code == 0, done.err
    assert re.search(
        r"% \(95 % interval .*\) of the queries have their right item first of 2 \(2 queries of the val", done.err
    )
    text = page.read_text("utf8")
    assert "Neighbours among 24 items." in text
    assert text.count('<figure class="shown query"') == 2  # the validation pairs'
    fitted = cli("fit", run, *data, "-o", tmp_path / "fitted", "--html", tmp_path / "fitted.html")
    assert fitted.code == 0, fitted.err
    assert (tmp_path / "fitted.html").read_text("utf8").count('<figure class="shown query"') == 8
    result = json.loads(cli("embed", tmp_path / "fitted", *ITEMS, "-o", tmp_path / "v.parquet", "--json").out)
    index = tmp_path / "index"
    assert cli("index", tmp_path / "v.parquet", "-o", index).code == 0
    new = cli("recommend", "--index", index, "--bundle", tmp_path / "fitted", "--title", "thing 3", "--json")
    assert (new.code, result["items"]) == (0, 24)
    no_val = cli("train", tiny_bundle, *data, "-o", tmp_path / "plain", "--max-steps", "1")
    assert "Nothing says how good the model is: --val-pairs FILE measures it." in no_val.err


def test_neglect_ends_in_a_sentence_and_a_page(cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = cli("neglect", tiny_bundle, *ITEMS, "--pairs", "train.csv", "--k", "1,5", "--saliency", "0", "--html", page)
    assert done.code == 0, done.err
    assert done.err.splitlines()[-1].startswith("Without its image recall@5 ")
    assert done.err.splitlines()[-1] in page.read_text("utf8").replace("&#39;", "'")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((-0.2, -0.3, -0.1), "falls by 20.0 points (95 % interval 10.0 to 30.0): the model uses the image."),
        (
            (-0.2, -0.5, 0.1),
            "change -50.0 to +10.0): that can be chance, and nothing shows that the model uses the image.",
        ),
        ((0.2, 0.1, 0.3), "rises by 20.0 points (95 % interval 10.0 to 30.0): the image harms this model."),
    ],
)
def test_the_figures_decide_what_is_said_of_the_image(change: tuple[float, float, float], said: str) -> None:
    assert image_sentence({"recall@10": MetricChange(0.5, 0.5, *change, 0.1)}, [1, 10, 100], 500, 40).endswith(said)


def test_a_share_of_several_right_items_is_called_so() -> None:
    rows = np.eye(30, 8, dtype=np.float32) + 0.1
    report = evaluate([str(n) for n in range(30)], rows, [("0", "1"), ("0", "2")], ks=(1, 100), protocol="auto")
    said = recall_sentence(report, report.figures())
    assert "of the right items are first of 30 (1 query)" in said


def test_an_interval_at_the_ends_is_inside_and_has_a_width() -> None:
    assert wilson(1.0, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_examples_are_drawn_by_the_seed_and_ranked_without_the_query() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"i{n}" for n in range(200)]
    pairs = [(f"i{n}", f"i{n + 100}") for n in range(100)]
    drawn, far = draw_examples(ids, vectors, pairs, 1)
    assert drawn == draw_examples(ids, vectors, pairs[::-1], 1)[0]
    assert [e.query for e in drawn] != [e.query for e in draw_examples(ids, vectors, pairs, 2)[0]]
    assert len(drawn) == 12
    assert [e.rank for e in far] == sorted((e.rank for e in far), reverse=True)
    for example in [*drawn, *far]:
        row = int(example.query[1:])
        order = [ids[n] for n in np.argsort(-(vectors @ vectors[row])) if n != row]
        assert [i for i, _ in example.found] == order[:6]
        assert example.rank == order.index(f"i{row + 100}") + 1
    alone, none = draw_examples(ids, vectors, None, 1)
    assert (len(alone), none, alone[0].rank) == (12, [], None)
    assert draw_examples(["a", "b"], vectors[:2], None, 0)[0][0].found


def test_pictures_that_cannot_be_read_are_counted_on_the_page(tmp_path: Path) -> None:
    items = Items([Item("a", title="A", image="gone.png"), Item("b", content="b " * 90), Item("c")])
    examples, _ = draw_examples(["a", "b", "c"], np.eye(3, dtype=np.float32), None, 0)
    write_neighbours(tmp_path / "p.html", items, tmp_path, examples, seed=0)
    text = (tmp_path / "p.html").read_text("utf8")
    assert "1 picture could not be read" in text
    assert label(items["b"]).endswith("…")
    assert label(items["c"]) == "c"


def test_numbers_with_their_nouns() -> None:
    assert [counted(n, "query") for n in (0, 1, 2)] == ["0 queries", "1 query", "2 queries"]
    assert counted(1024, "item") == "1,024 items"
    assert counted(2, "key") == "2 keys"
    assert counted(2, "index", "indexes") == "2 indexes"


def test_a_run_stands_for_its_bundle(tmp_path: Path, tiny_bundle: Path) -> None:
    from n2kit import load

    run = tmp_path / "mine"
    shutil.copytree(tiny_bundle, run / "bundle")
    assert bundle_folder(run) == run / "bundle"
    assert bundle_folder(tiny_bundle) == tiny_bundle
    assert load(run).width == 16
    assert (next_run(tiny_bundle), next_run(run / "bundle")) == ("tiny", "mine-2")
    assert next_run(tmp_path / "mine-2" / "bundle") == "mine-3"
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text("{}")
    with pytest.raises(BadInput, match="has made no bundle yet"):
        load(tmp_path / "begun")
