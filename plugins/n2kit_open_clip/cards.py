"""The card of an open_clip tower; importing this takes no torch and no open_clip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from n2kit.contract import VisionCard, cached_card
from n2kit_open_clip.config import OpenClipConfig, architecture


def card(config: OpenClipConfig, locate: Callable[[], Path | None]) -> VisionCard:
    """Return the card of an architecture at this image size, whichever weights it has."""
    found = architecture(config, None if config.arch else locate())
    return cached_card("open_clip_torch", json.dumps(found, sort_keys=True), lambda: _measured(config, found))


def _measured(config: OpenClipConfig, found: dict[str, Any]) -> VisionCard:
    """Measure the card on torch's meta device: no weights, no arithmetic."""
    import torch

    from n2kit_open_clip.vision import OpenClipVision, tower, transform_of

    with torch.device("meta"):
        visual = tower(found)
    return OpenClipVision(visual, found, transform_of(config, None, visual)).card
