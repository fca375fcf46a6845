"""Architecture and card of an open_clip tower; importing this takes no torch and no open_clip."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from n2kit import VisionCard
from n2kit.errors import BadInput
from n2kit.files import read_json
from n2kit.manager import nearest
from n2kit.measured import remembered
from n2kit_open_clip.config import OpenClipConfig

CONFIG = "open_clip_config.json"  # what open_clip puts beside its weights


def card(config: OpenClipConfig, locate: Callable[[], Path | None]) -> VisionCard:
    """What the architecture gives at this picture size, whichever weights it has."""
    found = architecture(config, None if config.arch else locate())
    return remembered("open_clip_torch", json.dumps(found, sort_keys=True), lambda: _measured(config, found))


def architecture(config: OpenClipConfig, weights: Path | None) -> dict[str, Any]:
    """`embed_dim`, `vision_cfg` and `quick_gelu`: of `config.arch`, else what lies beside the weights, else `config.config`.

    Raises:
        BadInput: none of them says it, or what they say is no architecture.
    """
    if config.arch:
        content: dict[str, Any] = _listed(config.arch)
    elif weights is not None and (weights / CONFIG).is_file():
        content = read_json(weights / CONFIG).get("model_cfg") or {}
    else:
        content = config.config or {}
    if "embed_dim" not in content or "vision_cfg" not in content:
        raise BadInput("open_clip: no architecture is given", "open_clip:ViT-B-32/laion2b_s34b_b79k, say")
    # Nothing is downloaded behind n2kit's back, and no patch is left out in training.
    vision = {**content["vision_cfg"], "patch_dropout": 0.0, "timm_model_pretrained": False, "output_tokens": False}
    if config.image_size is not None:
        if "timm_model_name" in vision or not isinstance(vision.get("layers", 12), int):
            raise BadInput("open_clip: image_size can be set for its plain transformers alone", "leave image_size out")
        vision["image_size"] = config.image_size
    return {
        "embed_dim": content["embed_dim"], "vision_cfg": vision, "quick_gelu": bool(content.get("quick_gelu", False))
    }  # fmt: skip


def _listed(name: str) -> dict[str, Any]:
    """The architecture that open_clip ships under a name."""
    spec = importlib.util.find_spec("open_clip")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = {f.stem: f for place in places for f in Path(place, "model_configs").glob("*.json")}
    if name not in files:
        raise BadInput(f"open_clip has no model {name!r}", nearest(name, files) or "open_clip.list_models() lists them")
    return read_json(files[name])


def _measured(config: OpenClipConfig, found: dict[str, Any]) -> VisionCard:
    """On torch's meta device: no weights, no arithmetic."""
    import torch

    from n2kit_open_clip.vision import OpenClipVision, tower, transform_of

    with torch.device("meta"):
        visual = tower(found)
    return OpenClipVision(visual, found, transform_of(config, None, visual)).card
