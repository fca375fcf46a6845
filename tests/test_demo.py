"""The demo on tiny weights and a few of its items: every arm is told, each text and picture is read once, and the best arm is said to be."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from n2kit.bundle.io import read_manifest
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.demo import DemoResult
from n2kit.demo import run as demo
from n2kit.demo.data import read_data
from n2kit.demo.photographs import PHOTOGRAPH_ARMS, read_photographs
from n2kit.demo.result import ARMS, MAIN, DemoArm
from n2kit.inputs.feature_cache import FeatureCache
from n2kit.inputs.state_cache import StateCache

run_module: Any = __import__("n2kit.demo.run", fromlist=["run"])
LEARN = ("linear", "whitened", "notellm2")


@dataclass
class Log:
    """The arms that were announced, each with the number of texts and pictures that were encoded before it."""

    encoded: int = 0
    said: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.said.append((line, self.encoded))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Let the demo run on tiny weights and a few items, and count what the frozen parts encode."""

    def few(folder: Path) -> Any:
        data = read_data(folder)
        test = Pairs(data.test.pairs[:12])
        pool = [b for _, b in test]
        return replace(data, train=Pairs(data.train.pairs[:32]), val=Pairs(data.val.pairs[:8]), test=test, pool=pool)

    monkeypatch.setattr(run_module, "find_weights", lambda offline, notify: ("qwen:tiny", "siglip:tiny"))
    monkeypatch.setattr(run_module, "read_data", few)
    log = Log()
    for cache in (StateCache, FeatureCache):
        monkeypatch.setattr(cache, "_compute", _counted(cache._compute, log))
    return log


def _counted(compute: Any, log: Log) -> Any:
    def counted(self: Any, rows: Sequence[Any], *more: Any) -> Any:
        log.encoded += len(rows)
        return compute(self, rows, *more)

    return counted


@pytest.mark.slow
def test_all_arms_are_told_and_a_second_run_computes_nothing(tmp_path: Path, log: Log) -> None:
    result = demo(tmp_path / "demo", steps=1, notify=log)
    head, rows = result.table()
    assert [row[0] for row in rows] == list(ARMS.values())
    assert len(head) == len(rows[0])
    assert log.said[0][0] == f"to run: {'; '.join(ARMS.values())}"
    assert re.match(r"about [\d.]+ (s|min) on this machine, by a probe", log.said[1][0])
    assert len(log.said) == 2 + len(ARMS)
    page = result.page.read_text("utf8")
    facts = json.loads((tmp_path / "demo/result.json").read_text("utf8"))
    assert list(facts["recall"]) == list(facts["training_s"]) == list(ARMS)
    for name, title in ARMS.items():
        assert title in page
        assert set(facts["recall"][name]["all"]) == {"1", "10", "100"}
        assert bool(result.arms[name].train_s) == (name in LEARN)
    assert facts["verdict"] == result.verdict()
    assert facts["pairs"] == 32
    assert "not NoteLLM-2" in page
    assert read_manifest(tmp_path / "demo/bundle").fingerprint == result.arms[MAIN].fingerprint
    assert f"<b>{result.winner()}</b>" in page
    assert page.count('alt="') == page.count("<img ")
    assert 'alt=""' not in page
    for n in range(3):  # each column's best is bold, and nothing else is
        best = max(arm.recall["all"][n] for arm in result.arms.values())
        assert f"<b>{100 * best:.1f}</b>" in page
    again = demo(tmp_path / "demo", steps=1, notify=log)
    assert len(log.said) == 2 + len(ARMS)
    assert again.to_dict()["recall"] == facts["recall"]


