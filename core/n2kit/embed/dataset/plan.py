"""The plan of a folder: which shards are to be computed, of which items; made once, and shared by all that work on it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from n2kit.data.item import Item
from n2kit.data.item_stream import ColumnsChangedError
from n2kit.embed.dataset.content import contents_of, total
from n2kit.embed.dataset.format import MANIFEST, PLAN, SHARDS, WORK, Run
from n2kit.embed.dataset.known import KnownRows
from n2kit.embed.dataset.reading import Dataset
from n2kit.embed.dataset.spool import batches, write_spool
from n2kit.errors import BadInput
from n2kit.utils.arrow import array_of
from n2kit.utils.files import atomic_write, read_json, write_json
from n2kit.utils.locks import InUseError, file_lock

BATCH = 1024  # items that are compared at a time
REMOVED = "removed.parquet"
OURS = {MANIFEST, SHARDS, WORK, ".lock"}  # and `removed-NNNNNN.parquet`


@dataclass(frozen=True)
class Order:
    """A wish: items, and all that decides their vectors.

    source: identifies the items without reading them. reads_images: whether the model does. append: grow a finished folder.
    """

    run: Run
    source: str
    images: Path | None
    reads_images: bool
    on_bad_image: str
    append: bool = False
    shard_size: int = 1024

    def key(self, base: str) -> dict[str, Any]:
        """Tell orders apart whose plans differ."""
        names = ("source", "on_bad_image", "append", "shard_size", "reads_images")
        return {name: getattr(self, name) for name in names} | {"run": self.run.model_dump(), "base": base}


@dataclass(frozen=True)
class Plan:
    """Shards `first` to `first + shards`, of `items` items; of a folder that grows, what stays and what goes."""

    key: dict[str, Any]
    first: int
    shards: int
    items: int
    kept: int = 0
    removed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)  # of the items that stay
    content: str = ""  # of the whole catalogue, where it is known before the shards are

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.shards)


def base_of(folder: Path) -> str:
    """Hash the manifest of a finished folder; empty for one that is not."""
    file = folder / MANIFEST
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def read_plan(folder: Path) -> Plan | None:
    """Read the plan of a folder that is not finished."""
    file = folder / WORK / PLAN
    return Plan(**read_json(file)) if file.is_file() else None


def make_plan(folder: Path, items: Iterable[Item], order: Order) -> Plan:
    """Lay the items down in shards, and write the plan: for all items, or for those that a finished folder lacks."""
    while True:
        try:
            return _made(folder, items, order)
        except ColumnsChangedError:
            continue


def _made(folder: Path, items: Iterable[Item], order: Order) -> Plan:
    work, base = folder / WORK, base_of(folder)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    dataset = Dataset.open(folder) if base else None
    known, content, before = (
        KnownRows(dataset) if dataset else None,
        "",
        {} if dataset is None else dataset.manifest.skipped,
    )
    first = len(dataset.manifest.shards) if dataset else 0
    seen, number = 0, first
    new: list[Item] = []
    skipped: dict[str, str] = {}
    for batch in batches(iter(items), min(BATCH, order.shard_size)):
        seen += len(batch)
        if known is not None:
            contents = contents_of(batch, order.images, reads_images=order.reads_images)
            content = total(contents, content)
            fresh = known.new(batch, contents)
            skipped |= {i: before[i] for i in {item.id for item in batch} - {item.id for item in fresh} if i in before}
            batch = fresh
        new += batch
        while len(new) >= order.shard_size:
            write_spool(work, number, new[: order.shard_size])
            new, number = new[order.shard_size :], number + 1
    if new:
        write_spool(work, number, new)
        number += 1
    count = (number - first - bool(new)) * order.shard_size + len(new)
    gone = known.gone() if known is not None else np.zeros((0, 2), np.int64)
    if len(gone):
        with atomic_write(work / REMOVED) as temporary:
            pq.write_table(
                pa.table({"shard": array_of(gone[:, 0]), "row": array_of(gone[:, 1])}),
                temporary,
                write_page_checksum=True,
            )
    plan = Plan(order.key(base), first, number - first, count, seen - count, len(gone), skipped, content)
    write_json(work / PLAN, asdict(plan))
    return plan


def compared(folder: Path, items: Iterable[Item], order: Order) -> bool:
    """Tell whether a finished folder holds just these items."""
    while True:
        content, count = "", 0
        try:
            for batch in batches(iter(items), BATCH):
                content = total(contents_of(batch, order.images, reads_images=order.reads_images), content)
                count += len(batch)
        except ColumnsChangedError:
            continue
        return content == Dataset.open(folder).manifest.content


def check_run(folder: Path, there: dict[str, Any], run: Run) -> None:
    """Check that a folder is of this run.

    Raises:
        BadInput: it is of another model, or of other settings.
    """
    for name, value in run.model_dump().items():
        if there.get(name) != value:
            what = {"fingerprint": "model", "dim": "--dim", "dtype": "--dtype", "visual": "--visual"}.get(name, name)
            raise BadInput(
                f"{folder} holds vectors of another {what}: {there.get(name)}, and not {value}",
                "give another -o, or --force to begin anew",
            )


def check_folder(folder: Path) -> None:
    """Check that a folder is none yet, empty, or one of vectors.

    Raises:
        BadInput: it is something else.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder", "give another -o; a file of vectors ends in .parquet")
    names = {file.name for file in folder.iterdir()}
    foreign = sorted(n for n in names - OURS if not n.startswith("removed-"))
    if foreign or (MANIFEST in names and SHARDS not in names):
        raise BadInput(
            f"{folder} holds {(foreign or [MANIFEST])[0]!r}, which n2kit embed did not write", "give another -o"
        )


def clear(folder: Path) -> None:
    """Remove all that was written into a folder of vectors."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in (WORK, SHARDS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for file in folder.glob("removed-*.parquet"):
        file.unlink()


def worker_lock(folder: Path, name: str) -> Path:
    """Name the lock that a process holds as long as it works by a folder's plan."""
    return folder / WORK / f"worker-{name}.lock"


def ensure_nobody_works(folder: Path, why: str) -> None:
    """Check that no process works by the folder's plan, which is about to go.

    Raises:
        BadInput: one does.
    """
    for lock in (folder / WORK).glob("worker-*.lock"):
        try:
            with file_lock(lock, str(folder), remove=True):
                pass
        except InUseError as problem:
            raise BadInput(f"{problem.message}, {why}", "wait for it, or end it") from None
