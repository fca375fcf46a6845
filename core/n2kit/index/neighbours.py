"""The neighbours of all items of an index, written to one file; interrupted, only what is missing is computed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from n2kit.data.tables import ensure_parquet_name
from n2kit.errors import BadInput
from n2kit.index.choice import MANIFEST
from n2kit.index.folder import StoredIndex, load_index
from n2kit.index.rules import Kept, Rules
from n2kit.utils.arrow import array_of
from n2kit.utils.files import atomic_write, ensure_writable_file
from n2kit.utils.folders import ensure_outside_bundles, parts_folder
from n2kit.utils.locks import output_lock
from n2kit.utils.ray_queue import RayOptions, run_queue

BLOCK = 4096  # items a part: what an interrupted run loses at most
META = b"n2kit neighbours"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Neighbours:
    """A file of neighbours: of how many items, in how many rows; computed: items of this run."""

    file: Path
    items: int
    rows: int
    computed: int


def all_neighbours(
    index: Path,
    out: Path,
    k: int,
    rules: Rules | None = None,
    *,
    mutual: bool = False,
    ray: RayOptions | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Neighbours:
    """Write id, rank, neighbour and score of the k nearest other items of each item, in the order of the index.

    Args:
        rules: who may stand in a list; the next ones take the places. mutual: leave out a neighbour that has not the item among its own k.
        ray: which Ray computes the parts; None: this process does.

    Raises:
        BadInput: no index; a column that it does not remember; `out` holds something else.
    """
    rules = rules or Rules()
    ensure_writable_file(out, [index])
    ensure_parquet_name(out)
    ensure_outside_bundles(out)
    with output_lock(out):
        stored = load_index(index)
        Kept(stored, rules)  # before hours of work: a column that the index does not remember
        run = {"index": hashlib.sha256((index / MANIFEST).read_bytes()).hexdigest(), "k": k, "mutual": mutual} | asdict(
            rules
        )
        run |= {"cap": list(rules.cap) if rules.cap else None}
        if (done := _finished(out, run, force)) is not None:
            return Neighbours(out, len(stored.ids), done, 0)
        parts = _Parts.of(out, run)
        blocks = _Blocks(index.absolute(), parts, k, rules, BLOCK, len(stored.ids))
        computed = _compute(blocks, stored, ray, progress)
        written = _write(out, stored, parts, k, run, mutual=mutual)
        shutil.rmtree(parts.folder, ignore_errors=True)
    return Neighbours(out, len(stored.ids), written, computed)


@dataclass(frozen=True)
class _Blocks:
    """The work on all blocks of `size` items, as it is sent to an actor of Ray, which opens the index for itself."""

    index: Path
    parts: _Parts
    k: int
    rules: Rules
    size: int
    items: int

    def __call__(self) -> Callable[[int], int]:
        return self.worker(load_index(self.index))

    def worker(self, stored: StoredIndex) -> Callable[[int], int]:
        """Return what writes the part of the block that starts at a row, and says of how many items it has computed any."""
        kept = Kept(stored, self.rules) if self.rules else None

        def compute(start: int) -> int:
            rows = np.arange(start, start + self.count(start))
            if self.parts.whole(start, len(rows), self.k):
                return 0
            self.parts.write(start, *_block(stored, rows, self.k, kept))
            return len(rows)

        return compute

    def count(self, start: int) -> int:
        return min(self.size, self.items - start)


def _compute(blocks: _Blocks, stored: StoredIndex, ray: RayOptions | None, progress: Progress | None) -> int:
    """Compute the parts that are missing, here or by Ray; return of how many items."""
    done = computed = 0

    def take(start: int, fresh: int) -> bool:
        nonlocal done, computed
        done, computed = done + blocks.count(start), computed + fresh
        if progress:
            progress(done, blocks.items)
        return True

    starts = range(0, blocks.items, blocks.size)
    if ray is not None:
        run_queue(ray, blocks.index, blocks, starts, take)
    else:
        work = blocks.worker(stored)
        for start in starts:
            take(start, work(start))
    return computed


def _block(stored: StoredIndex, queries: np.ndarray, k: int, kept: Kept | None) -> tuple[np.ndarray, np.ndarray]:
    """Find the neighbours of rows [q]: rows [q, k] and scores [q, k]; row -1 where there are fewer."""
    rows = np.full((len(queries), k), -1, np.int32)
    scores = np.zeros((len(queries), k), np.float32)
    vectors, left = stored.index.vectors(queries), np.arange(len(queries))
    reach = min(len(stored.ids), k + 1 if kept is None else 2 * k + 1)
    while len(left):
        near_scores, near = stored.index.search(vectors[left], reach)
        short = []
        for n, own_scores, own in zip(left, near_scores, near, strict=True):
            keep = (own != queries[n]) & (own >= 0) if kept is None else kept(int(queries[n]), own)
            found = own[keep][:k]
            rows[n, : len(found)], scores[n, : len(found)] = found, own_scores[keep][:k]
            if len(found) < k and kept is not None:
                short.append(n)
        if reach == len(stored.ids):
            break
        left, reach = np.array(short, np.int64), min(len(stored.ids), 4 * reach)
    return rows, scores


@dataclass(frozen=True)
class _Parts:
    """The parts that are done, in a folder beside the file; each has rows and scores [q, k]."""

    folder: Path

    @classmethod
    def of(cls, out: Path, run: dict[str, object]) -> _Parts:
        return cls(parts_folder(out, run))

    def file(self, start: int) -> Path:
        return self.folder / f"{start:010d}.npz"

    def whole(self, start: int, count: int, k: int) -> bool:
        """Tell whether a part is there, and not cut short: its numbers have checksums."""
        try:
            rows, scores = self.read(start)
        except Exception:  # whatever a damaged archive raises
            return False
        return rows.shape == scores.shape == (count, k)

    def read(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        with np.load(self.file(start), allow_pickle=False) as found:
            return found["rows"], found["scores"]

    def write(self, start: int, rows: np.ndarray, scores: np.ndarray) -> None:
        with atomic_write(self.file(start)) as temporary, temporary.open("wb") as file:
            np.savez(file, rows=rows, scores=scores)


def _write(out: Path, stored: StoredIndex, parts: _Parts, k: int, run: dict[str, object], *, mutual: bool) -> int:
    """Put the parts together, a part in memory at a time; return the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"id": pa.string(), "rank": pa.int32(), "neighbour": pa.string(), "score": pa.float32()})
    meta = {META: json.dumps(run, sort_keys=True)}
    ids, written = pa.array(stored.ids, pa.string()), 0
    every = _all_rows(parts, len(ids), k) if mutual else None
    with atomic_write(out) as temporary, pq.ParquetWriter(temporary, schema.with_metadata(meta)) as writer:
        for start, rows, scores in _each(parts, len(ids)):
            keep = rows >= 0
            if every is not None:
                queries = np.arange(start, start + len(rows))[:, None, None]
                keep &= (every[np.maximum(rows, 0)] == queries).any(axis=2)
            query, place = np.nonzero(keep)
            rank = keep.cumsum(axis=1)[query, place]
            columns = [
                ids.take(array_of(start + query)),
                rank.astype(np.int32),
                ids.take(array_of(rows[query, place])),
                scores[query, place],
            ]
            writer.write_table(
                pa.table([array_of(c) if isinstance(c, np.ndarray) else c for c in columns], schema=writer.schema)
            )
            written += len(query)
    return written


def _each(parts: _Parts, count: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for start in range(0, count, BLOCK):
        yield start, *parts.read(start)


def _all_rows(parts: _Parts, count: int, k: int) -> np.ndarray:
    """Lay the rows of all parts into one file that is mapped into memory: [n, k]."""
    every = np.memmap(parts.folder / "rows", np.int32, "w+", shape=(count, k))
    for start, rows, _ in _each(parts, count):
        every[start : start + len(rows)] = rows
    return every


def _finished(out: Path, run: dict[str, object], force: bool) -> int | None:
    """Return the number of rows of a file that is the result of this very run; None where there is none.

    Raises:
        BadInput: it holds something else, and may not be replaced.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if force or not out.exists():
        return None
    try:
        meta = pq.read_metadata(out)
        same = json.loads((meta.metadata or {})[META]) == run
    except (pa.ArrowException, OSError, ValueError, KeyError):
        raise BadInput(f"{out} exists, and holds no neighbours", "give another -o, or move it away") from None
    if not same:
        raise BadInput(f"{out} holds neighbours of another index or by other rules", "--force, or give another -o")
    return int(meta.num_rows)
