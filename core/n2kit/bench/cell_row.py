"""The row of a cell, as cell.json and results.jsonl hold it: one schema for the writer and the readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from n2kit.errors import BadInput

FORMAT = 1
OPEN, DONE, FAILED, REFUSED = "open", "done", "failed", "refused"
RERUN_HINT = "remove the cell's folder: the same n2kit bench command makes it again"


class _Lenient(BaseModel):
    """A model that takes null for absent, and ignores the keys that a later version adds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, raw: Any) -> Any:
        return {k: v for k, v in raw.items() if v is not None} if isinstance(raw, dict) else raw


class Axes(_Lenient):
    """The choices that a cell is made of; None for what it does not use."""

    llm: str | None = None
    vision: str | None = None
    mllm: str | None = None
    connector: str | None = None
    fusion: str | None = None
    loss: str | None = None
    variant: str | None = None
    baseline: str | None = None
    inference: str | None = None
    trained: bool = True
    setting: dict[str, Any] = {}


class BucketRow(_Lenient):
    """The metrics on part of the queries: `rule` says which part."""

    name: str
    rule: str = ""
    pairs: int = 0
    queries: int = 0
    metrics: dict[str, dict[str, float | None]] = {}


class CellRow(_Lenient):
    """One cell: an arm with a seed, and its result. `path` is its cell.json.

    The fields up to `files` are in every row; the others only where they are set.
    """

    format: int
    key: str
    run_key: str = ""
    vectors_keys: list[str] = []
    arm: str
    also: list[str] = []
    seed: int
    axes: Axes = Axes()
    state: str
    reason: str = ""
    hint: str = ""
    metrics: dict[str, dict[str, float | None]] = {}
    buckets: list[BucketRow] = []
    costs: dict[str, int | float | None] = {}
    saliency: dict[str, Any] | None = None
    files: dict[str, str | None] = {}

    data: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    threads: int | None = None
    device: str = ""
    command: str = ""
    queries: int | None = None
    pool: int | None = None
    pairs_beyond: int = 0  # test pairs that the protocol does not rank
    pairs_left_out: int = 0  # test pairs of items that have no vector
    items_skipped: int = 0
    skipped: list[str] = []  # why, of the first few; vectors.parquet names all
    no_saliency: str | None = None
    notes: list[str] = []
    path: Path = Field(default=Path(), exclude=True)

    @property
    def ranks_file(self) -> Path:
        return self.path.with_name("ranks.parquet")

    @property
    def vectors_file(self) -> Path:
        return self.path.with_name("vectors.parquet")

    def updated(self, **values: Any) -> CellRow:
        """Return the row with some fields replaced, each checked against the schema."""
        return CellRow.model_validate(self.to_dict() | values | {"path": self.path})

    def to_dict(self) -> dict[str, Any]:
        """Return the row as its file holds it."""
        return {k: v for k, v in self.model_dump().items() if k in _ALWAYS or k in self.model_fields_set}


_ALWAYS = frozenset(list(CellRow.model_fields)[: list(CellRow.model_fields).index("files") + 1])


def parse_row(raw: dict[str, Any], where: str, file: Path) -> CellRow:
    """Check a row that was read from `where`, of the cell whose cell.json is `file`.

    Raises:
        BadInput: a later format, or a field that is missing or wrong.
    """
    if isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
        raise BadInput(f"{where}: format {raw['format']}, this version reads {FORMAT}", "use the n2kit that wrote it")
    try:
        return CellRow.model_validate(raw | {"path": file})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise BadInput(f"{where}: {name}: {first['msg']}", RERUN_HINT) from None
