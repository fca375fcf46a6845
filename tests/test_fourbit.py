"""QLoRA: an adapter trained over frozen weights in 4 bits, and a bundle that needs none of it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import n2kit
from n2kit import read_items, read_pairs
from n2kit.bundle import io as bundle
from n2kit.errors import Mismatch, Unavailable
from n2kit.modeling import lora
from n2kit.recipe.settings import resolve
from n2kit.train import fourbit, train
from n2kit.train.fourbit import BLOCK, Linear4bit
from steps import weights

NF4 = [-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
       0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]  # fmt: skip
CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(48, 32), (48, 64), (48, 96), (10, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_layer_is_the_layer_of_its_rounded_weight(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """The weight is what the paper's definition gives (numbers of NF4 times a block's largest), forward and gradient are its."""
    torch.manual_seed(0)
    base = nn.Linear(shape[1], shape[0]).to(dtype)
    packed = Linear4bit(base, CPU)
    flat = base.weight.detach().float().flatten()
    blocks = nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / largest.clamp_min(1e-12))[..., None].sub(torch.tensor(NF4)).abs().argmin(-1)
    expected = (torch.tensor(NF4)[nearest] * largest).flatten()[: len(flat)].view(shape)
    assert (packed.dequantize().float() - expected).abs().max() <= (
        1e-6 if dtype == torch.float32 else 8e-3
    ) * largest.max()
    assert packed.dequantize().dtype == dtype
    x = torch.randn(5, shape[1], requires_grad=True)
    out = packed(x)
    plain = nn.functional.linear(x, packed.dequantize().float(), base.bias.float())
    assert torch.equal(out, plain)
    (one,) = torch.autograd.grad(out.square().sum(), x)
    (two,) = torch.autograd.grad(plain.square().sum(), x)
    assert (one - two).abs().max() < 1e-5
    again = packed.to_linear()
    assert torch.equal(again.weight, packed.dequantize())
    assert torch.equal(again.bias, base.bias)
    bits = sum(t.nbytes for name, t in packed.named_buffers() if name != "code") * 8 / base.weight.numel()
    assert bits <= (4.5 if base.weight.numel() % BLOCK == 0 else 5)


def test_weights_that_come_back_wrong_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes.functional

    real = bitsandbytes.functional.dequantize_4bit
    monkeypatch.setattr(bitsandbytes.functional, "dequantize_4bit", lambda *a: -real(*a))
    with pytest.raises(Unavailable, match="gives other weights back than it was given, on cpu"):
        Linear4bit(nn.Linear(8, 8), CPU)


def test_layers_of_another_kind_are_refused(tiny_bundle: Path) -> None:
    recipe = resolve({"llm.tune": "qlora:2"}, base=bundle.read_recipe(tiny_bundle), env={}).recipe
    model = bundle.load(tiny_bundle, recipe=recipe)
    layer = next(iter(lora.adapted(model.llm).values()))
    layer.base_layer = nn.Identity()
    with pytest.raises(Mismatch, match="is a Identity"):
        fourbit.quantize(model.llm, CPU)


@pytest.mark.slow
def test_a_qlora_training_saves_an_ordinary_bundle(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """It learns, frozen weights stay, it resumes bit-equal, and the bundle loads without bitsandbytes to what was validated."""
    items = read_items(workspace / "items.jsonl")
    given: dict[str, Any] = {
        "llm.tune": "qlora:4", "train.lr": 1e-2, "train.batch_size": 4, "train.max_steps": 6, "train.save_steps": 2,
        "train.log_steps": 1, "train.precision": "fp32", "train.eval_steps": 3,
    }  # fmt: skip
    recipe = resolve(given, base=bundle.read_recipe(tiny_bundle), env={}).recipe

    def run(folder: str) -> Any:
        events: list[dict[str, Any]] = []
        result = train(
            tiny_bundle, items, read_pairs(workspace / "train.csv", items), recipe, tmp_path / folder, images=workspace / "images",
            val_pairs=read_pairs(workspace / "val.csv", items), report=events.append,
        )  # fmt: skip
        return result, events

    result, events = run("run")
    losses = [e["loss"] for e in events if e["event"] == "step"]
    assert losses[-1] < losses[0]
    assert result.frozen
    before, after = weights(tiny_bundle), weights(result.bundle)
    changed = [k for k in before if k.startswith("llm/") and not torch.equal(before[k], after[k])]
    assert changed
    assert all("proj" in k and k.endswith(".weight") for k in changed)  # rounded; norms and the table are as they were
    assert any(k.startswith("llm/adapter/") for k in after)
    assert all(t.dtype != torch.uint8 for t in after.values())
    (tmp_path / "run" / "result.json").unlink()
    import shutil

    shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-6")
    again, _ = run("run")
    assert again.resumed_from == 4
    resumed = weights(again.bundle)
    assert all(torch.equal(after[k], resumed[k]) for k in after)
    script = (
        "import sys; sys.modules['bitsandbytes'] = None\n"
        "import json, n2kit\n"
        "print(json.dumps(n2kit.load(sys.argv[1]).encode([{'title': 'thing 3'}], precision='fp32').tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, result.bundle], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    here = n2kit.load(result.bundle).encode([{"title": "thing 3"}], precision="fp32")
    assert abs(torch.tensor(json.loads(done.stdout)) - torch.tensor(here)).max() < 1e-6


def test_without_bitsandbytes_the_pip_line_comes_first(
    workspace: Path, tiny_bundle: Path, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else real(name, *a)
    )
    done = cli(
        "train", tiny_bundle, "--items", workspace / "items.jsonl", "--pairs", workspace / "train.csv", "--tune", "llm=qlora:4", "-o",
        tmp_path / "run",
    )  # fmt: skip
    assert done.code == 3
    assert done.err.splitlines() == [
        "error: llm.tune qlora needs bitsandbytes, which is not installed",
        'hint: pip install "n2kit[qlora]"',
    ]
    assert not (tmp_path / "run").exists()
