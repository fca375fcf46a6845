"""n2kit embed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from n2kit.errors import counted
from n2kit_cli import options
from n2kit_cli.output import document, say
from n2kit_cli.progress import progress
from n2kit_cli.reading import Reading, reads_items


class Without(StrEnum):
    """A modality that is taken away from the items."""

    image = "image"
    text = "text"


@reads_items
def embed(
    bundle: options.Bundle,
    reading: Reading,
    out: Annotated[Path, typer.Option("-o", "--out", help="The Parquet file to write: id, vector.")],
    visual: Annotated[
        bool, typer.Option("--visual", help="Also write visual_vector, the image's own (micl, notellm2).")
    ] = False,
    without: Annotated[
        Without | None, typer.Option("--without", help="Take images or texts away; an item with nothing else keeps it.")
    ] = None,
    batch_size: options.BatchSize = 32,
    precision: options.Compute = options.Precision.auto,
    device: options.Device = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Embed a catalogue: one unit vector an item. Interrupted, the same command computes only what is missing.

    \b
    Examples:
      n2kit embed models/tiny --items items.jsonl --images images -o vectors.parquet
      n2kit embed models/tiny --items items.jsonl --images images -o both.parquet --visual --on-bad-image text-only --json
    """
    from n2kit.bundle.io import read_manifest, read_recipe
    from n2kit.utils.files import ensure_writable_file
    from n2kit.utils.folders import ensure_outside_bundles
    from n2kit.utils.locks import output_lock

    ensure_writable_file(out, [reading.items])
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
        print(out)
    made = f"{counted(len(vectors.ids), 'vector')} of {vectors.vectors.shape[1]}"
    say(f"{'finished before:' if vectors.done_before else 'wrote'} {out}: {made}")
