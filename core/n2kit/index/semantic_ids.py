"""Semantic ids: a few codes an item by a residual quantiser, so that like items share the first ones; for rankers and generators."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.data.tables import ensure_parquet_name
from n2kit.errors import BadInput, counted
from n2kit.utils.arrow import lists_of
from n2kit.utils.files import atomic_write, ensure_writable_file
from n2kit.utils.locks import output_lock

if TYPE_CHECKING:
    from n2kit.embed.reading import VectorSource

MOST_TRAINED_ON = 100_000  # vectors
META = b"n2kit semantic ids"


@dataclass(frozen=True)
class SemanticIds:
    """A file of ids; collisions: items that share all codes with an earlier one; used: by level, the share of codes that occur."""

    file: Path
    items: int
    collisions: int
    largest: int
    used: list[float]


@dataclass(frozen=True)
class Codebook:
    """The codes' vectors, `levels` times `codes` of them: [levels * codes, d]."""

    levels: int
    codes: int
    vectors: np.ndarray
    fingerprint: str

    def quantiser(self) -> Any:
        """Make the quantiser of these codes."""
        faiss = _faiss()
        made = faiss.ResidualQuantizer(self.vectors.shape[1], self.levels, self.codes.bit_length() - 1)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.vectors, np.float32).ravel(), made.codebooks)
        made.is_trained = True
        made.compute_codebook_tables()
        return made


def semantic_ids(
    vectors: Path, out: Path, *, levels: int = 3, codes: int = 256, like: Path | None = None, force: bool = False
) -> SemanticIds:
    """Write id and code of each item: `levels` codes, and a last one that tells apart the items that share them.

    Args:
        like: a file of semantic ids whose codes are used: an item gets the same codes every day, and new ones fit in.

    Raises:
        BadInput: codes that are no power of two; fewer items than codes; `like` is of another model; `out` is there.
    """
    from n2kit.embed.reading import open_vectors

    ensure_writable_file(out, [vectors, like])
    ensure_parquet_name(out)
    if out.exists() and not force:
        raise BadInput(f"{out} exists", "--force replaces it, or give another -o")
    source = open_vectors(vectors)
    book = _codebook_of(like, source) if like is not None else _trained(source, levels, codes)
    with output_lock(out):
        return _write(source, book, out)


def _trained(source: VectorSource, levels: int, codes: int) -> Codebook:
    if not 1 <= levels <= 16 or not 2 <= codes <= 65_536 or codes & (codes - 1):
        raise BadInput(
            f"{levels} levels of {codes} codes", "1 to 16 levels, and a power of two of codes: --levels 3 --codes 256"
        )
    if len(source) < codes:
        raise BadInput(
            f"{counted(len(source), 'item')}: fewer than {codes} codes",
            f"--codes {1 << max(1, len(source).bit_length() - 3)}" if len(source) > 1 else "give more items",
        )
    faiss = _faiss()
    step = max(1, -(-len(source) // MOST_TRAINED_ON))
    sample = np.concatenate([batch.vectors[::step] for batch in source.batches()])
    made = faiss.ResidualQuantizer(source.width, levels, codes.bit_length() - 1)
    made.cp.min_points_per_centroid = 1  # or faiss warns of few vectors on stderr
    if len(sample) <= source.width:  # too few for the principal axes, by which faiss begins
        made.train_type = faiss.ResidualQuantizer.Train_default
    made.train(np.ascontiguousarray(sample, np.float32))
    found = faiss.vector_to_array(made.codebooks).reshape(-1, source.width)
    return Codebook(levels, codes, found, source.fingerprint)


def _write(source: VectorSource, book: Codebook, out: Path) -> SemanticIds:
    import pyarrow as pa
    import pyarrow.parquet as pq

    faiss, quantiser = _faiss(), book.quantiser()
    seen: Counter[bytes] = Counter()
    used: list[set[int]] = [set() for _ in range(book.levels)]
    meta: dict[bytes, bytes | str] = {
        META: json.dumps({"levels": book.levels, "codes": book.codes, "fingerprint": book.fingerprint})
    }
    meta |= {b"codebook": np.ascontiguousarray(book.vectors, np.float32).tobytes()}
    schema = pa.schema({"id": pa.string(), "codes": pa.list_(pa.int32(), book.levels + 1)}, metadata=meta)
    with atomic_write(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for batch in source.batches():
            packed = quantiser.compute_codes(np.ascontiguousarray(batch.vectors, np.float32))
            found = faiss.unpack_bitstrings(packed, book.levels, book.codes.bit_length() - 1).astype(np.int32)
            last = np.empty((len(found), 1), np.int32)
            for n, key in enumerate(map(bytes, packed)):
                last[n], seen[key] = seen[key], seen[key] + 1
            for level, codes in enumerate(used):
                codes |= set(found[:, level].tolist())
            whole = lists_of(np.hstack([found, last]))
            writer.write_table(pa.table([pa.array(batch.ids, pa.string()), whole], schema=schema))
    shares = [len(codes) / book.codes for codes in used]
    return SemanticIds(out, sum(seen.values()), sum(seen.values()) - len(seen), max(seen.values()), shares)


def _codebook_of(file: Path, source: VectorSource) -> Codebook:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        meta = pq.read_schema(file).metadata or {}
        facts = json.loads(meta[META])
        vectors = np.frombuffer(meta[b"codebook"], np.float32).reshape(facts["levels"] * facts["codes"], -1)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        raise BadInput(f"{file}: no semantic ids of n2kit", "n2kit semantic-ids VECTORS -o FILE makes some") from None
    if facts["fingerprint"] != source.fingerprint or vectors.shape[1] != source.width:
        what = f"{file} is of model {facts['fingerprint']}, {vectors.shape[1]} wide"
        raise BadInput(
            f"{what}, and the vectors are of {source.fingerprint}, {source.width} wide",
            "leave out --like: all ids change",
        )
    return Codebook(facts["levels"], facts["codes"], vectors, source.fingerprint)


def _faiss() -> Any:
    import faiss

    return faiss
