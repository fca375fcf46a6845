"""The precision that pays on a CPU: asked with a small product first, and once a machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from n2kit.utils import device


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Widths of the products that were timed: one of 256 is slow in bf16, one of 768 is fast."""
    timed: list[int] = []

    def gain(rows: int, width: int) -> float:
        timed.append(width)
        return 0.03 if width == 256 else 3.0

    monkeypatch.setattr(device, "_gain", gain)
    monkeypatch.setattr(device, "_assumed", [])
    device._measured_gain.cache_clear()
    yield timed
    device._measured_gain.cache_clear()


def test_a_cpu_without_bf16_is_asked_with_a_small_product_alone(gains: list[int]) -> None:
    assert device.pick_precision("auto", torch.device("cpu"))[0] == torch.float32
    assert gains == [256]


def test_where_bf16_may_pay_a_product_of_a_models_size_decides(
    gains: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "CLEARLY_SLOW", 0.01)
    assert device.pick_precision("auto", torch.device("cpu"))[0] == torch.bfloat16
    assert gains == [256, 768]


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"x": 1}'])
def test_the_answer_is_kept_by_cpu_torch_and_threads(
    gains: list[int], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = device.cache_folder() / "bf16.json"
    if damage:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(damage)
    assert device.bf16_gain() == 0.03
    device._measured_gain.cache_clear()  # another process
    assert device.bf16_gain() == 0.03
    assert gains == [256]
    (key,) = [k for k in json.loads(file.read_text()) if "torch" in k]
    assert f"torch {torch.__version__}, 1 threads" in key
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    device._measured_gain.cache_clear()
    device.bf16_gain()
    assert gains == [256, 256]


def test_without_a_cache_it_is_measured_each_time(gains: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Path("/dev/null/cache")
    monkeypatch.setattr(device, "cache_folder", lambda: closed)
    assert device.bf16_gain() == 0.03
    device._measured_gain.cache_clear()
    assert device.bf16_gain() == 0.03
    assert gains == [256, 256]


def test_a_product_is_timed_in_both_types() -> None:
    assert device._gain(8, 16) > 0
