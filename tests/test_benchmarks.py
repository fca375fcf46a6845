"""The benchmarks' own arithmetic: FLOPs that are counted, the ceiling that they are held against, and the naive arm."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    import importlib

    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load


def test_flops_are_those_of_the_products(script: Any) -> None:
    """Forward 2 for each weight and token; in full, backward twice as much again; frozen, once: no weight's gradient."""
    scaling = script("scaling")
    cpu = torch.device("cpu")
    tokens, counted = 2 * 50, {}
    for tune in ("full", "frozen"):
        model = scaling.shaped("tiny", tune, cpu, torch.float32)
        weights = sum(m.weight.numel() for m in model.llm.modules() if isinstance(m, torch.nn.Linear))
        x = torch.randn(2, 50, 64, requires_grad=True)
        counted[tune] = scaling.flops(lambda model=model, x=x: model.llm(x).sum().backward())
    assert counted["full"] - counted["frozen"] == 2 * weights * tokens
    assert counted["frozen"] == pytest.approx(4 * weights * tokens, rel=0.2)  # and attention's own
    assert scaling.flops(lambda: torch.randn(8, 4) @ torch.randn(4, 2)) == 2 * 8 * 4 * 2


def test_the_share_of_the_ceiling_is_a_share(script: Any) -> None:
    scaling = script("scaling")
    row = scaling.utilisation("tiny", "lora:2", 2, torch.device("cpu"), torch.float32, 256)
    assert 0 < row["mfu"] < 1
    assert row["ceiling_tflops"] > 0
    assert row["tokens"] > row["items"] > 2


def test_weights_of_a_shape_are_made_in_their_type(script: Any) -> None:
    scaling = script("scaling")
    model = scaling.shaped("tiny", "lora:2", torch.device("cpu"), torch.bfloat16)
    types = {p.dtype for p in model.llm.parameters() if not p.requires_grad}
    assert types == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert torch.get_default_dtype() == torch.float32


def test_every_arm_of_the_step_has_the_naive_loss_and_gradients(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import argparse

    step = script("train_step")
    monkeypatch.setattr(sys.modules["synthetic"], "LARGEST", 8)  # words: far from the longest that a prompt may be
    options = argparse.Namespace(
        llm="qwen:tiny", vision="siglip:tiny", connector="mlp:4", variant="notellm2", tune="frozen", template="en",
        items=None, pairs=None, images=None, batch_size=4, steps=1, parts=2, compare=4, brief=False, bf16=False, threads=1,
    )  # fmt: skip
    result = step.measure(options, tmp_path)
    exact = [row for row in result["arms"] if "bf16" not in row["arm"]]
    assert exact[0]["arm"] == "naive"
    assert len(exact) == 8
    assert all(row["loss_off"] < 1e-5 and row["gradient_off"] < 1e-5 for row in exact)
    work = {row["arm"]: row["gflop_a_pair"] for row in exact}
    assert list(work.values()) == sorted(work.values(), reverse=True)  # no trick takes more than the arm before it
    assert work["+ padding trimmed"] < 0.8 * work["+ features cached"]
    assert work["+ start shared"] < work["+ sorted, by token budget"]
    assert "times naive" in step.table(result)


def test_saliency_is_drawn_by_encoder_and_variant(script: Any, tmp_path: Path) -> None:
    saliency = script("saliency")
    layers = [[[1.0, 2.0, 1.0], [3.0, 1.0, 0.0]], [[2.0, 1.0, 1.0], [1.0, 3.0, 0.0]]]
    rows: list[dict[str, Any]] = [
        {"state": "done", "axes": {"vision": "clip@file:/x/clip", "variant": "basic"}, "saliency": {"layers": each}}
        for each in layers
    ]
    rows.append({"state": "failed", "axes": {"vision": "clip", "variant": "micl"}})
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = saliency.read(tmp_path)
    assert {vision: list(variants) for vision, variants in found.items()} == {"clip": ["basic"]}
    assert [share.tolist() for share in found["clip"]["basic"]] == [[0.25, 0.75], [0.5, 0.25]]
    saliency.draw(found, tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_command_that_is_stopped_is_told_from_one_that_ends_otherwise(script: Any, tmp_path: Path) -> None:
    interruptions = script("interruptions")
    writes = "import pathlib, sys; out = pathlib.Path(sys.argv[1], 'x'); "

    def tried(code: str, way: str) -> Any:
        command = interruptions.Command(lambda out: ["-c", writes + code, out], ("x",), seconds=0.01)
        for folder in ("once", "out"):
            (tmp_path / way / folder).mkdir(parents=True)
        interruptions.finish(command.arguments(tmp_path / way / "once"))
        command.expected = interruptions.digest(tmp_path / way / "once", command)
        tally = interruptions.Tally(trials=1)
        interruptions.trial(command, way, tmp_path / way / "out", interruptions.random.Random(0), tally)
        shutil.rmtree(tmp_path / way)
        return tally

    assert not tried("out.write_text('1')", "SIGKILL").differences
    assert not tried("out.write_text('1')", "two at once").differences
    wrong = tried("out.open('a').write('1'); out.with_name('.half').touch()", "two at once")
    assert wrong.differences == ["another result than an unbroken run's", "left behind: .half"]
    table = interruptions.table({("index", "two at once"): wrong})
    assert "2 differences" in table
    assert "- index, two at once: left behind: .half" in table
