"""Several processes: validated, stopped and gone on with as one, and the LLM's blocks spread over them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import forks
from n2kit.errors import BadInput
from n2kit.recipe.settings import resolve
from n2kit.train import distributed
from n2kit.train.shards import requested_by_launcher
from n2kit_cli.main import _interrupted
from stand_ins import python
from steps import alone, together, weights


@pytest.fixture
def mixed(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> list[str | Path]:
    """A training whose processes have unlike shares: items twice in a step, pairs without a picture, texts of unlike length."""
    rows = [json.loads(line) for line in (workspace / "items.jsonl").read_text().splitlines()][:8]
    rows += [{"id": f"t{n}", "title": "a longer text " * n} for n in range(1, 7)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    pairs = [
        ("noto:1f600", "twemoji:0"),
        ("noto:1f600", "t1"),
        ("t1", "t2"),
        ("t3", "t4"),
        ("t5", "t6"),
        ("noto:1", "twemoji:1"),
    ]
    (tmp_path / "pairs.csv").write_text("".join(f"{a},{b}\n" for a, b in pairs))
    (tmp_path / "val.csv").write_text("noto:2,twemoji:2\nnoto:3,twemoji:3\nnoto:1,t5\n")
    return [
        "train", tiny_bundle, "--items", tmp_path / "items.jsonl", "--pairs", tmp_path / "pairs.csv", "--val-pairs", tmp_path / "val.csv",
        "--images", workspace / "images", "--max-steps", "3", "--batch-size", "4", "--lr", "1e-3", "--device", "cpu", "--json",
        "--set", "train.precision=fp32", "--set", "train.log_steps=1", "--set", "train.warmup=0", "--set", "train.save_steps=1",
        "--set", "train.eval_steps=1", "--set", "train.patience=9",
    ]  # fmt: skip


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def back_to(folder: Path, step: int) -> None:
    """As if the run had been killed after a step."""
    shutil.rmtree(folder / "bundle")
    (folder / "result.json").unlink()
    for checkpoint in (folder / "checkpoints").glob("checkpoint-*"):
        if int(checkpoint.name.rpartition("-")[2]) > step:
            shutil.rmtree(checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        ["--set", "train.fsdp=true"],
        [
            "--set",
            "train.fsdp=true",
            "--set",
            "train.grad_cache=2",
            "--set",
            "train.checkpointing=true",
            "--tune",
            "llm=lora:2",
        ],
        ["--set", "train.fsdp=false", "--set", "train.grad_cache=2"],
    ],
    ids=["fsdp", "fsdp-lora-chunks", "copies"],
)
def test_two_processes_validate_resume_and_end_as_one(
    how: list[str], mixed: list[str | Path], tmp_path: Path, cli: Any
) -> None:
    single = cli(*mixed, *[word.replace("fsdp=true", "fsdp=false") for word in how], "-o", tmp_path / "one")
    assert single.code == 0, single.err
    done = together(2, [*mixed, *how, "-o", tmp_path / "two"], alone(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = weights(tmp_path / "one" / "bundle"), weights(tmp_path / "two" / "bundle")
    assert one.keys() == two.keys()
    off = torch.cat([(one[k].float() - two[k].float()).abs().flatten() for k in one])
    assert off.quantile(0.999) < 1e-6
    assert off.max() < 1e-4  # of a gradient that is nothing but rounding, AdamW makes a step like any other
    for a, b in zip(events(single.out), events(done.stdout), strict=True):
        assert a["event"] == b["event"]
        for name in ("loss", "grad_norm", "eval_recall@1", "eval_recall@10", "best_step", "frozen"):
            assert a.get(name) == (
                pytest.approx(b[name], rel=1e-4, abs=1e-5) if name in a and name != "frozen" else b.get(name)
            )
    back_to(tmp_path / "two", 2)
    again = together(2, [*mixed, *how, "-o", tmp_path / "two"], alone(tmp_path))
    assert again.returncode == 0, again.stderr[-3000:]
    assert events(again.stdout)[-1]["resumed_from"] == 2
    resumed = weights(tmp_path / "two" / "bundle")
    assert all(torch.equal(two[k], resumed[k]) for k in two)


@pytest.mark.slow
def test_a_launcher_that_is_told_to_stop_leaves_a_checkpoint(mixed: list[str | Path], tmp_path: Path) -> None:
    """SIGTERM to torchrun, as a scheduler sends it: the processes save together, and the command that goes on has the launcher."""
    folder, environment = tmp_path / "two", alone(tmp_path) | python(forks.server().name, tmp_path)
    endless = ["1000" if word == "3" else word for word in mixed]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "n2kit_cli.main"]
    command = [*launcher, *endless, "-o", folder]
    with forks.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as running:  # fmt: skip
        while not any((folder / "checkpoints").glob("checkpoint-*")):
            assert running.poll() is None
            time.sleep(0.05)
        running.terminate()
        said = running.communicate(timeout=120)[1]
    assert "a checkpoint is saved" in said
    assert f"torchrun --nproc-per-node 2 -m n2kit_cli.main train {mixed[1]} " in said
    steps = [e["step"] for e in events((folder / "events.jsonl").read_text()) if e["event"] == "step"]
    assert (folder / "checkpoints" / f"checkpoint-{steps[-1]}" / "state.json").is_file()
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_accelerate_launch_asks_for_shares(mixed: list[str | Path], tmp_path: Path) -> None:
    """The variable that `accelerate launch --use_fsdp` sets is taken for train.fsdp, and accelerate itself does not shard."""
    options = ["--use_fsdp", "--fsdp_version", "2", "--num_processes", "2", "--main_process_port", "0"]
    launcher = ["accelerate.commands.launch", *options]
    environment = alone(tmp_path) | python(forks.server().name, tmp_path) | {"ACCELERATE_USE_CPU": "true"}
    done = forks.run(["-m", *launcher, "-m", "n2kit_cli.main", *mixed, "-o", tmp_path / "two"], env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert next(e for e in events(done.stdout) if e["event"] == "start")["processes"] == 2
    assert "fsdp: true" in (tmp_path / "two" / "recipe.yaml").read_text()


def test_the_command_that_goes_on_asks_for_shares_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is torchrun's, of which accelerate's launcher knows nothing; without shares it would be another run."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("N2KIT_TRAIN__FSDP", "false")
    assert requested_by_launcher()
    assert "ACCELERATE_USE_FSDP" not in os.environ
    _interrupted(["train", "models/mine"])
    printed = capsys.readouterr().err
    assert "N2KIT_TRAIN__FSDP=true torchrun --nproc-per-node 2 -m n2kit_cli.main train models/mine" in printed
    assert resolve().recipe.train.fsdp


def test_shares_need_several_processes(mixed: list[str | Path], tmp_path: Path, cli: Any) -> None:
    done = cli(*mixed, "--set", "train.fsdp=true", "-o", tmp_path / "one")
    assert done.code == 2
    assert "train.fsdp spreads the LLM over several processes, and there is one" in done.err
    assert "hint: torchrun" in done.err


def test_pairs_are_divided_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    distributed.check_divisible(8, 4)
    with pytest.raises(BadInput, match="train.batch_size 6 cannot be divided among 4 processes"):
        distributed.check_divisible(6, 100)
    with pytest.raises(BadInput, match="3 pairs cannot be divided among 4 processes"):
        distributed.check_divisible(8, 3)
