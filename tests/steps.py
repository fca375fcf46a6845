"""Helpers that several tests of training steps share."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

import forks
from n2kit.train.step import TrainStep


def gradients(step: TrainStep, inputs: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the gradient of every parameter that gets one."""
    step.zero_grad()
    wanted = {"exclude", "item_index", *step.model.loss.extra_inputs} & inputs.keys()
    out = step(inputs["batch"], **{name: inputs[name] for name in wanted})
    out["loss"].backward()
    found = {name: p.grad.clone() for name, p in step.named_parameters() if p.grad is not None}
    return out["loss"].detach(), found


def assert_same(
    one: tuple[Tensor, dict[str, Tensor]], two: tuple[Tensor, dict[str, Tensor]], off: float = 1e-5
) -> None:
    assert abs(one[0] - two[0]) < off
    assert one[1].keys() == two[1].keys()
    worst = max((one[1][k] - two[1][k]).abs().max() / one[1][k].abs().max().clamp_min(1) for k in one[1])
    assert worst < off


def weights(folder: str | Path) -> dict[str, Tensor]:
    root = Path(folder)
    return {
        f"{f.relative_to(root)}:{k}": v for f in sorted(root.rglob("*.safetensors")) for k, v in load_file(f).items()
    }


def first_gradient(run: Path) -> dict[str, Tensor]:
    """A run's gradient at its first step, as AdamW's first moments have it: times 1 − β₁, and clipped."""
    moments = load_file(run / "checkpoints" / "checkpoint-1" / "optimizer.safetensors")
    return {name: moment for name, moment in moments.items() if name.endswith("exp_avg")}


def alone(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "N2KIT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def together(
    processes: int, arguments: list[str | Path], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """A command of n2kit in several processes, each told what torchrun would tell it; one that fails ends the others."""
    command: list[str | Path] = ["-m", "n2kit_cli.main", *arguments]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        ranks = []
        for rank in range(processes):
            told = {name: str(value) for name, value in {**group, "RANK": rank, "LOCAL_RANK": rank}.items()}
            ranks.append(forks.Popen(command, env=environment | told, stdout=out, stderr=err))
        code, left = 0, time.monotonic() + 300
        while any(rank.poll() is None for rank in ranks) and time.monotonic() < left:
            if not code and (code := next((r.returncode for r in ranks if r.returncode), 0)):
                left = time.monotonic() + 10  # to fail by themselves
            time.sleep(0.01)
        for rank in ranks:
            rank.kill()
        code = code or next((r.returncode for r in ranks if r.wait()), 0)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


def by_one_and_by_two(
    cli: Any, arguments: list[str | Path], tmp_path: Path
) -> tuple[list[dict[str, Tensor]], list[tuple[dict[str, Any], dict[str, Any]]]]:
    """A training by one process and by two: both bundles' weights, and both logs' steps side by side."""
    single = cli(*arguments, "-o", tmp_path / "one", "--json")
    assert single.code == 0, single.err
    done = together(2, [*arguments, "-o", tmp_path / "two", "--json"], alone(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = ([json.loads(line) for line in out.splitlines()] for out in (single.out, done.stdout))
    steps = [(a, b) for a, b in zip(one, two, strict=True) if a["event"] == "step"]
    assert steps
    return [weights(tmp_path / name / "bundle") for name in ("one", "two")], steps
