"""Options of the store."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LanceOptions(BaseModel):
    """Options of a table of LanceDB."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(
        "", description="where the table lies: s3://…, gs://…, az://… or a folder; empty: in the index's own folder"
    )
    table: str = Field("items", pattern=r"^[A-Za-z0-9_.-]+$", description="the table's name")
    search: Literal["exact", "ivf_flat", "ivf_hnsw_sq", "ivf_pq"] = Field(
        "exact",
        description="exact: every vector is looked at; the others are lists of near vectors, as they are or coded",
    )
    probes: int = Field(32, ge=1, description="lists that a search looks into")
    refine: int = Field(10, ge=1, description="codes alone: as many times k are compared again by their vectors")
    tokenizer: Literal["icu", "simple", "ngram"] = Field(
        "icu", description="what is a word of a title; icu knows languages without spaces too"
    )
