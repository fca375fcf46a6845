"""n2kit fit."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit.errors import counted
from n2kit.utils.folders import next_run
from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.option_groups import chooses
from n2kit_cli.output import document, emit, say, table
from n2kit_cli.pages import Page, check_page
from n2kit_cli.progress import progress
from n2kit_cli.reading import Reading, reads_items

if TYPE_CHECKING:
    from n2kit.whitening.run import FitResult

RUNS = Path("runs")
SHOWN = 5  # candidates, besides the best of each kind


class Fitted(StrEnum):
    """The variants that fitting makes."""

    late_whitened = "late_whitened"
    joined_whitened = "joined_whitened"


@takes_data(pairs="train", val_pairs="val")
@reads_items
@chooses("llm", "vision")
def fit(
    reading: Reading,
    chosen: dict[str, str],
    bundle: options.BundleOrNone = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Positive pairs: two id columns, header optional. Without them nothing can be chosen."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The run folder; default runs/BUNDLE-fit.")] = None,
    val_pairs: Annotated[Path | None, typer.Option(help="More pairs to choose by; nothing is fitted on them.")] = None,
    variant: Annotated[
        Fitted,
        typer.Option(help="joined_whitened: the same vectors, and n2kit train goes on with image and text joined."),
    ] = Fitted.late_whitened,
    width: Annotated[
        int | None, typer.Option(min=1, help="Width of the vectors, by an SVD; default: both halves, uncut.")
    ] = None,
    html: options.Html = None,
    precision: options.Compute = options.Precision.auto,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Join a bundle's text and image by whitening, in closed form: seconds beyond the features, and nothing is trained.

    The fitted bundle is RUN/bundle. Weights and strengths are chosen by cross-validation on the pairs, each half alone among them.

    \b
    Examples:
      n2kit fit models/tiny --items items.jsonl --pairs train.csv --images images -o runs/fitted
      n2kit fit models/tiny --items items.jsonl --images images -o runs/no-pairs --width 32 --json
      n2kit fit --llm qwen:tiny --vision siglip:tiny --data . -o runs/of-data
    """
    from n2kit.bundle.io import read_manifest

    bundle = bundle or _built(chosen)
    read_manifest(bundle)
    check_page(html, reading.items, pairs, val_pairs)
    catalogue = reading.catalogue(variant.value)
    positives = reading.pairs(pairs, catalogue) if pairs else None
    validation = reading.pairs(val_pairs, catalogue) if val_pairs else None
    folder = out or RUNS / f"{next_run(bundle)}-fit"
    say(f"{counted(len(catalogue), 'item')}, {counted(len(positives or ()), 'pair')} → {folder}")
    from n2kit.whitening import fit_bundle

    options.loading(bundle)
    with progress("fit") as bar:
        result = fit_bundle(
            bundle, catalogue, positives, folder, val_pairs=validation, images=reading.images, variant=variant.value,
            width=width, on_bad_image=reading.on_bad_image.value, precision=precision.value, device=device,
            progress=bar,
        )  # fmt: skip
    counts = reading.skipped(result.skipped, catalogue, folder)
    if html is not None:
        page = Page(html, catalogue, validation or positives, reading.images, reading.on_bad_image, device)
        page.write(result.bundle, 0, result.sentence)
    _show(result, {"counts": counts, "read": catalogue.facts()} if json else None)


def _built(chosen: dict[str, str]) -> Path:
    """Build the bundle that --llm and --vision name, in its usual place, unless it is there.

    Raises:
        BadInput: neither is given.
    """
    from contextlib import redirect_stdout

    from n2kit.errors import BadInput
    from n2kit_cli.build import MODELS, build
    from n2kit_cli.plan import planned, slug

    if not chosen:
        raise BadInput("Missing argument 'BUNDLE'", "n2kit fit --help; or --llm and --vision, which build one")
    folder = MODELS / slug(planned(None, chosen, None, None).id)
    if (folder / "manifest.json").is_file():
        say(f"using {folder}, which was built before")
    else:
        with redirect_stdout(sys.stderr):  # its tables are remarks here
            build(**chosen, out=folder)
    return folder


def _show(result: FitResult, json: dict[str, Any] | None) -> None:
    """Print the table of candidates, the sentence, and the bundle; or the one document of `--json`, with these further facts."""
    if json is not None:
        document(vars(result) | json)
    elif result.table:
        table(("candidate", "λ text", "λ image", "w", "MRR"), _rows(result.table), title="Cross-validated candidates")
    for note in _notes(result.items):
        say(f"note: {note}")
    say(f"this run was finished before: {result.bundle}" if result.done_before else result.sentence)
    if json is None:
        emit(result.bundle)


def _notes(counts: dict[str, int]) -> list[str]:
    """Say which half the items lack, or no pair has on both sides."""
    if not counts["texts"] or not counts["images"]:
        return [f"no item has {'an image' if counts['texts'] else 'a text'}: the other half is all there is"]
    unpaired = [half for half in ("text", "image") if counts.get(f"{half}_pairs") == 0]
    notes = [f"no pair has {half}s on both sides: they are whitened by those of all items" for half in unpaired]
    if len(unpaired) == 2:
        notes.append(
            "so these pairs say nothing: whitening does not compare a text with an image, a trained model does"
        )
    return notes


def _rows(candidates: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Choose the rows to show: the best ones, and the best of each kind."""
    kinds: set[str] = set()
    rows = []
    for number, one in enumerate(candidates):
        if number < SHOWN or one["kind"] not in kinds:
            numbers = (one["text_strength"], one["image_strength"], one["image_weight"])
            rows.append((one["kind"], *numbers, f"{one['mrr']:.3f}"))
        kinds.add(one["kind"])
    return rows
