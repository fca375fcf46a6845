"""n2kit neighbours."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from n2kit.errors import BadInput, counted
from n2kit_cli import options
from n2kit_cli.output import document, emit, say
from n2kit_cli.progress import progress


def neighbours(
    index: Annotated[Path, typer.Argument(help="An index that n2kit index wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The Parquet file to write: id, rank, neighbour, score.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Neighbours an item.")] = 50,
    mutual: Annotated[
        bool, typer.Option("--mutual", help="Leave out a neighbour that has not the item among its own.")
    ] = False,
    exclude_same: Annotated[
        str | None, typer.Option("--exclude-same", help="A column: neighbours with the item's own value are left out.")
    ] = None,
    cap: Annotated[
        str | None, typer.Option("--cap", help="category=3: at most three neighbours of one category in a list.")
    ] = None,
    engine: options.Engine = options.EngineName.local,
    ray_address: options.RayAddress = None,
    jobs: options.Actors = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write the nearest neighbours of all items. Interrupted, the same command computes only what is missing.

    \b
    Examples:
      n2kit neighbours catalogue.index -k 5 -o neighbours.parquet
      n2kit neighbours with-titles.index -k 5 --mutual --exclude-same category -o others.parquet --json
    """
    from n2kit.index.neighbours import all_neighbours
    from n2kit.index.rules import Rules

    ray = options.ray_options(engine, ray_address, jobs)
    begun = time.perf_counter()
    with progress("neighbours") as bar:
        done = all_neighbours(
            index, out, k, Rules(exclude_same, _cap(cap)), mutual=mutual, ray=ray, force=force, progress=bar
        )
    pace = round(done.computed / (time.perf_counter() - begun)) if done.computed else None
    if json:
        document(
            {"out": str(out), "items": done.items, "rows": done.rows, "computed": done.computed, "items_a_second": pace}
        )
    else:
        emit(out)
    made = f"{counted(done.rows, 'row')} of {counted(done.items, 'item')}"
    say(f"wrote {out}: {made}, {pace:,} items a second" if pace else f"finished before: {out}: {made}")


def _cap(text: str | None) -> tuple[str, int] | None:
    """Parse `category=3`.

    Raises:
        BadInput: it is no such thing.
    """
    if text is None:
        return None
    column, _, number = text.rpartition("=")
    if not column or not number.isdigit() or not int(number):
        raise BadInput(f"--cap {text}: expected COLUMN=NUMBER", "--cap category=3")
    return column, int(number)
