"""Options of an open_clip tower, its architecture, and where its pretrained weights are; no torch, open_clip for tags alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from n2kit.contract import Preset, read_json
from n2kit.errors import BadInput, suggest

CONFIG = "open_clip_config.json"  # what open_clip puts beside its weights


class OpenClipConfig(BaseModel):
    """Options of an open_clip tower."""

    model_config = ConfigDict(extra="forbid")
    KEEPS_CARD: ClassVar = frozenset({"seed", "fit", "pretrained"})
    arch: str | None = Field(None, description="open_clip's name; ARCHITECTURE/TAG gives `pretrained` too")
    pretrained: str | None = Field(
        None, description="open_clip's tag, for the colours and the activation it was trained with"
    )
    config: dict[str, Any] | None = Field(None, description="the architecture, as open_clip's model_configs write it")
    image_size: int | None = Field(None, ge=16, description="pixels; null: as pretrained; for plain transformers alone")
    fit: Literal["crop", "squash", "pad"] | None = Field(None, description="null: as the checkpoint was trained")
    seed: int = Field(0, description="of random weights")

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        if isinstance(given, dict) and "/" in str(given.get("arch")):
            arch, _, tag = str(given["arch"]).partition("/")
            return {**given, "arch": arch, "pretrained": given.get("pretrained") or tag}
        return given


def pretrained(name: str) -> Preset:
    """Return the weights on the hub that `open_clip:ARCHITECTURE/TAG` stands for.

    Raises:
        BadInput: open_clip has no such model or tag, or its weights are not on the hub as safetensors.
    """
    import open_clip

    arch, _, tag = name.partition("/")
    if arch not in open_clip.list_models():
        raise BadInput(
            f"open_clip has no model {arch!r}",
            suggest(arch, open_clip.list_models()) or "open_clip.list_models() lists them",
        )
    tags = open_clip.list_pretrained_tags_by_model(arch)
    way = f"open_clip:{arch}@random, or open_clip:{name}@file:weights.safetensors"
    if tag not in tags:
        known = ", ".join(f"{arch}/{t}" for t in tags)
        raise BadInput(
            f"open_clip has no weights {tag!r} of {arch}" if tag else f"which weights of {arch}?",
            f"{suggest(tag, tags) or f'write open_clip: and one of {known}'}; or {way}" if tags else way,
        )
    repository, _, file = str(open_clip.get_pretrained_cfg(arch, tag).get("hf_hub") or "").rpartition("/")
    if not repository or (file and not file.endswith(".safetensors")):
        what = f"a pickle ({file})" if repository else "an address outside the hub"
        raise BadInput(f"open_clip has {name} only as {what}, and n2kit opens no pickles of strangers", way)
    return Preset(weights=f"hf:{repository}", options={"arch": arch, "pretrained": tag})


def architecture(config: OpenClipConfig, weights: Path | None) -> dict[str, Any]:
    """Return `embed_dim`, `vision_cfg` and `quick_gelu`: of `config.arch`, else from beside the weights, else of `config.config`.

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
    """Return the architecture that open_clip ships under a name."""
    spec = importlib.util.find_spec("open_clip")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = {f.stem: f for place in places for f in Path(place, "model_configs").glob("*.json")}
    if name not in files:
        raise BadInput(f"open_clip has no model {name!r}", suggest(name, files) or "open_clip.list_models() lists them")
    return read_json(files[name])
