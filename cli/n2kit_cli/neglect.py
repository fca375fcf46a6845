"""n2kit neglect."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit.errors import counted
from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.evaluate import cutoffs, interval
from n2kit_cli.output import document, emit, say, table
from n2kit_cli.pages import check_page, write_page
from n2kit_cli.progress import progress
from n2kit_cli.reading import Reading, reads_items

if TYPE_CHECKING:
    from n2kit.evaluate.neglect import Neglect

RESULT, PLOT = "neglect.json", "neglect.png"


@takes_data(pairs="test")
@reads_items
def neglect(
    bundle: options.Bundle,
    reading: Reading,
    pairs: Annotated[Path, typer.Option(help="Test pairs: query id, target id.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help=f"A folder for {RESULT} and {PLOT}.")] = None,
    saliency: Annotated[
        int, typer.Option(min=0, help="Items whose attention is followed, layer by layer; 0 for none.")
    ] = 32,
    html: options.Html = None,
    k: Annotated[str, typer.Option("--k", help="Cut-offs, separated by commas.")] = "1,10,100",
    bootstrap: options.Bootstrap = 1000,
    seed: options.BootstrapSeed = 0,
    batch_size: options.BatchSize = None,
    precision: options.Compute = options.Precision.auto,
    device: options.Device = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Measure whether a model uses the image: recall without image, without text, with another item's image; saliency by layer.

    \b
    Examples:
      n2kit neglect models/tiny --items items.jsonl --images images --pairs test.csv
      n2kit neglect models/tiny --items items.jsonl --images images --pairs train.csv --saliency 8 -o runs/neglect --json
    """
    from n2kit.bundle.io import read_manifest, read_recipe
    from n2kit.utils.folders import FolderKind, ensure_writable
    from n2kit.utils.locks import output_lock

    read_manifest(bundle)
    ks = cutoffs(k)
    check_page(html, reading.items, pairs)
    kind = FolderKind("results of neglect", _written)
    with ExitStack() as held:
        if out is not None:
            ensure_writable(out, kind, force=force)
            held.enter_context(output_lock(out))
            ensure_writable(out, kind, force=force)  # now that no other process writes it
        catalogue = reading.catalogue(read_recipe(bundle).variant)
        positives = reading.pairs(pairs, catalogue)
        from n2kit.evaluate.neglect import Reading as Measured
        from n2kit.evaluate.neglect import neglect as run

        model = options.load_model(bundle, device)
        with progress("neglect") as bar:
            measured = Measured(
                reading.images,
                batch_size,
                reading.on_bad_image.value,
                precision.value,
                lambda condition, done, total: bar(done, total, condition),
            )
            found = run(model, catalogue, positives, measured, ks=ks, resamples=bootstrap, seed=seed, sample=saliency)
        facts = found.to_dict() | {"counts": reading.skipped(found.skipped, catalogue, out), "read": catalogue.facts()}
        for note in found.notes:
            say(f"note: {note}")
        if found.no_saliency:
            say(f"no saliency: {found.no_saliency}")
        if out is not None:
            _write(found, facts, out)
        if html is not None and found.encoded is not None:
            write_page(html, found.encoded, positives, catalogue, reading.images, [found.sentence()], seed)
            say(f"wrote {html}")
    if json:
        document(facts)
    else:
        _tables(found)


def _written(folder: Path) -> set[str] | None:
    """List the files that this command wrote into a folder; None for a folder of anything else."""
    from n2kit.errors import BadInput
    from n2kit.utils.files import read_json, temporaries_of

    try:
        facts = read_json(folder / RESULT).keys()
    except (BadInput, OSError):
        return None
    left = {file.name for name in (RESULT, PLOT) for file in temporaries_of(folder / name)}
    return {RESULT, PLOT, *left} if {"queries", "pool", "altered", "metrics", "effects"} <= facts else None


def _write(found: Neglect, facts: dict[str, Any], out: Path) -> None:
    from n2kit.errors import Unavailable
    from n2kit.evaluate.plots import plot_neglect
    from n2kit.utils.files import write_json

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RESULT, facts)
    try:
        plot_neglect(found, out / PLOT)
    except Unavailable as problem:
        say(f"no plot: {problem.message}; {problem.hint}")
    say(f"wrote {out}")


def _tables(found: Neglect) -> None:
    rows = []
    for condition, figures in found.figures.items():
        effects = found.effects.get(condition, {})
        for name, figure in figures.items():
            if name.startswith("recall@"):
                change = effects.get(name)
                moved = (
                    ("", "", "")
                    if change is None
                    else (f"{change.difference:+.4f}", f"{change.low:+.4f} – {change.high:+.4f}", f"{change.p:.3g}")
                )
                rows.append((condition, name, f"{figure.value:.4f}", interval(figure.low, figure.high), *moved))
    table(("input", "metric", "value", "95 %", "change", "95 % of it", "p"), rows)
    if found.saliency is not None:
        emit()
        shares = [
            (n, *(f"{100 * share:.1f}" for share in layer)) for n, layer in enumerate(found.saliency.shares.tolist(), 1)
        ]
        table(("layer", "S_v, %", "S_t, %", "S_o, %"), shares)
        say(f"saliency of {counted(found.saliency.items, 'item')}")
    say(f"{counted(found.queries, 'query')}, pool of {found.pool:,}, {counted(found.altered, 'item')} altered")
    if sentence := found.sentence():
        say(sentence)
