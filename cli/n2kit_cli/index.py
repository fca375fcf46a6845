"""n2kit index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from n2kit.errors import BadInput, counted
from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.output import document, say
from n2kit_cli.pages import read_titles

IndexSets = Annotated[
    list[str] | None, typer.Option("--set", help="An option of the index: --set index.NAME=VALUE. Repeatable.")
]


@takes_data()
def index(
    vectors: Annotated[Path, typer.Argument(help="A Parquet file that n2kit embed wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The index's folder.")],
    kind: Annotated[str, typer.Option("--type", help="NAME or NAME:VALUE; n2kit ls index.")] = "flat",
    sets: IndexSets = None,
    items: Annotated[
        Path | None, typer.Option("--items", help="Items, whose titles the index is to remember for n2kit recommend.")
    ] = None,
    images: options.Images = None,
    item_format: options.Format = options.ItemFormat.auto,
    renames: options.Map = None,
    encoding: options.Encoding = None,
    lenient: options.Lenient = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Index vectors for search.

    \b
    Examples:
      n2kit index vectors.parquet -o catalogue.index
      n2kit index vectors.parquet -o with-titles.index --items items.jsonl --images images
      n2kit index vectors.parquet -o exact.index --type flat --json
    """
    from n2kit.index import build_index, choose_index

    own = _options(sets or [])
    choose_index(kind, own)  # before anything is read
    titles = read_titles(items, images, item_format, renames, lenient, encoding)
    stored = build_index(vectors, out, name=kind, options=own, titles=titles, force=force)
    named = None if titles is None else sum(i in titles.items for i in stored.ids)
    if json:
        facts = {"index": str(out), "items": len(stored.ids), "fingerprint": stored.fingerprint}
        made_by = {"component": stored.made_by.component, "options": stored.made_by.options}
        document(facts | made_by | ({} if named is None else {"titles": named}))
    else:
        print(out)
    remembered = "" if named is None else f", {named:,} of them with a title"
    say(f"wrote {out}: {counted(len(stored.ids), 'item')} of model {stored.fingerprint}{remembered}")


def _options(sets: list[str]) -> dict[str, Any]:
    """Read `--set index.NAME=VALUE` into the index's own options.

    Raises:
        BadInput: a setting of something else.
    """
    from n2kit.recipe.settings import parse_sets

    found = parse_sets(sets)
    for key in found:
        if not key.startswith("index.") or key == "index.":
            hint = "write index.NAME=VALUE" if "." in key else f"write index.{key}"
            raise BadInput(f"--set {key}: n2kit index takes options of the index alone", hint)
    return {key.removeprefix("index."): value for key, value in found.items()}
