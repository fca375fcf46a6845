"""Options of an open_clip tower, and where its pretrained weights are; imports open_clip only to look a tag up."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from n2kit import Variant
from n2kit.errors import BadInput
from n2kit.manager import nearest


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


def pretrained(name: str) -> Variant:
    """The weights on the hub that `open_clip:ARCHITECTURE/TAG` stands for.

    Raises:
        BadInput: open_clip has no such model or tag, or its weights are not on the hub as safetensors.
    """
    import open_clip

    arch, _, tag = name.partition("/")
    if arch not in open_clip.list_models():
        raise BadInput(
            f"open_clip has no model {arch!r}",
            nearest(arch, open_clip.list_models()) or "open_clip.list_models() lists them",
        )
    tags = open_clip.list_pretrained_tags_by_model(arch)
    way = f"open_clip:{arch}@random, or open_clip:{name}@file:weights.safetensors"
    if tag not in tags:
        known = ", ".join(f"{arch}/{t}" for t in tags)
        raise BadInput(
            f"open_clip has no weights {tag!r} of {arch}" if tag else f"which weights of {arch}?",
            f"{nearest(tag, tags) or f'write open_clip: and one of {known}'}; or {way}" if tags else way,
        )
    repository, _, file = str(open_clip.get_pretrained_cfg(arch, tag).get("hf_hub") or "").rpartition("/")
    if not repository or (file and not file.endswith(".safetensors")):
        what = f"a pickle ({file})" if repository else "an address outside the hub"
        raise BadInput(f"open_clip has {name} only as {what}, and n2kit opens no pickles of strangers", way)
    return Variant(weights=f"hf:{repository}", options={"arch": arch, "pretrained": tag})
