"""Blocks that run twice, or compiled: the same loss and gradients, and as they were afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alone import alone
from first_step import compiled_and_plain, gradients, make
from n2kit import read_items, read_pairs
from n2kit.bundle import io as bundle
from n2kit.errors import Mismatch, Unavailable
from n2kit.planning.memory import estimate
from n2kit.planning.planner import make_plan
from n2kit.recipe.settings import Train, resolve
from n2kit.train import RunResult, train
from n2kit.train.blocks import prepared_blocks


@pytest.mark.parametrize(
    ("llm", "tune", "vision", "chunk"),
    [
        ("qwen:tiny", "full", "full", None), ("qwen:tiny", "lora:4", "frozen", 3), ("gpt2:tiny", "last:1", "frozen", None),
        ("bloom:tiny", "frozen", "last:1", 3), ("mamba:tiny", "full", "frozen", None),
    ],
)  # fmt: skip
def test_checkpointing_gives_the_same_gradients_bit_for_bit(
    llm: str, tune: str, vision: str, chunk: int | None, workspace: Path
) -> None:
    """Together with a shared start, chunks, adapters, dropout (GPT-2's), and a vision encoder that is trained."""
    model = make(tune, llm, vision)
    plain = gradients(model, workspace / "images", Train(), chunk)
    thrifty = gradients(model, workspace / "images", Train(checkpointing=True), chunk)
    assert plain.keys() == thrifty.keys()
    assert all(torch.equal(plain[k], thrifty[k]) for k in plain)


def test_checkpointing_keeps_less_and_leaves_the_blocks_as_they_were(workspace: Path) -> None:
    model = make()
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.nbytes
        return tensor

    blocks = list(model.llm.blocks())
    own = [block.forward for block in blocks]
    x = torch.randn(2, 30, 32, requires_grad=True)
    for settings in (Train(), Train(checkpointing=True)):
        kept.append(0)
        with prepared_blocks(model, settings), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            model.llm(x * 1)
    assert kept[1] < kept[0] / 3
    assert [block.forward for block in blocks] == own


def test_a_backbone_without_blocks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    monkeypatch.setattr(type(model.llm), "blocks", lambda self: [])
    with pytest.raises(Mismatch, match=r"train.checkpointing works on blocks, and the llm names none"):
        prepared_blocks(model, Train(checkpointing=True)).__enter__()
    with prepared_blocks(model, Train()):
        pass


def test_blocks_whose_batch_norms_would_count_a_batch_twice_are_refused() -> None:
    model = make(vision="full")
    assert model.vision is not None
    model.vision.blocks()[0].add_module("norm", nn.BatchNorm1d(4))
    with pytest.raises(Mismatch, match=r"batch norms in the vision's would count each batch twice"):
        prepared_blocks(model, Train(checkpointing=True)).__enter__()
    model.vision.freeze()
    with prepared_blocks(model, Train(checkpointing=True)):
        pass


def test_the_plan_knows_that_checkpointing_keeps_less() -> None:
    flags = {"llm": "qwen:tiny", "vision": "siglip:tiny", "llm.tune": "full"}
    plain, thrifty = (
        estimate(make_plan(resolve(flags | {"train.checkpointing": on}, env={}).recipe)) for on in (False, True)
    )
    assert thrifty.activations < plain.activations
    assert thrifty.certain == plain.certain


def test_a_run_with_checkpointing_ends_at_the_same_weights(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    items = read_items(workspace / "items.jsonl")

    def run(**settings: Any) -> RunResult:
        given = {"train.batch_size": 4, "train.max_steps": 2, "train.lr": 1e-3, "train.precision": "fp32"}
        recipe = resolve(given | settings, base=bundle.read_recipe(tiny_bundle), env={}).recipe
        folder = tmp_path / "-".join(["run", *map(str, settings.values())])
        pairs = read_pairs(workspace / "train.csv", items)
        return train(tiny_bundle, items, pairs, recipe, folder, images=workspace / "images")

    plain, thrifty = run(), run(**{"train.checkpointing": True})
    assert plain.fingerprint == thrifty.fingerprint


def test_what_cannot_be_compiled_is_said_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: nn.Module, **_: Any) -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise RuntimeError("InvalidCxxCompiler: no C++ compiler\nand so on")

        self._compiled_call_impl = fail

    monkeypatch.setattr(nn.Module, "compile", broken)
    model = make()
    with pytest.raises(Unavailable, match=r"cannot compile the llm: InvalidCxxCompiler: no C\+\+ compiler$"):
        prepared_blocks(model, Train(compile=True)).__enter__()
    assert all(block._compiled_call_impl is None for block in model.llm.blocks())


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.full)]
)  # that takes minutes
def test_compiled_blocks_give_the_same_gradients(backend: str, workspace: Path) -> None:
    for name, (compiled, plain) in alone(compiled_and_plain, workspace / "images", backend).items():
        assert (compiled - plain).abs().max() <= 1e-5 * plain.abs().max().clamp_min(1), name
