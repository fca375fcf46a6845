"""n2kit embed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from n2kit.data.tables import ensure_parquet_name
from n2kit.errors import BadInput, counted
from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.embed_folder import FolderOptions, embed_folder, is_file
from n2kit_cli.output import document, emit, say
from n2kit_cli.progress import progress
from n2kit_cli.reading import Reading, reads_items


class Without(StrEnum):
    """A modality that is taken away from the items."""

    image = "image"
    text = "text"


class DType(StrEnum):
    """The type in which vectors are stored."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


@takes_data()
@reads_items
def embed(
    bundle: options.Bundle,
    reading: Reading,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="NAME.parquet: a file; any other name: a folder, for catalogues of any size."),
    ],
    visual: Annotated[
        bool, typer.Option("--visual", help="Also write visual_vector, the image's own (micl, notellm2).")
    ] = False,
    without: Annotated[
        Without | None, typer.Option("--without", help="Take images or texts away; an item with nothing else keeps it.")
    ] = None,
    batch_size: options.BatchSize = None,
    precision: options.Compute = options.Precision.auto,
    device: options.Device = None,
    dim: Annotated[
        int | None, typer.Option(min=1, help="Keep the first numbers of each vector alone (loss matryoshka). Folder.")
    ] = None,
    dtype: Annotated[
        DType, typer.Option(help="How vectors are stored; int8 with a scale each. Folder.")
    ] = DType.float32,
    append: Annotated[
        bool, typer.Option("--append", help="Embed what is new or changed, and remove what is gone. Folder.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(help="2/4: the second of four processes on the same folder, on any machines. Folder.")
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Items a shard: what a process that is killed loses at most. Folder.")
    ] = None,
    engine: options.Engine = options.EngineName.local,
    ray_address: options.RayAddress = None,
    jobs: options.Actors = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Embed a catalogue: one unit vector an item. Interrupted, the same command computes only what is missing.

    \b
    Examples:
      n2kit embed models/tiny --items items.jsonl --images images -o vectors.parquet
      n2kit embed models/tiny --items items.jsonl --images images -o both.parquet --visual --on-bad-image text-only --json
      n2kit embed runs/tiny --items items.jsonl --images images -o trained.parquet
      n2kit embed models/tiny --items items.jsonl --images images -o vectors --dtype float16
      n2kit embed models/tiny --items items.jsonl --images images -o vectors --dtype float16 --append
    """
    own = FolderOptions(dim, dtype.value, append, shard, shard_size, engine, ray_address, jobs)
    if not is_file(out):
        ensure_parquet_name(out)  # no folder called v.csv either
        embed_folder(
            bundle, reading, out, own, without=without and without.value, device=device, force=force, json=json,
            visual=visual, batch_size=batch_size, precision=precision.value,
        )  # fmt: skip
        return
    if flag := own.given():
        raise BadInput(f"{flag} is of a folder of vectors, and {out} is a file", f"-o {out.with_suffix('')}")
    from n2kit.bundle.io import read_manifest, read_recipe
    from n2kit.utils.files import ensure_writable_file
    from n2kit.utils.folders import ensure_outside_bundles
    from n2kit.utils.locks import output_lock

    ensure_writable_file(out, [reading.items])
    ensure_parquet_name(out)
    ensure_outside_bundles(out)
    manifest = read_manifest(bundle)
    catalogue = reading.catalogue(read_recipe(bundle).variant)
    read = catalogue
    if without is not None:
        catalogue = catalogue.without(without.value)
    from n2kit.embed import embed as run

    with output_lock(out), progress("embed") as bar:  # before the model is loaded: another process may be at it
        model = options.load_model(bundle, device)
        vectors = run(
            model, manifest.fingerprint, catalogue, out, images=reading.images, visual=visual, batch_size=batch_size,
            on_bad_image=reading.on_bad_image.value, precision=precision.value, force=force, progress=bar, notify=say,
        )  # fmt: skip
    counts = reading.skipped(vectors.skipped, catalogue, out)
    if json:
        facts = {
            "out": str(out),
            "items": len(vectors.ids),
            "width": vectors.vectors.shape[1],
            "fingerprint": vectors.fingerprint,
        }
        document(facts | {"skipped": vectors.skipped, "counts": counts, "read": read.facts()})
    else:
        emit(out)
    made = f"{counted(len(vectors.ids), 'vector')} of {vectors.vectors.shape[1]}"
    say(f"{'finished before:' if vectors.done_before else 'wrote'} {out}: {made}")
