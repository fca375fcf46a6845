"""The manifest of a folder of vectors, which names its shards; a folder without one is not finished."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from n2kit.errors import BadInput
from n2kit.utils.files import read_json

MANIFEST, SHARDS, WORK, LOCK = "manifest.json", "shards", "work", ".lock"
PLAN = "plan.json"  # in WORK, as long as the folder is not finished
DType = Literal["float32", "float16", "int8"]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Run(_Strict):
    """All that decides the vectors of an item: two runs that differ may not share a folder.

    prompt, transform: hashes. dim: numbers a vector. computed_in: the type of the computation.
    """

    fingerprint: str
    prompt: str
    transform: str
    dim: int = Field(gt=0)
    dtype: DType
    visual: bool
    computed_in: str


class ShardEntry(_Strict):
    name: Annotated[str, Field(pattern=r"^shards/\d{6}\.parquet$")]
    rows: int = Field(ge=0)
    sha256: Digest


class RemovedEntry(_Strict):
    """The file of the rows that stand in shards and are no longer of the catalogue."""

    name: Annotated[str, Field(pattern=r"^removed-\d{6}\.parquet$")]
    rows: int = Field(gt=0)
    sha256: Digest


class Manifest(_Strict):
    """A finished folder.

    items counts the rows that are not removed. content: hash of the catalogue. skipped: id → reason, also of the `text_only` items
    that were read without their image.
    """

    kind: Literal["vectors"] = "vectors"
    format: Literal[1] = 1
    run: Run
    items: int = Field(gt=0)
    on_bad_image: str
    content: str
    shards: tuple[ShardEntry, ...] = Field(strict=False)
    removed: RemovedEntry | None = None
    skipped: dict[str, str]
    text_only: int = Field(0, ge=0)


def shard_name(number: int) -> str:
    return f"{SHARDS}/{number:06d}.parquet"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a finished folder of vectors.

    Raises:
        BadInput: it is none, not finished, or its manifest is damaged.
    """
    if not (folder / MANIFEST).is_file():
        if (folder / WORK / PLAN).is_file():
            raise BadInput(f"{folder} is not finished", "the command that began it goes on with it")
        raise BadInput(
            f"{folder} is no folder of vectors: it has no {MANIFEST}", "n2kit embed BUNDLE -o FOLDER makes one"
        )
    content: Any = read_json(folder / MANIFEST)
    if content.get("kind") != "vectors":
        raise BadInput(f"{folder} is no folder of vectors", "n2kit embed BUNDLE -o FOLDER makes one")
    if content.get("format") != 1:
        raise BadInput(f"{folder} is of format {content.get('format')}; this n2kit reads 1", "update n2kit")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{folder / MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise BadInput(what, "it is damaged: embed again") from None
