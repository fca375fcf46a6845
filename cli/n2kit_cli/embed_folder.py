"""n2kit embed -o FOLDER."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.errors import BadInput, counted
from n2kit_cli import options
from n2kit_cli.output import document, emit, say
from n2kit_cli.progress import progress
from n2kit_cli.streaming import Streamed, images_folder

if TYPE_CHECKING:
    from n2kit.embed.dataset.format import Manifest
    from n2kit.embed.dataset.run import Embedded
    from n2kit_cli.reading import Reading


@dataclass(frozen=True)
class FolderOptions:
    """The flags that a folder of vectors has, and a file has not, at their defaults."""

    dim: int | None = None
    dtype: str = "float32"
    append: bool = False
    shard: str | None = None
    shard_size: int | None = None
    engine: options.EngineName = options.EngineName.local
    ray_address: str | None = None
    jobs: int | None = None

    def given(self) -> str | None:
        """Return the first flag that was given."""
        own = FolderOptions()
        found = next((f.name for f in fields(self) if getattr(self, f.name) != getattr(own, f.name)), None)
        return None if found is None else f"--{found.replace('_', '-')}"


def is_file(out: Path) -> bool:
    """Tell whether `-o` means a file of vectors, and not a folder."""
    return out.suffix.lower() in (".parquet", ".pq") or (out.exists() and not out.is_dir())


def place_of(shard: str | None) -> tuple[int, int]:
    """Parse --shard 2/4 into (1, 4); of a process that torchrun started, its own place.

    Raises:
        BadInput: it is no such thing.
    """
    from n2kit.utils.launcher import is_launched

    if shard is None:
        return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if is_launched() else (0, 1)
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise BadInput(f"--shard {shard}: no place among several", "--shard 1/4 is the first of four processes")
    return int(found[1]) - 1, int(found[2])


def embed_folder(
    bundle: Path, reading: Reading, out: Path, own: FolderOptions, *, without: str | None, device: str | None,
    force: bool, json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Embed into a folder, and say what was done."""
    from n2kit.bundle.io import read_manifest, read_recipe
    from n2kit.embed.dataset.plan import check_folder
    from n2kit.embed.dataset.ray import RayEngine
    from n2kit.embed.dataset.run import SHARD, Settings
    from n2kit.embed.dataset.run import embed_folder as run

    check_folder(out)
    ray = options.ray_options(own.engine, own.ray_address, own.jobs)
    if ray is not None and own.shard is not None:
        raise BadInput(f"--shard {own.shard}: Ray shares out the shards itself", "leave out --shard, or --engine ray")
    place = place_of(own.shard)
    manifest = read_manifest(bundle)
    items = Streamed(reading, read_recipe(bundle).variant, without)
    how = Settings(
        images=images_folder(reading), dim=own.dim, dtype=own.dtype, on_bad_image=reading.on_bad_image.value,  # type: ignore[arg-type]
        **settings,
    )  # fmt: skip
    model = options.load_model(bundle, device or _own_gpu())
    if own.dim is not None and model.recipe.loss.name != "matryoshka":
        say(
            f"note: --dim {own.dim} keeps the first of {model.width} numbers, which loss {model.recipe.loss.name} did not train to hold "
            f"the most: neighbours may be others; n2kit index --dim {own.dim} of whole vectors measures how many"
        )
    with progress("embed") as bar:
        done = run(
            model, manifest.fingerprint, items, out, how, source=items.source, append=own.append, place=place,
            shard_size=own.shard_size or SHARD, engine=None if ray is None else RayEngine(bundle, how, device, ray), force=force,
            progress=bar, notify=say,
        )  # fmt: skip
    _report(done, out, items, json=json)


def _report(done: Embedded, out: Path, items: Streamed, *, json: bool) -> None:
    made: Manifest = done.dataset.manifest
    counts = {"skipped": len(made.skipped) - made.text_only, "text_only": made.text_only}
    if items.passed or made.skipped:
        options.report_skipped(made.skipped, counts, out, items.stream.dropped if items.passed else ())
    if json:
        facts = {"out": str(out), "items": made.items, "width": made.run.dim, "dtype": made.run.dtype}
        facts |= {"fingerprint": made.run.fingerprint, "shards": len(made.shards)}
        facts |= {"new": done.new, "kept": done.kept, "removed": done.removed}
        document(facts | {"skipped": made.skipped, "counts": counts, "read": items.facts()})
    else:
        emit(out)
    grown = f" ({done.new:,} of them new, {counted(done.removed, 'row')} removed)" if done.kept else ""
    said = f"{counted(made.items, 'vector')} of {made.run.dim} in {counted(len(made.shards), 'shard')}{grown}"
    say(f"{'finished before:' if done.done_before else 'wrote'} {out}: {said}")


def _own_gpu() -> str | None:
    """Name the GPU of a process that a launcher started; None for the best device."""
    from n2kit.utils.device import pick_device
    from n2kit.utils.launcher import is_launched

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if is_launched() and pick_device().type == "cuda" else None
