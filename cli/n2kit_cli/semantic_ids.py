"""n2kit semantic-ids."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit.errors import counted
from n2kit_cli import options
from n2kit_cli.output import document, emit, say


def semantic_ids(
    vectors: Annotated[Path, typer.Argument(help="A file or a folder that n2kit embed wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The Parquet file to write: id, codes.")],
    levels: Annotated[int, typer.Option(min=1, help="Codes an item.")] = 3,
    codes: Annotated[int, typer.Option(min=2, help="Different codes a level, a power of two.")] = 256,
    like: Annotated[
        Path | None,
        typer.Option(help="An earlier file of semantic ids: the same codes for new vectors of the same model."),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write semantic ids: a few codes an item, of which like items share the first.

    \b
    Examples:
      n2kit semantic-ids vectors.parquet --levels 3 --codes 4 -o ids.parquet
      n2kit semantic-ids vectors.parquet --like ids.parquet -o later.parquet --json
    """
    from n2kit.index.semantic_ids import semantic_ids as run

    done = run(vectors, out, levels=levels, codes=codes, like=like, force=force)
    if json:
        facts = {"out": str(out), "items": done.items, "collisions": done.collisions}
        document(facts | {"largest": done.largest, "used": done.used})
    else:
        emit(out)
    shares = ", ".join(f"{share:.0%}" for share in done.used)
    shared = f"{done.collisions:,} share all codes with another, at most {done.largest:,} together"
    say(f"wrote {out}: {counted(done.items, 'item')}, {shared}; codes used by level: {shares}")