@pytest.mark.slow
def test_a_quick_one_has_a_third_and_encodes_once_for_all_frozen_arms(tmp_path: Path, log: Log) -> None:
    result = demo(tmp_path / "demo", steps=1, quick=True, notify=log)
    assert (result.queries, result.pool) == (4, 4)
    page = result.page.read_text("utf8")
    assert "--steps 1 --quick</code>" in page
    assert f"n2kit demo --quick --photographs stamps -o {tmp_path / 'demo'}" in page
    before = {line.split("] ")[1]: encoded for line, encoded in log.said if line.startswith("[")}
    assert before[ARMS["text"]] < before[ARMS["image"]] < before[ARMS["linear"]]
    assert before[ARMS["linear"]] == before[ARMS["whitened"]] == before[ARMS["notellm2"]]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Six folders of three photographs each, half of them for training."""
    root = tmp_path / "stamps"
    (root / "images").mkdir(parents=True)
    rows, pairs = [], {"train": [], "val": [], "test": []}  # type: ignore[var-annotated]
    for n, folder in enumerate(("birds", "fruit", "cars", "bells", "hats", "boats")):
        ids = [f"{folder}/{k}" for k in range(3)]
        for k, item in enumerate(ids):
            Image.new("RGB", (40, 30), (40 * n, 80 * k, 99)).save(root / "images" / f"{folder}{k}.png")
            rows.append({"id": item, "image": f"{folder}{k}.png", "title": f"a thing of {folder}", "folder": folder})
        split = ("train", "train", "train", "val", "test", "test")[n]
        pairs[split] += [(a, b) for a in ids for b in ids if a != b]
    (root / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, found in pairs.items():
        (root / f"{split}.csv").write_text("query,target\n" + "".join(f"{a},{b}\n" for a, b in found))
    (root / "pool.csv").write_text("id\n" + "".join(f"{row['id']}\n" for row in rows))
    return root


@pytest.mark.slow
def test_photographs_have_a_tab_of_their_own(tmp_path: Path, log: Log, photographs: Path) -> None:
    result = demo(tmp_path / "demo", steps=1, quick=True, photographs=photographs, notify=log)
    assert log.said[1][0] == f"to run on photographs: {'; '.join(ARMS[name] for name in PHOTOGRAPH_ARMS)}"
    shown = result.photographs
    assert shown is not None
    assert (shown.queries, list(shown.arms)) == (6, list(PHOTOGRAPH_ARMS))
    assert result.to_dict()["photographs"]["hits"]["whitened"]["10"] == shown.hits(shown.arms["whitened"])[1]
    page = result.page.read_text("utf8")
    assert "--photographs stamps" not in page
    assert shown.sentence() in page
    tab = page.partition('<section class="panel photographs">')[2]
    assert tab.count('<section class="row">') == 6  # one a query
    assert tab.count('<img src="data:image/webp') == tab.count('alt="a thing of ') == 6 * 7
    assert re.findall(r'<span class="tag" dir="auto">(\w+)</span>', tab).count("hats") >= 3
    assert "2 others are in its folder; the first of them is" in tab
    said = len(log.said)
    demo(tmp_path / "demo", steps=1, quick=True, photographs=photographs, notify=log)
    assert len(log.said) == said
    (photographs / "train.csv").write_text("query,target\nbirds/0,birds/1\nfruit/0,fruit/1\ncars/0,cars/1\n")
    demo(tmp_path / "demo", steps=1, quick=True, photographs=photographs, notify=log)  # other pairs: anew
    assert [line for line, _ in log.said[said:] if line.startswith("photographs: [3/3]")]


def test_other_pictures_of_the_same_names_are_other_photographs(photographs: Path) -> None:
    before = read_photographs(photographs).digest()
    assert read_photographs(photographs).digest() == before
    Image.new("RGB", (40, 30), "white").save(photographs / "images" / "hats0.png")
    assert read_photographs(photographs).digest() != before


def test_a_folder_that_holds_no_photographs_is_refused_before_anything_is_done(tmp_path: Path, cli: Any) -> None:
    done = cli("demo", "-o", tmp_path / "demo", "--photographs", tmp_path / "none")
    assert (done.code, "hint: n2kit data demo stamps -o FOLDER writes such a folder" in done.err) == (2, True), done.err
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_a_damaged_or_old_state_is_computed_again_and_those_of_other_arms_are_ignored(tmp_path: Path, log: Log) -> None:
    demo(tmp_path / "demo", steps=1, notify=log)
    states = tmp_path / "demo/arms"
    (states / "text-seed0-steps1.json").write_text("{", "utf8")
    old = states / "image-seed0-steps1.json"
    old.write_text(json.dumps(json.loads(old.read_text("utf8")) | {"loss": None}), "utf8")
    (states / "before-seed0-steps1.json").write_text("{", "utf8")
    log.said.clear()
    demo(tmp_path / "demo", steps=1, notify=log)
    assert [line for line, _ in log.said if "to run" in line] == [f"to run: {ARMS['text']}; {ARMS['image']}"]
    assert [line for line, _ in log.said if line[0] == "["] == [f"[1/5] {ARMS['text']}", f"[2/5] {ARMS['image']}"]


def result_of(ranks: dict[str, list[int]], seconds: dict[str, float]) -> DemoResult:
    """Make a result of arms with these ranks of the queries' targets."""
    arms = {}
    for name, own in ranks.items():
        recall = {"all": [sum(rank <= k for rank in own) / len(own) for k in (1, 10, 100)]}
        arms[name] = DemoArm(name, recall, {str(n): rank for n, rank in enumerate(own)}, seconds.get(name, 0.0))
    return DemoResult(Path("demo"), 0, 24, 768, arms, [], Items([]), 20, 20)


def test_the_verdict_names_the_best_arm_whichever_it_is() -> None:
    ranks = {"text": [50] * 20, "image": [5] * 4 + [50] * 16, "whitened": [5] * 10 + [50] * 10, "linear": [5] * 20}
    said = result_of(ranks, {"linear": 300, "whitened": 40}).verdict()
    assert said.startswith(
        f"Best recall@10 from 768 pairs: {ARMS['linear']}, 100.0 % (training 300 s). Next, 50.0 points behind"
    )
    assert f"): {ARMS['whitened']}, 50.0 % (training 40 s). Then: {ARMS['image']}, 20.0 % (no training); " in said
    assert "separable" not in said


def test_one_sentence_says_who_won() -> None:
    ranks = {"text": [50] * 20, "linear": [5] * 20, "whitened": [5] * 10 + [50] * 10}
    share = "the right item is among the first 10 for 100.0 % of 20 queries"
    assert result_of(ranks, {}).winner() == f"“{ARMS['linear']}” won: {share}."
    ranks["whitened"] = [5] * 19 + [50]
    said = f"Nobody won: “{ARMS['linear']}” and “{ARMS['whitened']}” are level; {share}, and for 95.0 %."
    assert result_of(ranks, {}).winner() == said


def test_the_verdict_does_not_call_a_draw_a_victory() -> None:
    said = result_of({"linear": [5] * 9 + [50] * 11, "whitened": [5] * 10 + [50] * 10}, {}).verdict()
    assert "Next, 5.0 points behind (95 % interval 0.0 to 15.0, not separable)" in said


def test_what_a_killed_demo_left_beside_its_items_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".items-abc" / "items").mkdir(parents=True)
    read_data(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["data"]
