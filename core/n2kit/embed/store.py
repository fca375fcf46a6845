"""A catalogue's vectors as Parquet (id, vector, visual_vector), written in shards so that an interrupted run goes on."""

from __future__ import annotations

import glob
import hashlib
import json
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from n2kit.data.items import OF_SIZES, images_digest, is_of_sizes
from n2kit.embed.encode import Encoded, Progress, encode
from n2kit.errors import BadInput
from n2kit.inputs.feature_cache import FeatureCache, feature_cache
from n2kit.inputs.reader import OnBadImage
from n2kit.inputs.state_cache import state_cache
from n2kit.utils.device import Precision, pick_precision
from n2kit.utils.files import atomic_write, ensure_writable_file, parse_json
from n2kit.utils.folders import ensure_outside_bundles

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.inputs.feature_cache import FeatureCache
    from n2kit.modeling.model import Model

SHARD = 1024  # items; what an interrupted run loses at most
META = b"n2kit"


@dataclass
class Vectors:
    """The content of an embed file; `visual` is None where the file has none."""

    ids: list[str]
    vectors: np.ndarray
    fingerprint: str
    visual: np.ndarray | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    done_before: bool = False


def embed(
    model: Model,
    fingerprint: str,
    items: Items,
    out: Path,
    *,
    images: Path | None = None,
    visual: bool = False,
    batch_size: int = 32,
    on_bad_image: OnBadImage = "error",
    precision: Precision = "auto",
    force: bool = False,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> Vectors:
    """Embed a catalogue into `out`. The same call after an interruption computes only what is missing.

    Args:
        cache: features of a frozen vision encoder; by default those that training keeps on disk, of the recipe's size.

    Raises:
        BadInput: `out` holds something else; `visual` from a variant without one; what `encode` raises.
    """
    if visual and not model.variant.micl:
        raise BadInput(
            f"variant {model.recipe.variant} has no visual vector", "leave out --visual, or use micl or notellm2"
        )
    run: dict[str, object] = {
        "fingerprint": fingerprint,
        "items": items.digest(),
        "images": images_digest(items, images) if model.variant.image else None,
        "visual": visual,
        "on_bad_image": on_bad_image,
        "precision": precision,
        "shard": SHARD,
    }
    ensure_writable_file(out)
    ensure_outside_bundles(out)
    if out.exists() and not force:
        stored = _stored_run(out) or {}
        if stored == run:
            return replace(read_vectors(out), done_before=True)
        if is_of_sizes(stored.get("images")) and stored | {"images": run["images"]} == run:
            raise BadInput(f"{out} {OF_SIZES}", "--force embeds again, or give another -o")
        raise BadInput(
            f"{out} holds vectors of another model, other items or other images",
            "give another -o, or --force to replace it",
        )
    dtype, _ = pick_precision(precision, model.device)
    states = state_cache(model.llm, model.recipe.train.feature_cache_gb, dtype, memory=False)
    if cache is None:
        cache = feature_cache(model.vision, model.recipe.train.feature_cache_gb, images, dtype, memory=False)
    shards = _shard_folder(out, run | {"computed in": str(dtype)})  # `auto` may choose otherwise the next time
    for number, start in enumerate(range(0, len(items), SHARD)):
        part = items.items[start : start + SHARD]
        shard = shards / f"{number:06d}.parquet"
        if not shard.is_file():
            encoded = encode(
                model, part, images=images, batch_size=batch_size, on_bad_image=on_bad_image, precision=precision,
                cache=cache, states=states, progress=_shifted(progress, start, len(items)),
            )  # fmt: skip
            _write(encoded, shard, visual, {})
        elif progress:
            progress(min(start + SHARD, len(items)), len(items))
    return _merge(shards, out, run)


def write_vectors(encoded: Encoded, fingerprint: str, out: Path) -> None:
    """Write vectors that were not made by `embed`, in the format of `read_vectors`."""
    _write(encoded, out, False, {"fingerprint": fingerprint})


def read_vectors(path: Path) -> Vectors:
    """Read an embed file.

    Raises:
        BadInput: the file is not what `n2kit embed` writes.
    """
    if not path.is_file():
        raise BadInput(f"no vectors file {path}", "n2kit embed makes one")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: not a Parquet file: {error}".splitlines()[0], "n2kit embed makes one") from None
    if not {"id", "vector"} <= set(table.column_names):
        raise BadInput(f"{path}: has no columns id and vector", "n2kit embed makes such a file")
    meta = _meta(table.schema, path)
    visual = _matrix(table.column("visual_vector"), path) if "visual_vector" in table.column_names else None
    ids = ["" if i is None else str(i) for i in table.column("id").to_pylist()]
    vectors = _matrix(table.column("vector"), path)
    if not np.isfinite(vectors).all():
        broken = ids[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
        raise BadInput(f"{path}: the vector of {broken!r} is not finite", "embed again")
    if "" in ids or len(set(ids)) != len(ids):
        twice = next((i for i, count in Counter(ids).items() if count > 1), "")
        raise BadInput(
            f"{path}: " + (f"id {twice!r} is there twice" if twice else "a row has no id"), "one row an item"
        )
    return Vectors(ids, vectors, str(meta.get("fingerprint", "unknown")), visual, meta.get("skipped", {}))


def _meta(schema: pa.Schema, path: Path) -> dict[str, Any]:
    """Read what n2kit noted in a file; nothing in one that it did not write."""
    meta = parse_json((schema.metadata or {}).get(META, b"{}"), f"{path}: metadata {META.decode()}", hint="embed again")
    if not isinstance(meta, dict):
        raise BadInput(f"{path}: metadata {META.decode()}: not a JSON object", "embed again")
    return meta


def _matrix(column: pa.ChunkedArray, path: Path) -> np.ndarray:
    """Convert a column of lists of one length to a matrix [n, d], without null lists."""
    problem = BadInput(
        f"{path}: column of vectors is no list of numbers of one length", "n2kit embed makes such a file"
    )
    if not len(column):
        raise BadInput(f"{path}: no vectors", "embed at least one item")
    try:
        lengths = set(pc.list_value_length(column).to_pylist())
        flat = np.asarray(pc.list_flatten(column).to_numpy(), dtype=np.float32)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, ValueError):
        raise problem from None
    if len(lengths) != 1 or None in lengths or flat.size != len(column) * (width := lengths.pop()) or not width:
        raise problem
    return flat.reshape(len(column), width)


def _shard_folder(out: Path, run: dict[str, object]) -> Path:
    """Make the folder of finished shards, and remove one that another command left for the same file."""
    key = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]
    folder = out.with_name(f".{out.name}.parts-{key}")
    for left in out.parent.glob(f"{glob.escape(folder.name.removesuffix(key))}*"):
        if left != folder:
            shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _stored_run(out: Path) -> dict[str, object] | None:
    try:
        meta = _meta(pq.read_schema(out), out)
    except (pa.ArrowInvalid, OSError):
        return None
    stored = meta.get("run")
    return stored if isinstance(stored, dict) else None


