"""Options of the store."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class MilvusOptions(BaseModel):
    """Options of a collection of Milvus."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(
        "",
        description="a cluster, http://HOST:19530, with a token in MILVUS_TOKEN; empty: milvus-lite in the index's folder",
    )
    collection: str = Field("items", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="the collection's name")
    search: Literal["exact", "ivf_flat", "hnsw"] = Field("exact", description="exact: every vector is looked at")
    probes: int = Field(32, ge=1, description="ivf_flat: lists that a search looks into")
    depth: int = Field(128, ge=1, description="hnsw: candidates that a search looks at; at least k")
