"""Options of a timm encoder, and where its pretrained weights are; imports no timm unless a tag has to be looked up."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from n2kit import Variant
from n2kit.errors import BadInput, Unavailable
from n2kit.weights import OFFLINE_WAYS, hub_problem


class TimmConfig(BaseModel):
    """Options of a timm encoder."""

    model_config = ConfigDict(extra="forbid")
    KEEPS_CARD: ClassVar = frozenset({"seed", "fit"})
    arch: str = Field(description="timm's name, with or without a pretrained tag")
    image_size: int | None = Field(None, ge=16, description="pixels; null: as pretrained")
    fit: Literal["crop", "squash", "pad"] = "crop"
    seed: int = Field(0, description="of random weights")


def pretrained(name: str) -> Variant:
    """The weights on the hub that `timm:NAME` stands for: the tag given, or the architecture's default one.

    Raises:
        BadInput: timm has no such model. Unavailable: the default tag's weights cannot be reached.
    """
    if "." in name:
        return Variant(weights=f"hf:timm/{name}")
    if cached := _cached(name):
        return Variant(weights=f"hf:timm/{cached}")
    if reason := hub_problem():
        raise Unavailable(
            f"weights of timm:{name} are not cached and the hub cannot be reached ({reason})", OFFLINE_WAYS
        )
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:3]
        raise BadInput(f"timm has no model {name!r}", f"near: {', '.join(near)}" if near else "timm.list_models()")
    cfg = timm.models.get_pretrained_cfg(name)
    if cfg is None or not cfg.hf_hub_id:
        raise BadInput(
            f"timm has no pretrained weights for {name!r}",
            f"timm:{name}@random, or timm:{name}@file:weights.safetensors",
        )
    return Variant(weights=f"hf:{cfg.hf_hub_id}")


def _cached(name: str) -> str | None:
    from huggingface_hub import constants

    found = sorted(Path(constants.HF_HUB_CACHE).glob(f"models--timm--{name}.*"))
    return found[0].name.removeprefix("models--timm--") if found else None
