"""timm's families, the ordinary ones and the odd, and the memory of what was measured of them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from n2kit.contract.card_probe import cached_card
from n2kit.contract.interfaces import LoadSpec
from n2kit.errors import BadInput
from n2kit.plugins.catalogue import default_catalogue
from n2kit_timm.cards import card as timm_card
from n2kit_timm.config import TimmConfig
from n2kit_timm.vision import TimmVision


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("N2KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cards"


def pixels(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


# Families whose features are unlike those of most: several maps, a class token that nobody counts, channels last, …
TIMM = {
    "coat_lite_tiny": 1, "coat_tiny": 0, "crossvit_tiny_240": 0, "pit_ti_224": 0, "efficientvim_m1": 0, "levit_128s": 0,
    "mambaout_femto": 0, "deit_tiny_distilled_patch16_224": 2, "xcit_nano_12_p8_224": 1, "lcnet_035": 0,
    "efficientvit_m0": 0, "fasternet_t0": 0, "volo_d1_224": 1,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("arch", TIMM)
@torch.no_grad()
def test_timm_families(arch: str) -> None:
    config = TimmConfig(arch=arch)
    part = TimmVision.create(LoadSpec(config)).eval()
    assert timm_card(config, lambda: None) == part.card
    assert part.card.prefix_tokens == TIMM[arch]
    assert part.card.grid is not None
    x = pixels(2, part.card.image_size)
    both, alone = part(x), part(x[1:])
    assert both.tokens.isfinite().all()
    torch.testing.assert_close(alone.tokens, both.tokens[1:], rtol=1e-3, atol=1e-4 * float(both.tokens.abs().max()))
    torch.testing.assert_close(alone.pooled, both.pooled[1:], rtol=1e-3, atol=1e-4 * float(both.pooled.abs().max()))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"arch": "resnet_nothing"}, "timm has no model"),
        ({"arch": "test_vit", "image_size": 57}, "test_vit"),
        ({"arch": "test_vit", "arguments": {"wings": 2}}, "wings"),
    ],
)
def test_timm_refusals(config: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        TimmVision.create(LoadSpec(TimmConfig(**config)))


def test_measured_cards_are_remembered_without_torch(cache: Path) -> None:
    config = TimmConfig(arch="test_convnext2", image_size=64)
    want = timm_card(config, lambda: None)
    code = (
        "import sys; from n2kit_timm.cards import card; from n2kit_timm.config import TimmConfig\n"
        "print(card(TimmConfig(arch='test_convnext2', image_size=64, seed=3), None))\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(want), done.stderr
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"of": 1}', '{"of": {}, "card": {"tokens": "x"}}'])
def test_a_broken_cache_is_measured_again(cache: Path, content: str) -> None:
    card = default_catalogue().resolve("vision", "timm:tiny").card()
    assert cached_card("timm", "an architecture", lambda: card) == card  # type: ignore[arg-type,return-value]
    (file,) = cache.iterdir()
    file.write_text(content)
    other = replace(card, tokens=3)  # type: ignore[type-var]
    assert cached_card("timm", "an architecture", lambda: other) == other  # type: ignore[arg-type,return-value]
    assert cached_card("timm", "an architecture", lambda: card) == other  # type: ignore[arg-type,return-value]


def test_a_cache_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    card = default_catalogue().resolve("vision", "timm:tiny").card()
    assert cached_card("timm", "an architecture", lambda: card) == card  # type: ignore[arg-type,return-value]
