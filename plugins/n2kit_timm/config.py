"""Options of a timm encoder, and where its pretrained weights are; imports no timm unless a tag has to be looked up."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from n2kit.contract import Preset
from n2kit.errors import BadInput, suggest


class TimmConfig(BaseModel):
    """Options of a timm encoder."""

    model_config = ConfigDict(extra="forbid")
    KEEPS_CARD: ClassVar = frozenset({"seed", "fit"})
    arch: str = Field(description="timm's name, with or without a pretrained tag")
    image_size: int | None = Field(None, ge=16, description="pixels; null: as pretrained")
    arguments: dict[str, Any] = Field({}, description="of the architecture, as timm.create_model takes them")
    fit: Literal["crop", "squash", "pad"] = Field("crop", description="how an image becomes a square")
    seed: int = Field(0, description="of random weights")


def pretrained(name: str) -> Preset:
    """Return the weights on the hub that `timm:NAME` stands for: the tag given, or the architecture's default one.

    Raises:
        BadInput: timm has no such model, or no weights of it.
    """
    if "." in name:
        return Preset(weights=f"hf:timm/{name}")
    import timm
    from timm.models import get_pretrained_cfg

    if not timm.is_model(name):
        near = suggest(name, timm.list_models())
        raise BadInput(f"timm has no model {name!r}", near or "timm.list_models() lists them")
    cfg = get_pretrained_cfg(name)
    if cfg is None or not cfg.hf_hub_id:
        way = f"timm:{name}@random, or timm:{name}@file:weights.safetensors"
        raise BadInput(f"timm has no pretrained weights for {name!r}", way)
    return Preset(weights=f"hf:{cfg.hf_hub_id}", options={"arch": f"{name}.{cfg.tag}" if cfg.tag else name})
