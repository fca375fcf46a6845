"""`n2kit.bench.run`: a matrix as a library call, its events, and rows that versions before have written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench_cells import cells
from n2kit import bench
from n2kit.bench.cell_row import CellRow
from n2kit.bench.events import BenchEvent, MatrixStarted, RowWritten
from n2kit.bench.matrix.spec import MatrixSpec
from n2kit.bench.report import read_results
from n2kit.bench.runner.store import Store
from n2kit.errors import BadInput

PAGE = (Path(__file__).parents[1] / "docs" / "bench.md").read_text("utf8")
FILES = {"items": "items.jsonl", "pairs": "train.csv", "test_pairs": "test.csv", "images": "images"}

# A row of the version before CellRow, as its cell.json held it.
FORMER = """{"format": 1, "key": "KEY", "run_key": "b1946ac92492", "vectors_keys": ["591785b794601e21"], "arm": "tfidf",
"also": [], "seed": 0, "axes": {"llm": null, "vision": null, "mllm": null, "connector": null, "fusion": null, "loss": null,
"variant": null, "baseline": "tfidf", "inference": "both", "trained": false, "setting": {"head.width": null}}, "state": "done",
"reason": "", "hint": "", "metrics": {"recall@1": {"value": 0.5, "low": null, "high": null, "optimistic": 0.5}},
"buckets": [{"name": "all", "rule": "", "pairs": 4, "queries": 4, "metrics": {"mrr": {"value": 0.5, "low": 0.1, "high": 0.9, "optimistic": 0.6}}}],
"costs": {"parameters": 0, "train_s": 0.0, "steps": 0, "embed_ms_item": 0.25, "peak_memory_mb": null}, "saliency": null,
"files": {"ranks": "cells/KEY/ranks.parquet", "vectors": "cells/KEY/vectors.parquet", "run": null},
"data": {"items": "d1", "pool": null}, "versions": {"python": "3.11.9"}, "threads": 1, "device": "cpu", "command": "n2kit bench x",
"queries": 4, "pool": 20, "pairs_beyond": 0, "pairs_left_out": 1, "items_skipped": 1, "skipped": ["no.png: not there"],
"no_saliency": "none to be had", "notes": ["no validation pairs"]}"""


def test_importing_the_package_is_light() -> None:
    code = "import sys, n2kit.bench; sys.exit(bool({'torch', 'pydantic', 'numpy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        _ = bench.runs  # type: ignore[attr-defined]


@pytest.mark.usefixtures("at_workspace")
def test_a_matrix_as_a_call(tmp_path: Path) -> None:
    """From a dict, with paths beside it; the same call goes on; a spec and a dict name the same cells."""
    matrix: dict[str, Any] = {"baselines": "tfidf", "items": "not-this.jsonl", "ks": [1, 5]}
    seen: list[BenchEvent] = []
    result = bench.run(matrix, tmp_path / "out", **FILES, on_event=seen.append)
    (row,) = result.rows
    assert (row.state, row.arm, sorted(row.metrics)[-1]) == ("done", "tfidf", "recall@5")
    assert result.counts == {"done": 1, "failed": 0, "refused": 0, "open": 0}
    assert (result.failed, result.report_problem, len(result.report)) == ([], None, 4)
    (start,) = (e for e in seen if isinstance(e, MatrixStarted))
    assert start.to_json() == {"event": "matrix", "cells": 1, "open": 1, "refused": 0}
    assert [e.to_json() for e in seen if isinstance(e, RowWritten)] == [
        {"event": "row", "key": row.key, "arm": "tfidf", "seed": 0, "state": "done", "worker": 0}
    ]
    assert [e.to_json()["event"] for e in seen] == ["matrix", "task", "phase", "row", "task_end"]
    assert json.loads((tmp_path / "out" / "results.jsonl").read_text()) == row.to_dict()
    spec = MatrixSpec.model_validate(matrix)
    assert bench.run(spec, tmp_path / "out", **FILES).rows == result.rows
    assert bench.prepare(spec, tmp_path / "out", data=FILES).preview().states == ["done"]


def test_a_wrong_matrix_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="matrix: variants: there is no such key; did you mean variant"):
        bench.run({"variants": ["basic"]}, tmp_path)
    with pytest.raises(BadInput, match="no matrix file"):
        bench.run("nowhere.yaml", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("at_workspace")
def test_the_python_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    files = {name: str(Path(path).absolute()) for name, path in FILES.items()}
    monkeypatch.chdir(tmp_path)
    Path("matrix.yaml").write_text(json.dumps({"baselines": ["tfidf"]} | files))
    exec(compile(code, "bench.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[0] == "{'done': 1, 'failed': 0, 'refused': 0, 'open': 0}"


def test_rows_of_the_version_before_are_read_and_written_alike(tmp_path: Path) -> None:
    """cell.json by the bench, results.jsonl by the report; whatever was there is there again, null or not."""
    (cell,) = cells(variant="basic")
    raw = json.loads(FORMER.replace("KEY", cell.key))
    store = Store(tmp_path)
    home = store.cell_folder(cell.key)
    home.mkdir(parents=True)
    (home / "cell.json").write_text(json.dumps(raw))
    (home / "ranks.parquet").write_bytes(b"PAR1 PAR1")
    row = store.read_row(cell.key)
    assert row.to_dict() == raw
    assert store.read(cell) == row.updated(arm=cell.arm, axes=dict(cell.axes))
    (written,) = store.collect([cell])
    assert written.to_dict().keys() == raw.keys()
    (read,) = read_results(tmp_path).rows
    assert read == written
    assert read.path == home / "cell.json"


def test_a_row_without_a_result_has_the_keys_that_every_row_has() -> None:
    (cell,) = cells(variant="basic")
    row = Store(Path("out")).new_row(cell)
    assert list(row.to_dict()) == list(json.loads(FORMER))[: list(json.loads(FORMER)).index("files") + 1]
    assert "threads" in row.updated(threads=2).to_dict()
    with pytest.raises(ValueError, match="seed"):
        row.updated(seed="many")
    assert isinstance(row, CellRow)
