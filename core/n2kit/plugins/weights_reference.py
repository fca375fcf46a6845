"""A reference to a part's weights: where they are, and hashes by which they are recognised."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # a sha256


class WeightsReference(BaseModel):
    """An entry of a bundle's manifest for a part that is not copied into it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str = Field(description="as `n2kit.plugins.weights` reads it: a hub's commit, or an absolute path")
    near: str | None = Field(None, description="a path, seen from the bundle: the two may move together")
    options: dict[str, Any] = Field(description="of the component")
    head: bool = Field(False, description="whether a language model keeps its output head")
    files: dict[str, Digest] = Field({}, description="at the source: name → sha256")
    stands_for: dict[str, Digest] = Field({}, description="the copy that is not there: its files → sha256")
    tensors: str = Field("", exclude=True, description="`checksum` of the part as its source gives it")

    @property
    def known(self) -> bool:
        """Tell whether a bundle was loaded with this reference; False for one that a build has just made."""
        return bool(self.files)
