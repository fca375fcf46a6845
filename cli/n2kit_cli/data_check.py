"""n2kit data check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import document, say, table
from n2kit_cli.pages import check_page
from n2kit_cli.progress import progress


def check(
    data: Annotated[Path, typer.Argument(help="The data folder.")],
    every_image: Annotated[
        bool, typer.Option("--all-images", help="Open every picture, and not a sample of 1,000.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page: the tables, and pairs with their pictures.")
    ] = None,
    bundle: options.CountingBundle = None,
    template: Annotated[
        str,
        typer.Option(help="Without --bundle: the prompt template whose text rules are shown; en, zh, compact, a file."),
    ] = "en",
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    item_format: options.Format = options.AUTO,
    renames: options.Map = None,
    encoding: options.Encoding = None,
    write_map: Annotated[
        bool,
        typer.Option(
            "--write-map", help="Write --map and --encoding into the folder's columns.yaml, which every command reads."
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Look through a data folder: items, pictures, pairs, splits. Exit 1 where something would break a training.

    \b
    Examples:
      n2kit data check . --html data.html
      n2kit data check . --all-images --json
      n2kit data check . --template compact
    """
    from n2kit.data.column_map import write_columns
    from n2kit.datasets.check import check as run
    from n2kit.datasets.check import named_columns, rows_of
    from n2kit.errors import BadInput

    check_page(html)
    columns, pair_columns = options.columns(renames)
    if write_map and not renames and encoding is None:
        what = "--write-map writes what --map and --encoding say, and there is neither"
        raise BadInput(what, "--map title=name --write-map")
    named = named_columns(data, columns, pair_columns, encoding) if write_map else {}
    builder = None
    if bundle is not None:
        builder = options.load_model(bundle, "cpu").prompt_builder
    with progress("check") as bar:
        found = run(
            data, every_image=every_image, seed=seed, html=html, columns=columns,
            pair_columns=pair_columns, item_format=item_format, encoding=encoding, template=template, builder=builder,
            progress=bar, notify=say,
        )  # fmt: skip
    if json:
        document(vars(found))
    else:
        table(("of", "what", "value"), list(rows_of(found.tables)))
    for remark in found.odd:
        say(f"note: {remark}")
    for problem in found.broken:
        say(f"would break a training: {problem}")
    if html is not None:
        say(f"wrote {html}")
    if write_map and found.refused:
        say(f"columns.yaml is not written: nothing of {' and '.join(found.refused)} can be read like that")
    elif write_map:
        say(f"wrote {write_columns(data, named)}")
    if found.broken:
        raise typer.Exit(1)