def _write(encoded: Encoded, path: Path, visual: bool, meta: dict[str, object]) -> None:
    columns: dict[str, pa.Array] = {"id": pa.array(encoded.ids, pa.string()), "vector": _column(encoded.vectors)}
    if visual:
        columns["visual_vector"] = _column(encoded.visual if encoded.visual is not None else encoded.vectors[:0])
    table = pa.table(columns).replace_schema_metadata({META: json.dumps({"skipped": encoded.skipped} | meta).encode()})
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def _column(matrix: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.astype(np.float32).ravel()), matrix.shape[1])


def _merge(shards: Path, out: Path, run: dict[str, object]) -> Vectors:
    files = sorted(shards.glob("*.parquet"))
    tables = [pq.read_table(f) for f in files]
    skipped: dict[str, str] = {}
    for file, table in zip(files, tables, strict=True):
        skipped |= _meta(table.schema, file)["skipped"]
    meta = {META: json.dumps({"fingerprint": run["fingerprint"], "run": run, "skipped": skipped}).encode()}
    whole = pa.concat_tables([t.replace_schema_metadata(meta) for t in tables])
    if not len(whole):
        raise BadInput("every item had to be skipped", "check --images and --on-bad-image")
    with atomic_write(out) as temporary:
        pq.write_table(whole, temporary)
    shutil.rmtree(shards)
    return read_vectors(out)


def _shifted(progress: Progress | None, start: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(start + done, total)
