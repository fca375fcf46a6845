"""Options of the indexes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class NoOptions(BaseModel):
    """This index has no options."""

    model_config = ConfigDict(extra="forbid")


class HNSWOptions(BaseModel):
    """Options of the graph."""

    model_config = ConfigDict(extra="forbid")

    m: int = Field(32, ge=2, le=512, description="links a vector")
    build_depth: int = Field(200, ge=1, description="candidates that are looked at while a vector is linked")
    depth: int = Field(128, ge=1, description="candidates that a search looks at; at least k")


class IVFOptions(BaseModel):
    """Options of the lists."""

    model_config = ConfigDict(extra="forbid")

    lists: int = Field(
        0, ge=0, description="lists that the vectors are split into; 0: four times the root of their number"
    )
    probes: int = Field(32, ge=1, description="lists that a search looks into")


class PQOptions(BaseModel):
    """Options of the codes."""

    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(0, ge=0, description="bytes a vector, of which its width is a multiple; 0: half its width")
    bits: Literal[4, 8] = Field(8, description="of each number of a code")


class RescoreOptions(BaseModel):
    """Options of a first look at codes."""

    model_config = ConfigDict(extra="forbid")

    rescore: int = Field(
        10, ge=1, description="as many times k that a first look gives, to be compared again by their whole vectors"
    )
