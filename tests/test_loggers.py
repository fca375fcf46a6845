"""A training's words while it runs: to people, to events.jsonl, to loggers by their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from n2kit.errors import Unavailable
from n2kit.train.loggers import Logger, require_packages

TERMS = {"loss", "multimodal", "visual", "temperature", "items_per_s", "eta_s", "memory_gb", "grad_norm"}


@pytest.fixture
def command(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> list[str | Path]:
    return [
        "train", tiny_bundle, "--items", workspace / "items.jsonl", "--pairs", workspace / "train.csv", "--val-pairs", workspace / "val.csv",
        "--images", workspace / "images", "-o", tmp_path / "run", "--max-steps", "4", "--batch-size", "4", "--set", "train.log_steps=2",
    ]  # fmt: skip


def test_tensorboard_sees_what_events_see(command: list[str | Path], tmp_path: Path, cli: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = cli(*command, "--log-to", "tensorboard")
    assert done.code == 0, done.err
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    steps = [e for e in events if e["event"] == "step"]
    (recall,) = (e for e in events if e["event"] == "recall")
    assert [e["step"] for e in steps] == [2, 4]
    for name in TERMS:
        seen = board.Scalars(f"train/{name}")
        assert [(s.step, s.value) for s in seen][:2] == [(e["step"], pytest.approx(e[name], rel=1e-5)) for e in steps]
    assert [s.value for s in board.Scalars("eval/recall@10")] == [pytest.approx(recall["eval_recall@10"])]


def test_a_run_goes_on_with_other_loggers(command: list[str | Path], cli: Any) -> None:
    assert cli(*command).code == 0
    assert "was finished before" in cli(*command, "--log-to", "tensorboard").err


def test_a_logger_that_is_not_installed_is_said_before_any_work(
    command: list[str | Path], tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in ("wandb", "mlflow") else real(name, *a)
    )
    done = cli(*command, "--log-to", "tensorboard,wandb,mlflow")
    assert done.code == 3
    assert done.err.splitlines() == [
        "error: train.loggers: not installed: wandb, mlflow",
        'hint: pip install "n2kit[wandb,mlflow]"',
    ]
    assert not (tmp_path / "run").exists()
    with pytest.raises(Unavailable):
        require_packages(["wandb"])
    unknown = cli(*command, "--log-to", "comet")
    assert unknown.code == 2
    assert "train.loggers" in unknown.err


def test_a_logger_that_fails_costs_no_training(tmp_path: Path) -> None:
    notes: list[str] = []
    logger = Logger("tensorboard", tmp_path, notes.append)

    class Broken:
        def on_log(self, *_: Any, **__: Any) -> None:
            raise ConnectionError("the server went away")

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            raise PermissionError("no key")

    logger.inner = Broken()
    with pytest.raises(Unavailable, match="logger tensorboard cannot begin: PermissionError: no key"):
        logger.on_train_begin(None, None, None)
    state: Any = type("State", (), {"global_step": 7})
    for _ in range(2):
        logger.on_log(None, state, None, logs={})
    assert notes == ["logger tensorboard is left out from step 7 on: ConnectionError: the server went away"]


def test_slow_steps_are_reported_all_the_same(
    command: list[str | Path], cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2kit.train.reporter.EVERY_SECONDS", 0.0)
    done = cli(*command, "--set", "train.log_steps=100", "--json")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [e["step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4]


def test_a_line_shows_everything(command: list[str | Path], cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2kit_cli.progress.EVERY_SECONDS", 0.0)
    done = cli(*command, "--set", "train.eval_steps=2")
    (line,) = (line for line in done.err.splitlines() if line.startswith("train: 4/4"))
    for shown in ("loss ", "multimodal ", "visual ", "temperature ", "recall@10 ", " items/s", " left)", " GB"):
        assert shown in line


@pytest.mark.slow
def test_a_bar_on_a_terminal(command: list[str | Path], tmp_path: Path) -> None:
    """On a real pseudo-terminal: a bar that ends at 4/4."""
    import os
    import pty
    import subprocess

    import forks

    parent, child = pty.openpty()
    with forks.Popen(
        ["-m", "n2kit_cli.main", *command],
        stderr=child, stdout=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm", "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
    ) as running:  # fmt: skip
        os.close(child)
        shown = b""
        while True:
            try:
                chunk = os.read(parent, 4096)
            except OSError:  # the terminal is gone
                break
            if not chunk:
                break
            shown += chunk
    assert running.returncode == 0, shown.decode()
    text = shown.decode()
    assert "4/4" in text
    assert "━" in text
    assert "items/s" in text
