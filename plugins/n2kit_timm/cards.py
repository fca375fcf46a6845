"""The card of a timm model: measured once on its architecture, then remembered; importing this takes no torch and no timm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from n2kit.contract import VisionCard, cached_card
from n2kit_timm.config import TimmConfig, of_folder


def card(config: TimmConfig, locate: Callable[[], Path | None]) -> VisionCard:
    """Return the card of an architecture at this image size, whichever weights it has."""
    config, _ = of_folder(config, None if config.arch else locate())
    options = config.model_dump(exclude=set(TimmConfig.KEEPS_CARD))
    return cached_card("timm", json.dumps(options, sort_keys=True), lambda: _measured(config))


def _measured(config: TimmConfig) -> VisionCard:
    """Measure the card on torch's meta device: no weights, no arithmetic."""
    import torch

    from n2kit_timm.vision import TimmVision, architecture

    with torch.device("meta"):
        model = architecture(config, num_classes=0)
    return TimmVision(model, config).card
