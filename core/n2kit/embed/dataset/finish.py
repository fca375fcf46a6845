"""The last step: the manifest, by which the folder becomes what its shards are."""

from __future__ import annotations

import shutil
from pathlib import Path

from n2kit.embed.dataset.content import total
from n2kit.embed.dataset.format import MANIFEST, WORK, Manifest, RemovedEntry, ShardEntry, shard_name
from n2kit.embed.dataset.plan import REMOVED, Order, Plan
from n2kit.embed.dataset.reading import Dataset
from n2kit.embed.dataset.shard import read_facts, read_shard
from n2kit.errors import BadInput, Failed
from n2kit.utils.digests import file_digest
from n2kit.utils.files import sync, write_text


def finish(folder: Path, plan: Plan, order: Order) -> Dataset:
    """Write the manifest of a folder whose shards are all there, and remove the plan.

    Raises:
        BadInput: no item is left. Failed: a shard cannot be read back.
    """
    before = Dataset.open(folder).manifest if plan.key["base"] else None
    entries, skipped, content = list(before.shards) if before else [], dict(plan.skipped), plan.content
    text_only = len(skipped)
    for number in plan.numbers:
        file = folder / shard_name(number)
        facts = read_facts(file)
        if facts is None:
            raise Failed(f"{file} cannot be read back", "the same command computes it again")
        ids = read_shard(file).column("id").to_pylist()
        entries.append(ShardEntry(name=shard_name(number), rows=len(ids), sha256=file_digest(file)))
        skipped |= facts.skipped
        text_only += len(facts.skipped.keys() & set(ids))
        if not before:
            content = total([bytes.fromhex(facts.content)], content)
    rows = sum(entry.rows for entry in entries)
    removed = _removed(folder, plan, before)
    if rows == (removed.rows if removed else 0):
        raise BadInput("every item had to be skipped", "check --images and --on-bad-image")
    manifest = Manifest(
        run=order.run, items=rows - (removed.rows if removed else 0), on_bad_image=order.on_bad_image, content=content,
        shards=tuple(entries), removed=removed, skipped=dict(sorted(skipped.items())), text_only=text_only,
    )  # fmt: skip
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=1))
    sync(folder)
    _clean(folder, manifest)
    return Dataset(folder, manifest)


def _removed(folder: Path, plan: Plan, before: Manifest | None) -> RemovedEntry | None:
    """Write the rows that are gone, those of before among them, under a name that no manifest has yet."""
    earlier = before.removed if before else None
    if not plan.removed:
        return earlier
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from n2kit.utils.files import atomic_write

    gone = [read_shard(folder / WORK / REMOVED)]
    if earlier is not None:
        gone.append(read_shard(folder / earlier.name))
    table = pa.concat_tables(gone).sort_by([("shard", "ascending"), ("row", "ascending")])
    name = f"removed-{int(earlier.name[8:14]) + 1 if earlier else 1:06d}.parquet"
    with atomic_write(folder / name) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)
    assert len(np.unique(np.stack([table["shard"], table["row"]]), axis=1)[0]) == len(table)
    return RemovedEntry(name=name, rows=len(table), sha256=file_digest(folder / name))


def _clean(folder: Path, manifest: Manifest) -> None:
    """Remove what the manifest does not name: the plan, and an earlier list of removed rows."""
    for file in folder.glob("removed-*.parquet"):
        if manifest.removed is None or file.name != manifest.removed.name:
            file.unlink(missing_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)
