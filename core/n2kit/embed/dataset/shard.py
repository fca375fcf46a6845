"""One shard: a Parquet file of some items' vectors, with what it was made of in its metadata."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from n2kit.embed.dataset.columns import columns_of
from n2kit.embed.dataset.content import BYTES
from n2kit.embed.dataset.format import DType, Run
from n2kit.embed.encoded import Encoded
from n2kit.embed.vectors_file import META, UNREADABLE
from n2kit.errors import BadInput
from n2kit.utils.arrow import read_parquet
from n2kit.utils.files import atomic_write


@dataclass(frozen=True)
class ShardFacts:
    """The origin of a shard: the run, the policy for bad images, the sum of its items' hashes, and what was skipped."""

    run: dict[str, Any]
    on_bad_image: str
    content: str
    skipped: dict[str, str]

    def made_of(self, run: Run, on_bad_image: str, content: str) -> bool:
        """Tell whether this run would make it anew just so: a policy decides nothing where nothing was bad."""
        same_policy = self.on_bad_image == on_bad_image or not self.skipped
        return self.run == run.model_dump() and self.content == content and same_policy


def write_shard(file: Path, encoded: Encoded, contents: dict[str, bytes], facts: ShardFacts) -> None:
    """Write a shard, whose place may be taken by anything."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    dtype: DType = facts.run["dtype"]
    dim = facts.run["dim"]
    columns = {"id": pa.array(encoded.ids, pa.string())} | columns_of("vector", _cut(encoded.vectors, dim), dtype)
    if facts.run["visual"]:
        visual = encoded.visual if encoded.visual is not None else encoded.vectors[:0]
        columns |= columns_of("visual_vector", _cut(visual, dim), dtype)
    columns["content"] = pa.array([contents[i] for i in encoded.ids], pa.binary(BYTES))
    meta = {META: json.dumps(asdict(facts), ensure_ascii=False)}
    table = pa.table(columns).replace_schema_metadata(meta)
    with atomic_write(file) as temporary:
        pq.write_table(table, temporary, use_dictionary=False, write_page_checksum=True)


def _cut(matrix: Any, dim: int) -> Any:
    """Take the first `dim` numbers of each vector, and make its length 1 again."""
    import numpy as np

    if matrix.shape[1] == dim:
        return matrix
    matrix = matrix[:, :dim]
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(length > 0, length, 1)


def read_facts(file: Path) -> ShardFacts | None:
    """Read what a shard was made of; None where it is not there, or not whole."""
    try:
        if not file.is_file():
            return None
        return ShardFacts(**json.loads((pq.read_schema(file).metadata or {})[META]))
    except UNREADABLE:
        return None


def read_shard(file: Path) -> pa.Table:
    """Read a shard, and check it by the checksums of its pages.

    Raises:
        BadInput: it is missing or damaged.
    """
    try:
        if not file.is_file():
            raise FileNotFoundError("it is missing, or no regular file")
        return read_parquet(file, checked=True)
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{file} is damaged: {reason}", "embed again") from None


def is_whole(file: Path) -> bool:
    """Tell whether every page of a shard is as it was written."""
    try:
        read_shard(file)
    except BadInput:
        return False
    return True


def is_taken(file: Path) -> bool:
    """Tell whether anything is in a shard's place."""
    return os.path.lexists(file)
