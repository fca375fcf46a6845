"""Options of a timm encoder, and where its pretrained weights are; imports no timm unless a tag has to be looked up."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from n2kit.contract import Preset, read_json
from n2kit.errors import BadInput, suggest


class TimmConfig(BaseModel):
    """Options of a timm encoder."""

    model_config = ConfigDict(extra="forbid")
    KEEPS_CARD: ClassVar = frozenset({"seed", "fit"})
    arch: str | None = Field(None, description="timm's name, with or without a pretrained tag; null: the folder's own")
    image_size: int | None = Field(None, ge=16, description="pixels; null: as pretrained")
    arguments: dict[str, Any] = Field({}, description="of the architecture, as timm.create_model takes them")
    fit: Literal["crop", "squash", "pad"] = Field("crop", description="how an image becomes a square")
    seed: int = Field(0, description="of random weights")


def of_folder(config: TimmConfig, folder: Path | None) -> tuple[TimmConfig, dict[str, Any]]:
    """Complete options by what timm wrote beside a folder's weights; also return its facts about how they were trained.

    Raises:
        BadInput: neither the options nor the folder name an architecture.
    """
    file = folder / "config.json" if folder is not None else None
    content = read_json(file) if file is not None and file.is_file() else {}
    arch, arguments, facts = (content.get(name) for name in ("architecture", "model_args", "pretrained_cfg"))
    if config.arch is None and not isinstance(arch, str):
        raise BadInput(
            "timm: no architecture is given", "timm:NAME@file:FOLDER, or a folder that timm's save_for_hf wrote"
        )
    own = arguments if isinstance(arguments, dict) and config.arch in (None, arch) else {}
    update = {"arch": config.arch or arch, "arguments": {**own, **config.arguments}}
    return config.model_copy(update=update), facts if isinstance(facts, dict) else {}


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
