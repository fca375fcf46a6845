"""Bundles: parts by reference, the loader's strictness, and saving that loses nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import n2kit
from n2kit import bundle, read_items, read_pairs
from n2kit.recipe import resolve
from n2kit.train import train

SETTINGS = {"head.width": 16, "prompt.template": "compact", "train.max_steps": 2, "train.batch_size": 4}
Made = Callable[..., n2kit.Model]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llm/ and vision/: checkpoints as they lie about on a disk, in bfloat16 and in float32."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("weights")
    model = n2kit.build("qwen:tiny", "siglip:tiny")
    for kind in ("llm", "vision"):
        (root / kind).mkdir()
    model.llm.bfloat16().save(root / "llm")
    assert model.vision is not None
    model.vision.save(root / "vision")
    return root


@pytest.fixture
def make(backbones: Path, tmp_path: Path) -> Made:
    """A model of weights in files; of copies of them that a test may spoil, with `own`."""

    def build(own: bool = False, **settings: Any) -> n2kit.Model:
        root = tmp_path / "weights" if own else backbones
        if own and not root.exists():
            shutil.copytree(backbones, root)
        llm, vision = f"qwen@file:{root / 'llm'}", f"siglip@file:{root / 'vision'}"
        return n2kit.build(llm, vision, connector="mlp:tiny", settings={**SETTINGS, **settings})

    return build


def vectors(folder: Path, workspace: Path) -> np.ndarray:
    items = read_items(workspace / "items.jsonl").items[:4]
    return bundle.load(folder).encode(items, images=workspace / "images", precision="fp32")


def size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def trained(source: Path, folder: Path, workspace: Path, **settings: Any) -> Path:
    items = read_items(workspace / "items.jsonl")
    recipe = resolve(settings, base=bundle.read_recipe(source), env={}).recipe
    pairs = read_pairs(workspace / "train.csv", items)
    return Path(train(source, items, pairs, recipe, folder, images=workspace / "images").bundle)


# --- by reference -----------------------------------------------------------------------------------------------------


def test_a_reference_is_the_same_model_as_a_copy(make: Made, workspace: Path, tmp_path: Path) -> None:
    model = make()
    copy = bundle.save(model, tmp_path / "copy")
    reference = bundle.save(model, tmp_path / "reference", by_reference=True)
    assert reference.fingerprint == copy.fingerprint
    assert sorted(reference.sources) == ["llm", "vision"]
    assert {f.parent.name for f in (tmp_path / "reference").rglob("*.safetensors")} == {
        "reference",
        "connector",
        "fusion",
        "loss",
    }
    assert size(tmp_path / "reference") < size(tmp_path / "copy") / 2
    assert (vectors(tmp_path / "reference", workspace) == vectors(tmp_path / "copy", workspace)).all()


def test_random_weights_are_copied(tmp_path: Path) -> None:
    model = n2kit.build("qwen:tiny", "siglip:tiny", settings=SETTINGS)
    assert not bundle.save(model, tmp_path / "b", by_reference=True).sources


@pytest.mark.parametrize("tune", ["frozen", "lora:2"])
def test_training_keeps_references_and_gives_the_model_that_a_copy_gives(
    tune: str, make: Made, workspace: Path, tmp_path: Path
) -> None:
    model = make(**{"llm.tune": tune})
    for name, by_reference in (("copy", False), ("reference", True)):
        bundle.save(model, tmp_path / name, by_reference=by_reference)
        trained(tmp_path / name, tmp_path / f"{name}-run", workspace)
    copy, reference = (bundle.read_manifest(tmp_path / f"{name}-run/bundle") for name in ("copy", "reference"))
    assert sorted(reference.sources) == ["llm", "vision"]
    assert not copy.sources
    assert reference.fingerprint == copy.fingerprint
    assert (tmp_path / "reference-run/bundle/llm/adapter").is_dir() == (tune != "frozen")


def test_what_was_trained_is_copied(make: Made, workspace: Path, tmp_path: Path) -> None:
    bundle.save(make(**{"llm.tune": "last:1"}), tmp_path / "b", by_reference=True)
    done = trained(tmp_path / "b", tmp_path / "run", workspace, **{"train.lr": 1e-3})
    assert sorted(bundle.read_manifest(done).sources) == ["vision"]
    assert (vectors(done, workspace) != vectors(tmp_path / "b", workspace)).any()


def test_by_hand_changed_weights_are_never_taken_for_their_source(make: Made, tmp_path: Path) -> None:
    model = make()
    next(model.llm.parameters()).data[0, 0] += 1
    assert sorted(bundle.save(model, tmp_path / "b", by_reference=True).sources) == ["vision"]
    again = bundle.load(tmp_path / "b")
    assert torch.equal(next(again.llm.parameters()), next(model.llm.parameters()))
