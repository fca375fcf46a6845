"""n2kit data pack."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2kit_cli import options
from n2kit_cli.data_split import tell_passed_over
from n2kit_cli.output import document, emit, say
from n2kit_cli.progress import progress

if TYPE_CHECKING:
    from n2kit.datasets.pack_formats import Form


class FormName(StrEnum):
    """The form of the shards."""

    parquet = "parquet"
    webdataset = "webdataset"


FORMS: dict[FormName, Form] = {FormName.parquet: "parquet", FormName.webdataset: "tar"}


def pack(
    data: Annotated[Path, typer.Argument(help="The data folder: items, and the images that they name.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The data folder to write; the items are in OUT/items.")],
    form: Annotated[
        FormName, typer.Option("--form", help="parquet: shards for the datasets library; webdataset: tars of samples.")
    ] = FormName.parquet,
    shard_items: Annotated[int, typer.Option("--shard-items", min=1, help="Items of a shard.")] = 2000,
    on_bad_image: options.BadImage = options.OnBadImage.error,
    item_format: options.Format = options.AUTO,
    renames: Annotated[
        list[str] | None, typer.Option("--map", help="Name a column of the items: --map title=name. Repeatable.")
    ] = None,
    encoding: options.Encoding = None,
    lenient: options.Lenient = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Pack pictures beside their rows: a few shards in place of a million files. The same command again goes on.

    Every command reads them, as --data OUT or --items OUT/items; pictures are read in place, and unpacked nowhere.

    \b
    Examples:
      n2kit data pack . -o packed
      n2kit data pack . -o packed-tars --form webdataset --shard-items 1000 --json
    """
    from n2kit.datasets.pack import pack as run
    from n2kit.utils.folders import ensure_outside_bundles

    ensure_outside_bundles(out)
    with progress("pack") as bar:
        made = run(
            data, out, form=FORMS[form], shard_items=shard_items, on_bad_image=on_bad_image.value, lenient=lenient,
            columns=options.columns(renames)[0], item_format=item_format, encoding=encoding, force=force, progress=bar,
        )  # fmt: skip
    if json:
        document(vars(made) | {"folder": str(out), "form": form.value})
    else:
        emit(out)
    tell_passed_over(data)
    options.dropped(data, made.rows)
    if not made.done_before:  # the list of before stays
        options.report_skipped(
            made.bad, {"skipped": made.skipped, "text_only": made.text_only}, out / "items", made.rows
        )
    say(f"{'finished before: ' if made.done_before else ''}{made.sentence()}")
