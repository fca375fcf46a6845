"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit.errors import BadInput, counted, truncate_list
from n2kit.recipe.limits import MOST_RESAMPLES
from n2kit_cli.output import say

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Sequence

    from n2kit.data.items import Items
    from n2kit.data.items_read import ItemsRead
    from n2kit.data.pairs import Pairs
    from n2kit.modeling.model import Model
    from n2kit.plugins.manager import RegisteredComponent
    from n2kit.utils.ray_queue import RayOptions


class OnBadImage(StrEnum):
    """The treatment of an image that cannot be read."""

    error = "error"
    skip = "skip"
    text_only = "text-only"


class Precision(StrEnum):
    """The precision of the computation; `auto` takes bf16 only where this machine is faster with it."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class EngineName(StrEnum):
    """Where the work is done: here, or by Ray."""

    local = "local"
    ray = "ray"


def _bundle(path: Path | None) -> Path | None:
    from n2kit.utils.folders import bundle_folder

    return None if path is None else bundle_folder(path)


OF_ONE = "A bundle of n2kit build, or a run of n2kit train or n2kit fit."
Bundle = Annotated[Path, typer.Argument(callback=_bundle, help=OF_ONE)]
BundleOrNone = Annotated[Path | None, typer.Argument(callback=_bundle, help=f"{OF_ONE} Or --llm and --vision.")]
TunedBundle = Annotated[Path, typer.Argument(callback=_bundle, help="A bundle or a run that was tuned with lora.")]
ReferringBundle = Annotated[
    Path, typer.Argument(callback=_bundle, help="A bundle or a run that refers to weights elsewhere.")
]
GeneratingBundle = Annotated[
    Path, typer.Argument(callback=_bundle, help="A bundle that was built with --loss notellm, and trained; or its run.")
]
IndexedBundle = Annotated[
    Path | None,
    typer.Option(
        "--bundle", callback=_bundle, help="For an item outside the catalogue: the model that made the index."
    ),
]
CountingBundle = Annotated[
    Path | None,
    typer.Option("--bundle", callback=_bundle, help="Count the tokens of its prompts, and the items that are cut."),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output, nothing else on stdout.")]
ItemsFile = Annotated[
    Path,
    typer.Option(
        "--items",
        help="Items: CSV with any separator, JSON, JSON lines, Parquet, a tar of samples, or a folder of shards.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", exists=True, file_okay=False, help="The folder that image paths are relative to."),
]
FetchImages = Annotated[
    Path | None,
    typer.Option("--fetch-images", file_okay=False, help="Download images that are URLs into this folder, once."),
]
AUTO = "auto"  # the format of items that the file itself tells
FORMATS = "auto; notellm: the paper's headerless CSV; or a plug-in's, as n2kit plugins list has them."
Format = Annotated[str, typer.Option("--format", help=FORMATS)]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", help="Name a column: --map title=name, of pairs --map query=left. Repeatable."),
]
Encoding = Annotated[
    str | None, typer.Option("--encoding", help="Of text files that are not UTF-8: cp1252, gb18030, shift_jis …")
]
Lenient = Annotated[
    bool, typer.Option("--lenient", help="Drop unusable rows instead of refusing the file; they are counted.")
]
BadImage = Annotated[OnBadImage, typer.Option("--on-bad-image", help="What to do with an image that cannot be read.")]
Html = Annotated[
    Path | None, typer.Option("--html", help="Write a page: items and their nearest neighbours, with pictures.")
]
Engine = Annotated[EngineName, typer.Option(help="ray: the work is done where Ray has room; needs n2kit[ray].")]
RayAddress = Annotated[str | None, typer.Option(help="A running Ray cluster, or auto; default: Ray is started here.")]
Actors = Annotated[int | None, typer.Option("--jobs", min=1, help="Actors of Ray; default: one a GPU, or one a node.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting: --set train.lr=1e-4. Repeatable; n2kit config show lists them."),
]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="A YAML file of settings.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; default: the best there is.")]
Tuned = Annotated[
    str | None,
    typer.Option(
        "--tune", help="How parts are trained: llm=lora:16,vision=last:2 (frozen, last:K, lora:R, qlora:R, full)."
    ),
]
Rates = Annotated[
    str | None, typer.Option("--lr", help="Learning rate: 1e-4 of all that is trained, or llm=1e-5,connector=1e-4.")
]
VariantName = Annotated[
    str | None,
    typer.Option(
        "--variant",
        help="notellm2, micl, late_early_fusion, only_late_fusion, basic, text_only, image_only; "
        "late_whitened and joined_whitened, for n2kit fit.",
    ),
]
Combination = Annotated[str | None, typer.Argument(help="A combination's id: LLM+VISION+CONNECTOR+FUSION.")]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Items at a time; default: 32, on a GPU by tokens.")
]
Bootstrap = Annotated[
    int,
    typer.Option(
        "--bootstrap",
        min=0,
        max=MOST_RESAMPLES,
        help="Samples of the queries, drawn for the 95 % intervals; 0 for none.",
    ),
]
BootstrapSeed = Annotated[int, typer.Option("--seed", min=0, help="Of whatever is drawn.")]
Compute = Annotated[
    Precision, typer.Option("--precision", help="auto takes bf16 only where this machine is faster with it.")
]


def of_component(registered: RegisteredComponent) -> dict[str, dict[str, Any]]:
    """Describe the options of a component: name → description, default and type."""
    from n2kit.plugins.manager import load_target
    from n2kit.recipe.schema import kind_of

    schema = load_target(registered.spec.config, owner=registered.distribution).model_json_schema()
    return {
        name: {"description": facts.get("description"), "default": facts.get("default"), "type": kind_of(facts)}
        for name, facts in schema.get("properties", {}).items()
    }


def columns(renames: list[str] | None) -> tuple[dict[str, str], dict[str, str]]:
    """Parse --map into field → column, of items and of pairs.

    Raises:
        BadInput: an entry that is not field=column, or no such field.
    """
    from n2kit.data import columns, pair_columns
    from n2kit.errors import BadInput, suggest

    found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    known = (*columns.FIELDS, *pair_columns.FIELDS)
    for rename in renames or []:
        name, equals, column = rename.partition("=")
        if not equals or not column:
            raise BadInput(f"--map {rename!r}: expected field=column", "for example --map title=name")
        if name not in known:
            raise BadInput(f"--map {rename}: no such field", suggest(name, known) or f"fields: {', '.join(known)}")
        found[name in pair_columns.FIELDS][name] = column
    return found


def read(
    items: Path, item_format: str, renames: list[str] | None, lenient: bool, encoding: str | None = None, kept: Collection[str] = ()
) -> Items:  # fmt: skip
    """Read the items that the shared options name, and say in one line what they have; also what was dropped.

    kept: the columns that are remembered, though they are no field.
    """
    from n2kit.data.items import read_items

    read = read_items(items, columns=columns(renames)[0], format=item_format, lenient=lenient, encoding=encoding)
    tell_read(read, items, lenient=True, kept=kept)
    return read


def tell_read(read: ItemsRead, items: Path, *, lenient: bool, kept: Collection[str] = ()) -> None:
    """Say what a catalogue has, and the rows of it that a lenient reading dropped."""
    say(read.summary(kept))
    if lenient:
        dropped(items, read.dropped)
    for note in read.notes[:3]:
        say(f"note: {note}")
    if len(read.notes) > 3:
        say(f"note: and {len(read.notes) - 3:,} more of the kind")


def read_pairs(
    file: Path,
    known: Container[str],
    lenient: bool,
    *,
    graded: bool = False,
    negatives: bool = False,
    renames: list[str] | None = None,
    encoding: str | None = None,
) -> Pairs:
    """Read pairs of `known` ids, and report dropped rows."""
    from n2kit.data.pairs import read_pairs

    found = read_pairs(
        file, known, columns=columns(renames)[1], lenient=lenient, graded=graded, negatives=negatives, encoding=encoding
    )
    dropped(file, found.dropped)
    for note in found.notes:
        say(f"note: {note}")
    return found


def loading(bundle: Path) -> None:
    """Say which models a bundle is of, before they are loaded: that may take minutes."""
    from n2kit.bundle.manifest import read_manifest

    parts = read_manifest(bundle).parts
    names = dict.fromkeys(
        str(parts[kind]["reference"]) for kind in ("llm", "vision") if "reference" in parts.get(kind, {})
    )
    say(f"loading {bundle}: {' and '.join(names)}")


def load_model(bundle: Path, device: str | None) -> Model:
    """Load a bundle onto the device that --device names, or the best there is."""
    loading(bundle)
    from n2kit.bundle.io import load
    from n2kit.utils.device import pick_device

    return load(bundle).to(pick_device(device))


def ray_options(engine: EngineName, address: str | None, jobs: int | None) -> RayOptions | None:
    """Return which Ray is to do the work; None: this process.

    Raises:
        BadInput: actors are counted, and there is no Ray.
    """
    from n2kit.utils.ray_queue import RayOptions

    if engine is EngineName.ray or address is not None:
        return RayOptions(address, jobs)
    if jobs is not None:
        raise BadInput(f"--jobs {jobs}: actors of Ray, and this process works alone", "--engine ray")
    return None


def dropped(file: Path, problems: list[str]) -> None:
    """Report the rows that a lenient reading left out."""
    if problems:
        say(f"{file}: dropped {counted(len(problems), 'row')}: {truncate_list(problems)}")


def report_skipped(
    reasons: dict[str, str], counts: dict[str, int], out: Path | None = None, dropped: Sequence[str] = ()
) -> None:
    """Report the items that were used without an image, or not at all; write them and the dropped rows to `OUT.skipped.csv`."""
    from n2kit.data.skipped import write_skipped

    file = None if out is None else write_skipped(out, reasons, dropped)
    if reasons:
        parts = (f"{counts['skipped']:,} skipped", f"{counts['text_only']:,} read as text only")
        said = f"{counted(len(reasons), 'item')} could not be used as they are ({', '.join(parts)})"
        say(f"{said}: {truncate_list(list(reasons.values()))}" + (f"; all are in {file}" if file else ""))
    elif file:
        say(f"the dropped rows are in {file}")
