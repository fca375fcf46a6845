"""n2kit bench: each cell once, whatever happens in between."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import forks
from alone import alone
from bench_tasks import Broken, Full, Killed, Works
from n2kit.bench.matrix.cell import Cell
from n2kit.bench.matrix.data import read_data
from n2kit.bench.matrix.expand import expand
from n2kit.bench.matrix.spec import MatrixSpec
from n2kit.bench.runner.context import BenchContext
from n2kit.bench.runner.local import run_local
from n2kit.bench.runner.store import Store
from n2kit.errors import Unavailable

DATA = ("--items", "items.jsonl", "--pairs", "train.csv", "--test-pairs", "test.csv", "--images", "images")
TINY = ("--llm", "qwen:tiny", "--vision", "siglip:tiny", "--connector", "qformer:tiny", "--max-steps", "1")
RESULT = ("state", "metrics", "buckets", "saliency", "queries", "pool", "seed", "arm", "axes", "data")


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def alike(one: Path, other: Path) -> None:
    """The same cells with the same results, to the bit."""
    a, b = ({row["key"]: row for row in rows(out)} for out in (one, other))
    assert list(a) == list(b)
    for key, row in a.items():
        assert {name: row.get(name) for name in RESULT} == {name: b[key].get(name) for name in RESULT}
        for name in ("ranks", "vectors"):
            assert pq.read_table(one / row["files"][name]).equals(pq.read_table(other / b[key]["files"][name]))


@pytest.fixture
def bench(workspace: Path, tmp_path: Path) -> tuple[BenchContext, list[Cell]]:
    """A matrix of six cells in tmp_path, and those."""
    files = {"items": "items.jsonl", "pairs": "train.csv", "test_pairs": "test.csv", "images": "images"}
    matrix = MatrixSpec.model_validate(
        {"llm": "qwen:tiny", "variant": "text_only", "seeds": 6} | {k: workspace / v for k, v in files.items()}
    )
    data, _ = read_data(matrix)
    store = Store(tmp_path / "out")
    store.claim(data.digests)
    return BenchContext(matrix, data, store), expand(matrix, data.digests)


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_cells_are_run_once_and_arms_can_be_added(cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = cli("bench", *DATA, *TINY, "--variant", "text_only", "-o", out)
    assert (first.code, len(rows(out))) == (0, 1), first.err
    more = cli("bench", *DATA, *TINY, "--variant", "text_only,notellm2", "-o", out)
    assert "2 cells, 1 to run" in more.err
    text, joined = rows(out)
    assert text["axes"]["vision"] is None
    assert joined["arm"] == "qwen:tiny+siglip:tiny+qformer:tiny+gate+notellm2"
    for row in (text, joined):
        assert row["state"] == "done"
        assert set(row["metrics"]["recall@1"]) == {"value", "low", "high", "optimistic"}
        assert all((out / row["files"][name]).is_file() for name in ("ranks", "vectors"))
        assert not list((out / row["files"]["run"]).glob("**/*.safetensors"))  # weights of every cell would fill a disk
        assert row["costs"]["trained_parameters"] > 0
        assert row["costs"]["peak_memory_mb"] > 0
    assert "2 cells, 0 to run" in cli("bench", out / "matrix.yaml", "-o", out).err
    assert {f.name for f in out.iterdir()} >= {"matrix.yaml", "env.json", "report.html", "results.md", "results.csv"}
    assert [row["arm"] for row in rows(out)] == [text["arm"], joined["arm"]]
    assert cli("bench", *DATA, *TINY, "--variant", "notellm2", "-o", out).code == 0
    assert [row["arm"] for row in rows(out)] == [joined["arm"]]  # results are the matrix's that was run last


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_a_training_that_is_kept_serves_cells_without_a_row(cli: Any, tmp_path: Path) -> None:
    """One that a kill came before, and an arm that is added later."""
    out, file = tmp_path / "out", tmp_path / "matrix.yaml"
    file.write_text("variant: notellm2\n")
    command = ("bench", file, *DATA, *TINY, "-o", out, "--keep-bundles")
    assert cli(*command).code == 0
    (before,) = rows(out)
    (out / "cells" / before["key"] / "cell.json").unlink()
    file.write_text("variant: notellm2\narms: [{name: blind, inference: no-image}]\n")
    done = cli(*command)
    assert done.code == 0, done.err
    again, blind = rows(out)
    assert (again["metrics"], again["costs"]["train_s"]) == (before["metrics"], before["costs"]["train_s"])
    assert (blind["state"], blind["files"]["run"]) == ("done", before["files"]["run"])
    assert not list((out / "runs").glob(".start-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_other_measures_are_taken_of_the_vectors_that_are_kept(cli: Any, tmp_path: Path) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    command = (
        "bench",
        *DATA,
        "--llm",
        "qwen:tiny",
        "--variant",
        "text_only",
        "--baselines",
        "tfidf",
        "--max-steps",
        "1",
    )
    assert cli(*command, "-o", out).code == 0
    trained = rows(out)[0]
    events = (out / trained["files"]["run"] / "events.jsonl").read_bytes()
    other = (*command, "--k", "2,5", "--bootstrap", "50", "--protocol", "standard")
    planned = json.loads(cli(*other, "-o", out, "--dry-run", "--json").out)
    assert ([cell["state"] for cell in planned["cells"]], planned["trainings"]) == (["kept", "kept"], 0)
    done = cli(*other, "-o", out)
    assert done.code == 0, done.err
    assert cli(*other, "-o", fresh).code == 0
    alike(out, fresh)
    again = rows(out)[0]
    assert "recall@5" in again["metrics"]
    assert again["key"] != trained["key"]
    assert again["costs"] == trained["costs"]
    assert (out / again["files"]["run"] / "events.jsonl").read_bytes() == events
    (out / again["files"]["ranks"]).unlink()  # lost: measured once more
    assert cli(*other, "-o", out).code == 0
    alike(out, fresh)
    assert (out / again["files"]["run"] / "events.jsonl").read_bytes() == events
    for row in (trained, again):
        (out / row["files"]["vectors"]).write_bytes(b"no vectors, but at its end PAR1")
    (out / "cells" / "other").mkdir()
    (out / "cells" / "other" / "cell.json").write_text("{}")
    last = cli(*command, "--k", "3", "-o", out)
    assert "is run again" in last.err
    assert rows(out)[0]["state"] == "done"


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_a_dry_run_of_a_training_that_watches_leaves_nothing(cli: Any, tmp_path: Path) -> None:
    """A probe takes no part in ending a training by its validation, nor in telling others of it."""
    watched = ("--val-pairs", "test.csv", "--set", "train.patience=2", "--set", "train.loggers=[tensorboard]")
    command = ("bench", *DATA, "--llm", "qwen:tiny", "--variant", "text_only", *watched, "--dry-run", "--json")
    planned = json.loads(cli(*command, "-o", tmp_path / "out").out)
    assert (planned["notes"], planned["seconds"] > 0) == ([], True)


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_saliency_leaves_out_what_cannot_be_read(cli: Any, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree("images", images)
    (images / "noto_11.png").write_text("no picture")  # of a test pair
    done = cli(
        "bench", *DATA[:-2], "--images", images, *TINY, "--variant", "basic", "--set", "llm.attention=eager", "--saliency", "2",
        "--on-bad-image", "text-only", "-o", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    (row,) = rows(tmp_path / "out")
    assert row["saliency"] is None
    assert "two pairs that share no item" in row["no_saliency"]


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_a_cell_without_one_readable_picture_is_measured_by_its_texts(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    done = cli(
        "bench", *DATA[:-2], "--images", tmp_path / "images", "--preset", "quick", "--llm", "qwen:tiny", "--vision", "siglip:tiny",
        "--connector", "qformer:tiny", "--max-steps", "1", "--variant", "text_only,basic", "--on-bad-image", "text-only",
        "-o", tmp_path / "out",
    )  # fmt: skip
    found = {row["axes"]["variant"] or row["axes"]["baseline"]: row["state"] for row in rows(tmp_path / "out")}
    assert (found["text_only"], found["basic"]) == ("done", "done"), done.err
    for said in (done.err, (tmp_path / "out" / "results.md").read_text()):
        assert said.count("24 items could not be used as they are (") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_refused_cells_say_why_and_stop_nothing(cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli("bench", *DATA, *TINY, "--variant", "micl,basic", "--llm", "bert:tiny", "-o", out)
    assert done.code == 0, done.err
    assert [row["state"] for row in rows(out)] == ["refused", "done"]
    assert "needs a causal LLM" in rows(out)[0]["reason"]
    assert "refused: bert:tiny+siglip:tiny+qformer:tiny+micl, seed 0: variant micl needs a causal LLM" in done.err
    assert (
        cli("bench", *DATA, *TINY, "--variant", "micl", "--llm", "bert:tiny", "-o", out).code == 2
    )  # nothing can be run
    page = (out / "report.html").read_text()  # and the page is about that, not about what was run before
    assert "needs a causal LLM" in page
    assert "No cell is finished yet" in page


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_a_dry_run_lists_and_estimates_and_leaves_nothing(cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen = cli("bench", *DATA, *TINY, "--variant", "text_only,micl", "--seeds", "2", "-o", out, "--dry-run")
    assert (seen.code, out.exists()) == (0, False), seen.err
    assert "4 cells to run, with 4 trainings; features are computed once for siglip:tiny" in seen.err
    assert re.search(r"about [\d.]+ s", seen.err)
    assert not list(Path(os.environ["N2KIT_CACHE"]).glob("features/*/*/*"))
    listed = json.loads(cli("bench", *DATA, *TINY, "--variant", "notellm2", "-o", out, "--dry-run", "--json").out)
    assert (listed["cells"][0]["state"], listed["seconds"] > 0) == ("open", True)


@pytest.mark.usefixtures("at_workspace")
def test_a_dry_run_goes_on_where_a_probe_fails(cli: Any, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree("images", images)
    for file in images.glob("*.png"):
        file.write_text("no picture")
    command = ("bench", *DATA[:-2], "--images", images, *TINY, "--variant", "text_only,basic", "--dry-run", "--json")
    seen = cli(*command, "-o", tmp_path / "out")
    assert seen.code == 0, seen.err
    listed = json.loads(seen.out)
    assert [cell["state"] for cell in listed["cells"]] == ["open", "open"]
    assert listed["seconds"] > 0  # of the text alone
    assert ["basic could not be probed" in note and "not an image" in note for note in listed["notes"]] == [True], (
        listed["notes"]
    )


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_the_quick_preset_has_a_few_arms_and_baselines(cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli("bench", "--preset", "quick", *DATA, *TINY, "-o", out)
    assert done.code == 0, done.err
    assert [row["axes"]["variant"] or row["axes"]["baseline"] for row in rows(out)] == [
        "text_only", "basic", "notellm2", "tfidf", "vision", "concat-std", "whitened"
    ]  # fmt: skip
    assert {row["state"] for row in rows(out)} == {"done"}
    assert all((out / row["files"]["vectors"]).is_file() for row in rows(out))


@pytest.mark.usefixtures("at_workspace")
def test_a_warning_stands_on_a_line_of_its_own(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = ("bench", "--baselines", "tfidf", *DATA, "-o", tmp_path / "out")
    assert "Warning" not in cli(*matrix).err
    monkeypatch.setattr("n2kit.bench.report.warning", lambda board: f"Warning: {board.best.label}")
    assert "\nWarning: tfidf\n" in cli(*matrix).err


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_a_failing_cell_stops_nothing_and_can_be_tried_again(cli: Any, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "matrix.yaml"
    file.write_text(
        "variant: text_only\narms:\n- {name: wild, variant: text_only, settings: {train.lr: 1e+30, train.new_lr: 1e+30}}\n"
    )
    wild = ("bench", file, *DATA, *TINY[:2], "--max-steps", "9", "-o", out)
    done = cli(*wild)
    assert done.code == 1, done.err
    good, bad = rows(out)
    assert (good["state"], bad["state"]) == ("done", "failed")
    assert re.search(r"is (nan|inf) at step|not finite", bad["reason"]), bad["reason"]
    assert "(wild), seed 0: " in done.err
    assert "2 cells, 0 to run" in cli(*wild).err
    assert "2 cells, 1 to run" in cli(*wild, "--retry-failed").err


@pytest.mark.slow
def test_a_process_that_dies_ends_its_own_cells_alone(bench: tuple[BenchContext, list[Cell]]) -> None:
    shared, (a, b, c, d, e, f) = bench
    tasks = [Works((a,)), Killed((b, c)), Works((d,)), Broken((e,)), Works((f,))]
    run_local(shared, tasks, jobs=2, threads=1)
    found = {cell.seed: row for cell in (a, b, c, d, e, f) if (row := shared.store.read(cell)) is not None}
    assert {seed: row.state for seed, row in found.items()} == {
        0: "done", 1: "failed", 2: "failed", 3: "done", 4: "failed", 5: "done"
    }  # fmt: skip
    assert "killed the process by SIGKILL (out of memory?)" in found[1].reason
    assert found[4].reason == "RuntimeError: nobody saw that coming"


@pytest.mark.slow
def test_a_full_disk_stops_the_matrix_and_fails_no_cell(bench: tuple[BenchContext, list[Cell]]) -> None:
    shared, cells = bench
    with pytest.raises(Unavailable, match="No space left"):
        run_local(
            shared, [Works(tuple(cells[:1])), Full(tuple(cells[1:2])), Works(tuple(cells[2:]))], jobs=1, threads=1
        )
    assert [shared.store.read(cell) is not None for cell in cells] == [True, *[False] * 5]


INTERRUPTED = """
import os
from bench_tasks import Full
from n2kit.bench.runner import local, machine
os.setpgid = lambda *_: None  # this one leads a session
class Pipe:
    def send(self, event):
        raise KeyboardInterrupt
