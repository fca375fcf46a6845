"""n2kit export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.output import document, emit, say
from n2kit_cli.pages import read_titles


@takes_data()
def export(
    source: Annotated[
        Path, typer.Argument(help="A bundle or run, for models; an embed file or an index, for vectors.")
    ],
    out: Annotated[Path, typer.Argument(help="A folder, for models; a file, for vectors.")],
    to: Annotated[
        str,
        typer.Option(
            help="sentence-transformers or onnx: the model; faiss, parquet, qdrant, pgvector or atlas: vectors."
        ),
    ],
    items: Annotated[
        Path | None,
        typer.Option("--items", help="Items, whose words go with the vectors: parquet, qdrant, pgvector and atlas."),
    ] = None,
    images: options.Images = None,
    item_format: options.Format = options.AUTO,
    renames: options.Map = None,
    encoding: options.Encoding = None,
    lenient: options.Lenient = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Export a model or its vectors to another program's form.

    \b
    Examples:
      n2kit export models/tiny --to sentence-transformers exported
      n2kit export with-titles.index --to parquet catalogue.parquet
    """
    from n2kit.export import export as run

    titles = read_titles(items, images, item_format, renames, lenient, encoding)
    done = run(source, to, out, force=force, **({} if titles is None else {"titles": titles}))
    if json:
        document(done)
    else:
        emit(out)
    facts = ", ".join(f"{name} {value}" for name, value in done.items() if name not in ("kind", "out"))
    say(f"wrote {out}{f': {facts}' if facts else ''}")
