"""Items in batches of like length, and what an encoder's cached outputs are known by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import n2kit
from n2kit.data.item import Item
from n2kit.data.items import read_items
from n2kit.embed.batches import GPU_ROWS, GPU_TOKENS, batches_of, laid_out
from n2kit.inputs import tensor_store
from n2kit.inputs.feature_store import encoder_fingerprint
from n2kit.modeling.model import Model


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return n2kit.load(tiny_bundle)


def test_batches_hold_rows_of_like_length() -> None:
    lengths = [(False, n) for n in (5, 1, 9, 3)] + [(True, 2)]
    assert batches_of(lengths, 2, "cpu") == [[1, 3], [0, 2], [4]]
    assert batches_of(lengths, None, "cpu") == [[1, 3, 0, 2, 4]]
    assert batches_of([], None, "cuda") == []


@pytest.mark.parametrize("image", [False, True])
def test_on_a_gpu_a_batch_is_as_many_rows_as_a_budget_of_tokens_holds(image: bool) -> None:
    lengths = [(image, 20 + n % 1000) for n in range(3000)]
    batches = batches_of(lengths, None, "cuda")
    assert sorted(n for batch in batches for n in batch) == list(range(3000))
    for batch in batches:
        assert len(batch) * max(lengths[n][1] for n in batch) <= GPU_TOKENS
        assert len(batch) <= GPU_ROWS
    needed = sum(length for _, length in lengths)
    assert sum(len(batch) * max(lengths[n][1] for n in batch) for batch in batches) < 1.1 * needed
    assert [len(b) for b in batches_of(lengths, 1000, "cuda")] == [1000] * 3
    assert batches_of([(False, 3), (True, 3)], None, "cuda") == [[0], [1]]  # rows with images among themselves


def test_mixed_scripts_are_sorted_by_tokens(model: Model) -> None:
    items = [Item(f"{n}", title=("文" if n % 2 else "a") * (n + 1)) for n in range(40)]
    prompts = laid_out(model.prompt_builder, items)
    lengths = [(False, len(prompts[id(item)].ids)) for item in items]
    last = [max(lengths[n][1] for n in batch) for batch in batches_of(lengths, 4, "cpu")]
    first = [min(lengths[n][1] for n in batch) for batch in batches_of(lengths, 4, "cpu")]
    assert all(a <= b for a, b in zip(last, first[1:], strict=False))
    assert model.prompt_builder(items[3], image=False) == prompts[id(items[3])]


def test_no_prompt_is_laid_out_for_an_item_with_nothing_to_read(model: Model) -> None:
    assert not laid_out(model.prompt_builder, [Item("a")])


def test_windows_give_the_vectors_of_one(model: Model, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = read_items(workspace / "items.jsonl").items
    items = [*items[:9], Item("bad", image="missing.png", title="a text"), Item("blind", title="x"), *items[9:]]
    how = {"images": workspace / "images", "on_bad_image": "text-only", "precision": "fp32"}
    whole = n2kit.embed.encode(model, items, **how)
    monkeypatch.setattr("n2kit.embed.batches.WINDOW", 7)
    parts = n2kit.embed.encode(model, items, **how)
    assert (parts.ids, parts.skipped) == (whole.ids, whole.skipped)
    np.testing.assert_allclose(parts.vectors, whole.vectors, atol=1e-6)
    alone = n2kit.embed.encode(model, [items[9]], **how)
    np.testing.assert_allclose(whole.vectors[9:10], alone.vectors, atol=1e-6)


def test_a_fingerprint_tells_weights_settings_and_transforms_apart_without_saving(
    model: Model, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = model.vision
    assert vision is not None
    found = encoder_fingerprint(vision, tmp_path)
    assert encoder_fingerprint(n2kit.load(tiny_bundle).vision, tmp_path) == found  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    different = {found, encoder_fingerprint(vision, tmp_path, "torch.bfloat16")}
    with monkeypatch.context() as patch:
        patch.setattr(type(vision), "settings_id", "other settings")
        different.add(encoder_fingerprint(vision, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(type(vision), "transform_id", "another transform")
        different.add(encoder_fingerprint(vision, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(type(vision), "settings_id", None)  # a third party's, which is saved
        different.add(encoder_fingerprint(vision, tmp_path))
        assert encoder_fingerprint(vision, tmp_path) in different
    weight = next(vision.parameters())
    with torch.no_grad():
        before = weight.flatten()[0].item()
        weight.view(-1)[0] = before + 1
        different.add(encoder_fingerprint(vision, tmp_path))
        weight.view(-1)[0] = before
    assert len(different) == 6
    assert encoder_fingerprint(vision, tmp_path) == found


def test_a_fingerprint_is_remembered_by_the_files_and_the_bits(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hashed: list[int] = []
    add = tensor_store.add_tensors
    monkeypatch.setattr(tensor_store, "add_tensors", lambda *given: (hashed.append(1), add(*given)))
    vision = n2kit.load(tiny_bundle).vision
    assert vision is not None
    assert vision.origin is not None
    found = encoder_fingerprint(vision, tmp_path)
    assert encoder_fingerprint(n2kit.load(tiny_bundle).vision, tmp_path) == found  # type: ignore[arg-type]
    assert len(hashed) == 1
    with torch.no_grad():
        next(vision.parameters()).view(-1)[0] += 1
    assert encoder_fingerprint(vision, tmp_path) != found
    vision.origin = None
    assert encoder_fingerprint(vision, tmp_path) != found
    assert len(hashed) == 3
