"""n2kit bench: each cell once, whatever happens in between."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

DATA = ("--items", "items.jsonl", "--pairs", "train.csv", "--test-pairs", "test.csv", "--images", "images")
TINY = ("--llm", "qwen:tiny", "--vision", "siglip:tiny", "--connector", "qformer:tiny", "--max-steps", "1")


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("at_workspace")
def test_cells_are_run_once_and_arms_can_be_added(cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = cli("bench", *DATA, *TINY, "--variant", "text_only", "-o", out)
    assert (first.code, len(rows(out))) == (0, 1), first.err
    more = cli("bench", *DATA, *TINY, "--variant", "text_only,notellm2", "-o", out)
    assert "2 cells, 1 to run" in more.err
    text, joined = rows(out)
    assert text["axes"]["vision"] is None
    assert joined["arm"] == "qwen:tiny+siglip:tiny+qformer:4+gate+notellm2"
    for row in (text, joined):
        assert row["state"] == "done"
        assert set(row["metrics"]["recall@1"]) == {"value", "low", "high", "optimistic"}
        assert all((out / row["files"][name]).is_file() for name in ("ranks", "vectors"))
        assert not list((out / row["files"]["run"]).glob("**/*.safetensors"))  # weights of every cell would fill a disk
    assert "2 cells, 0 to run" in cli("bench", out / "matrix.yaml", "-o", out).err


@pytest.mark.usefixtures("at_workspace")
def test_refused_cells_say_why_and_stop_nothing(cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli("bench", *DATA, *TINY, "--variant", "micl,basic", "--llm", "bert:tiny", "-o", out)
    assert done.code == 0, done.err
    assert [row["state"] for row in rows(out)] == ["refused", "done"]
    assert "needs a causal LLM" in rows(out)[0]["reason"]


@pytest.mark.usefixtures("at_workspace")
def test_a_dry_run_lists_and_estimates_and_leaves_nothing(cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen = cli("bench", *DATA, *TINY, "--variant", "text_only,micl", "--seeds", "2", "-o", out, "--dry-run")
    assert (seen.code, out.exists()) == (0, False), seen.err
    assert "4 cells to run share 4 trainings; features are computed once for siglip:tiny" in seen.err
    assert re.search(r"about \d+ s", seen.err)
    listed = json.loads(cli("bench", *DATA, *TINY, "--variant", "notellm2", "-o", out, "--dry-run", "--json").out)
    assert (listed["cells"][0]["state"], listed["seconds"] > 0) == ("open", True)
