"""n2kit data import and n2kit data demo."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2kit.errors import BadInput, suggest
from n2kit_cli import options
from n2kit_cli.output import document, emit, say
from n2kit_cli.progress import progress

if TYPE_CHECKING:
    from n2kit.datasets.imports.run import Imported

FOLDERS = ("images", "hf-folder")
PAPER = "notellm"


def import_(
    name: Annotated[
        str,
        typer.Argument(
            help="amazon-2014, amazon-2018, amazon-2023, microlens, ninerec, pixelrec, hm, recbole, mmrec, notellm, hf-folder, images."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The data folder to write.")],
    items: Annotated[Path | None, typer.Option("--items", "--meta", help="The catalogue, as it is published.")] = None,
    events: Annotated[
        list[Path] | None, typer.Option("--events", "--reviews", help="The log: reviews, interactions. Repeatable.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", exists=True, file_okay=False, help="The folder of pictures; it is linked, not copied."
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Of a folder of pictures: a table of their texts.")
    ] = None,
    fetch_images: Annotated[
        bool,
        typer.Option(
            "--fetch-images",
            help="Download pictures that are URLs into OUT/images; what is there is not fetched again.",
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option("--fetch-limit", min=1, help="Most pictures to fetch.")] = None,
    fetch_private: Annotated[
        bool, typer.Option("--fetch-private", help="Download from private addresses, too.")
    ] = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Import a public set from its own files, or a folder of pictures, into a data folder. Nothing is downloaded but pictures.

    Every row is counted: written, or dropped for a reason. All ids are texts.

    \b
    Examples:
      n2kit data import images --images images -o imported
      n2kit data import recbole --items shop.item --events shop.inter -o imported-shop --json
    """
    from n2kit.datasets.imports.run import unfinished
    from n2kit.datasets.imports.sets import SETS
    from n2kit.utils.folders import ensure_outside_bundles
    from n2kit.utils.locks import output_lock

    known = (*SETS, *FOLDERS, PAPER)
    if name not in known:
        raise BadInput(f"no public set {name!r}", suggest(name, known) or f"known: {', '.join(known)}")
    ensure_outside_bundles(out)
    with output_lock(out / "items.parquet"), unfinished(out, force=force):
        with progress("import") as bar:
            found = _run(name, out, items, events or [], images, table, bar)
        for noun, count in found.counts.items():
            say(count.sentence(noun.removesuffix("s")))
        for note in found.notes:
            say(f"note: {note}")
        if fetch_images:
            _fetch(out, limit, fetch_private)
    if json:
        document({"out": str(out)} | found.facts())
    else:
        emit(out)


def _run(
    name: str, out: Path, items: Path | None, events: list[Path], images: Path | None, table: Path | None, bar: object
) -> Imported:
    from n2kit.datasets.imports.folders import import_images
    from n2kit.datasets.imports.paper import import_paper
    from n2kit.datasets.imports.run import import_set
    from n2kit.datasets.imports.sets import SETS

    if name in FOLDERS:
        if images is None:
            raise BadInput(f"{name} is a folder of pictures", "--images FOLDER, and --table FILE for their texts")
        return import_images(images, out, table=table)
    if items is None:
        raise BadInput(f"{name} needs its catalogue", "--items FILE (--meta is the same)")
    if name == PAPER:
        return import_paper(items, out, images=images)
    return import_set(SETS[name], out, items=items, events=events, images=images, progress=bar)  # type: ignore[arg-type]


def _fetch(out: Path, limit: int | None, private: bool) -> None:
    """Fetch the pictures of the written items; those that cannot be fetched are counted, and stay URLs."""
    import pyarrow.parquet as pq

    from n2kit.data.fetch import fetch_images
    from n2kit.data.image_source import URL, fetched_path
    from n2kit.errors import truncate_list
    from n2kit.utils.files import ABANDONED, remove_temporaries

    urls = [
        u for u in pq.read_table(out / "items.parquet", columns=["image"])["image"].to_pylist() if u and URL.match(u)
    ]
    folder = out / "images"
    if folder.is_symlink():
        raise BadInput(f"{folder} is a link to a folder of your own", "--fetch-images, or --images")
    remove_temporaries(folder, older=ABANDONED)  # another command may download into it now
    wanted = [u for u in urls if not fetched_path(u, folder).is_file()][:limit]
    with progress("fetch") as bar:
        failed = fetch_images(wanted, folder, private=private, progress=bar)
    there = sum(fetched_path(u, folder).is_file() for u in urls)
    more = "; the same command with --force goes on" if there < len(urls) else ""
    say(f"{there:,} of {len(urls):,} images are in {folder}{more}")
    if failed:
        say(f"{len(failed):,} could not be fetched: {truncate_list([f'{u}: {why}' for u, why in failed.items()])}")


class Demo(StrEnum):
    """A public set that comes from packages."""

    emojinotes = "emojinotes"
    stamps = "stamps"


def demo(
    name: Annotated[Demo, typer.Argument(help="emojinotes comes with n2kit; stamps is a Debian package.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The data folder to write.")],
    deb: Annotated[
        Path | None,
        typer.Option("--from", help="stamps: tuxpaint-stamps-default_….deb, or a folder that it is unpacked in."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a public set whose files come from packages: EmojiNotes, or Tux Paint's stamps.

    \b
    Examples:
      n2kit data demo emojinotes -o emojinotes
    """
    from n2kit.demo.sources import unpack_items
    from n2kit.utils.folders import ensure_outside_bundles
    from n2kit.utils.locks import output_lock

    ensure_outside_bundles(out)
    if out.exists() and not (out / "NOTICE").is_file():
        raise BadInput(f"{out} exists", "give another -o")
    if name is Demo.stamps:
        from n2kit.datasets.stamps import write_stamps

        counts = write_stamps(deb, out)
    else:
        with output_lock(out):
            unpack_items(out)
        counts = {f.stem: sum(1 for _ in f.open("rb")) - (f.suffix == ".csv") for f in sorted(out.glob("*.[cj]s*"))}
    if json:
        document({"out": str(out), "rows": counts})
    else:
        emit(out)
    say(f"wrote {out}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}")
