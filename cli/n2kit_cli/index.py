"""n2kit index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import document, say


def index(
    vectors: Annotated[Path, typer.Argument(help="A Parquet file that n2kit embed wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The index's folder.")],
    kind: Annotated[str, typer.Option("--type", help="n2kit ls index.")] = "flat",
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Index vectors for search.

    \b
    Examples:
      n2kit index vectors.parquet -o catalogue.index
    """
    from n2kit.index import build_index

    stored = build_index(vectors, out, name=kind, force=force)
    if json:
        document({"index": str(out), "items": len(stored.ids), "fingerprint": stored.fingerprint})
    else:
        print(out)
    say(f"wrote {out}: {len(stored.ids)} items of model {stored.fingerprint}")