machine.prepare = lambda bench, *_: bench
local.replace = lambda bench, **_: bench
local._die_with_parent = lambda: None
local._work(None, Full(()), Pipe(), dict(os.environ), 1, 0)
"""


def test_a_task_that_is_interrupted_while_it_reports_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where several tasks find the disk full at once, and the first one's report ends the others."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    done = forks.run(["-c", INTERRUPTED])
    assert (done.returncode, done.stderr) == (130, "")


# ---- interrupted


def started(folder: Path, out: Path, *arguments: str) -> forks.Popen:
    command = ["-m", "n2kit_cli.main", "bench", *DATA, *arguments, "-o", out]
    return forks.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_until(true: Callable[[], object], process: forks.Popen) -> None:
    end = time.monotonic() + 600
    while not true():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def checkpoints(out: Path) -> list[Path]:
    return list(out.glob("runs/*/checkpoints/checkpoint-*/trainer_state.json"))


def steps(out: Path) -> list[int]:
    """The steps that have a checkpoint."""
    return [int(file.parent.name.rpartition("-")[2]) for file in checkpoints(out)]


@pytest.mark.slow
def test_a_matrix_killed_twice_equals_an_unbroken_one(at_workspace: Path, tmp_path: Path, cli: Any) -> None:
    """9 cells of 6 trainings; the broken run has two processes, the unbroken one has one."""
    file = tmp_path / "matrix.yaml"
    file.write_text(
        "llm: qwen:tiny\nvision: siglip:tiny\nconnector: qformer:tiny\nvariant: [basic, notellm2]\n"
        "seeds: 3\nsettings: {train.max_steps: 6, train.save_steps: 2, head.width: 16}\nsaliency: 4\n"
        "arms: [{name: without image, inference: no-image}]\n"
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    two = (str(file), "--jobs", "2", "--threads", "1")

    def over() -> int:
        file = broken / "results.jsonl"  # whose last line may be half written
        return file.read_bytes().count(b"\n") if file.is_file() else 0

    for many in (1, 4):
        process = started(at_workspace, broken, *two)
        wait_until(lambda many=many: over() >= many and checkpoints(broken), process)  # type: ignore[misc]
        process.kill()
        process.communicate()
        assert 0 < len(list(broken.glob("cells/*/cell.json"))) < 9
    for out, arguments in ((broken, two), (whole, (str(file), "--threads", "1"))):
        done = cli("bench", *DATA, *arguments, "-o", out)
        assert done.code == 0, done.err
    assert len(rows(whole)) == 9
    assert len({row["run_key"] for row in rows(whole)}) == 6
    alike(whole, broken)
    assert not list(broken.glob("runs/*/checkpoints"))


@pytest.mark.slow
def test_ctrl_c_and_sigterm_save_and_the_same_command_goes_on(at_workspace: Path, tmp_path: Path, cli: Any) -> None:
    out = tmp_path / "out"
    arguments = (*TINY[:6], "--max-steps", "100", "--set", "train.save_steps=25", "--variant", "notellm2")
    last = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = started(at_workspace, out, *arguments)
        wait_until(lambda last=last: max(steps(out), default=0) > last, process)  # type: ignore[misc]
        process.send_signal(number)
        said = process.communicate()[1]
        assert process.returncode == 130
        assert "stopping after this step" in said
        assert "to go on: " in said
        last = max(steps(out))
        assert last % 25  # not one that was due
    done = cli("bench", *DATA, *arguments, "-o", out)
    assert done.code == 0, done.err
    (result,) = out.glob("runs/*/result.json")
    assert json.loads(result.read_text())["resumed_from"] == last
    (row,) = rows(out)
    assert (row["state"], row["costs"]["steps"]) == ("done", 100)


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_ray_gives_the_same_results(cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    arguments = ("bench", *DATA, *TINY, "--variant", "text_only,notellm2", "--threads", "1", "-o")
    here, there = tmp_path / "here", tmp_path / "there"
    assert cli(*arguments, here).code == 0
    done = forks.run(["-m", "n2kit_cli.main", *arguments, there, "--engine", "ray", "--jobs", "2"])
    assert done.returncode == 0, done.stderr
    alike(here, there)


@pytest.mark.slow
def test_ray_tasks_that_die_end_their_own_cells_alone(
    bench: tuple[BenchContext, list[Cell]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from n2kit.bench.runner.ray import run_ray

    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # for what the tasks are
    shared, (a, b, c, d, _, _) = bench
    alone(run_ray, shared, [Works((a,)), Killed((b,)), Broken((c,)), Works((d,))], 2, 1)
    found = {cell.seed: row for cell in (a, b, c, d) if (row := shared.store.read(cell)) is not None}
    assert {seed: row.state for seed, row in found.items()} == {0: "done", 1: "failed", 2: "failed", 3: "done"}
    assert found[1].reason.startswith("its process was lost: WorkerCrashedError")
    assert found[2].reason == "RuntimeError: nobody saw that coming"
    with pytest.raises(Unavailable, match="No space left"):
        alone(run_ray, shared, [Full((b,))], 1, 1)


@pytest.mark.usefixtures("at_workspace")
def test_without_ray_one_line_says_what_to_install(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = cli("bench", *DATA, *TINY, "-o", tmp_path / "out", "--engine", "ray")
    assert (done.code, done.err.splitlines()[-2:]) == (
        3, ["error: --engine ray needs Ray, which is not installed", "hint: pip install 'n2kit[ray]'"]
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("at_workspace")
def test_the_commands_of_a_row_give_its_figures(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a cell that is not the default in anything."""
    out, file = tmp_path / "out", tmp_path / "matrix.yaml"
    file.write_text(
        "arms: [{name: blind, inference: no-image, settings: {train.lr: 1e-3, head.width: 12}}]\nseeds: [3]\n"
    )
    assert cli("bench", file, *DATA, *TINY, "--pool", "pool.csv", "-o", out).code == 0
    (row,) = rows(out)
    import shlex

    folder = tmp_path / "again"
    shutil.copytree(Path.cwd(), folder)
    monkeypatch.chdir(folder)
    for command in row["command"].split("; "):
        program, *arguments = shlex.split(command)
        assert program == "n2kit"
        done = cli(*arguments, *(["--json"] if arguments[0] == "eval" else []))
        assert done.code == 0, (command, done.err)
    assert json.loads(done.out)["metrics"] == row["metrics"]
