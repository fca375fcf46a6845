"""n2kit index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit.errors import counted
from n2kit_cli import options
from n2kit_cli.output import document, say
from n2kit_cli.pages import read_titles


def index(
    vectors: Annotated[Path, typer.Argument(help="A Parquet file that n2kit embed wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The index's folder.")],
    kind: Annotated[str, typer.Option("--type", help="n2kit ls index.")] = "flat",
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
    """
    from n2kit.index import build_index

    titles = read_titles(items, images, item_format, renames, lenient, encoding)
    stored = build_index(vectors, out, name=kind, titles=titles, force=force)
    named = None if titles is None else sum(i in titles.items for i in stored.ids)
    if json:
        facts = {"index": str(out), "items": len(stored.ids), "fingerprint": stored.fingerprint}
        document(facts | ({} if named is None else {"titles": named}))
    else:
        print(out)
    remembered = "" if named is None else f", {named:,} of them with a title"
    say(f"wrote {out}: {counted(len(stored.ids), 'item')} of model {stored.fingerprint}{remembered}")
