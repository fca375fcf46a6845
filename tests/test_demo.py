"""The demo on tiny weights and a few of its items: every arm is in the table, in the JSON and on the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from n2kit.data.pairs import Pairs
from n2kit.demo import run as demo
from n2kit.demo.data import read_data
from n2kit.demo.result import ARMS

run_module: Any = __import__("n2kit.demo.run", fromlist=["run"])


@pytest.mark.slow
def test_all_arms_are_told_and_a_second_run_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(folder: Path) -> Any:
        data = read_data(folder)
        test = Pairs(data.test.pairs[:12])
        pool = [b for _, b in test]
        return replace(data, train=Pairs(data.train.pairs[:32]), val=Pairs(data.val.pairs[:8]), test=test, pool=pool)

    monkeypatch.setattr(run_module, "find_weights", lambda offline, notify: ("qwen:tiny", "siglip:tiny"))
    monkeypatch.setattr(run_module, "read_data", few)
    said: list[str] = []
    result = demo(tmp_path / "demo", steps=1, notify=said.append)
    head, rows = result.table()
    assert [row[0] for row in rows] == [title for _, _, title in ARMS.values()]
    assert len(said) == len(ARMS)
    page = result.page.read_text("utf8")
    facts = json.loads((tmp_path / "demo/result.json").read_text("utf8"))
    assert list(facts["recall"]) == list(ARMS)
    for name, (_, trained, title) in ARMS.items():
        assert title in page
        assert set(facts["recall"][name]["all"]) == {"1", "10", "100"}
        assert bool(result.arms[name].train_s) == trained
    assert len(head) == len(rows[0])
    again = demo(tmp_path / "demo", steps=1, notify=said.append)
    assert len(said) == len(ARMS)
    assert again.to_dict()["recall"] == facts["recall"]
