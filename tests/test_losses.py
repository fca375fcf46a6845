"""The losses against their written definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from n2kit.registry import registry


def loss(name: str, **options: Any) -> Any:
    component = registry().resolve("loss", name)
    return component.cls()(component.load(component.owned.spec.config)(**options))


def by_hand(x: torch.Tensor, tau: float, drop: frozenset[tuple[int, int]] = frozenset()) -> torch.Tensor:
    unit, n = F.normalize(x, dim=-1), len(x)
    total = []
    for i in range(n):
        partner = (i + n // 2) % n
        others = [j for j in range(n) if j != i and ((i, j) not in drop or j == partner)]
        logits = torch.stack([unit[i] @ unit[j] for j in others]) * math.exp(tau)
        total.append(torch.logsumexp(logits, 0) - unit[i] @ unit[partner] * math.exp(tau))
    return torch.stack(total).mean()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


def test_one_tower(x: torch.Tensor) -> None:
    torch.testing.assert_close(loss("notellm2")({"multimodal": x}).loss, by_hand(x, 3.0))


def test_two_views_are_weighted(x: torch.Tensor) -> None:
    y = x.flip(0) + 0.1
    out = loss("notellm2", text_weight=3.0, vision_weight=2.0)({"multimodal": x, "visual": y})
    torch.testing.assert_close(out.loss, (3 * by_hand(x, 3.0) + 2 * by_hand(y, 3.0)) / 5)
    torch.testing.assert_close(out.terms["visual"], by_hand(y, 3.0))


def test_items_without_a_visual_view_are_left_out_of_its_term(x: torch.Tensor) -> None:
    present = torch.tensor(
        [True, True, False, True, True, True, True, True]
    )  # row 2 has none: nor is its partner 6 an anchor
    out = loss("notellm2")({"multimodal": x, "visual": x}, {"visual": present})
    unit = F.normalize(x, dim=-1)
    expected = []
    for i in (0, 1, 3, 4, 5, 7):
        logits = torch.stack([unit[i] @ unit[j] for j in range(8) if j not in (i, 2)]) * math.exp(3.0)
        expected.append(torch.logsumexp(logits, 0) - unit[i] @ unit[(i + 4) % 8] * math.exp(3.0))
    torch.testing.assert_close(out.terms["visual"], torch.stack(expected).mean())
    none = loss("notellm2")({"multimodal": x, "visual": x}, {"visual": torch.zeros(8, dtype=torch.bool)})
    torch.testing.assert_close(none.loss, by_hand(x, 3.0))


@pytest.mark.parametrize("name", ["notellm2", "infonce"])
def test_same_item_and_known_positives_are_no_negatives(x: torch.Tensor, name: str) -> None:
    exclude = torch.zeros(8, 8, dtype=torch.bool)
    exclude[0, 5] = exclude[5, 0] = exclude[0, 4] = exclude[4, 0] = True  # 4 is 0's partner and stays its positive
    got = loss(name)({"multimodal": x}, None, exclude).loss
    if name == "notellm2":
        torch.testing.assert_close(got, by_hand(x, 3.0, frozenset({(0, 5), (5, 0)})))
    assert got < loss(name)({"multimodal": x}).loss


def test_symmetric(x: torch.Tensor) -> None:
    left, right = F.normalize(x[:4], dim=-1), F.normalize(x[4:], dim=-1)
    logits = left @ right.T * math.exp(3.0)
    expected = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
    torch.testing.assert_close(loss("infonce")({"multimodal": x}).loss, expected)


def test_temperature_learns_and_is_clamped(x: torch.Tensor) -> None:
    free, clamped = loss("notellm2"), loss("notellm2", temperature=9.0)
    free({"multimodal": x}).loss.backward()
    assert free.temperature.grad != 0
    torch.testing.assert_close(clamped.scale, torch.tensor(100.0), check_dtype=False)
    clamped({"multimodal": x}).loss.backward()
    assert clamped.temperature.grad != 0  # it can come back
    assert math.isclose(loss("notellm2", temperature=9.0, max_scale=None).scale.item(), math.exp(9.0), rel_tol=1e-5)
