"""n2kit eval."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import document, say, table


class Protocol(StrEnum):
    """`notellm2`: the paper's."""

    notellm2 = "notellm2"


def evaluate(
    vectors: Annotated[Path, typer.Option(help="A Parquet file that n2kit embed wrote.")],
    pairs: Annotated[Path, typer.Option(help="Test pairs: query id, target id.")],
    protocol: Annotated[
        Protocol, typer.Option(help="Pairs one to one; the pool is every item that is no query.")
    ] = Protocol.notellm2,
    k: Annotated[str, typer.Option("--k", help="Cut-offs, separated by commas.")] = "1,10,100",
    pool: Annotated[
        Path | None, typer.Option(help="Ids that may be found; default: all items of the vectors file.")
    ] = None,
    lenient: options.Lenient = False,
    json: options.Json = False,
) -> None:
    """Recall@k of vectors on test pairs.

    \b
    Examples:
      n2kit eval --vectors vectors.parquet --pairs test.csv
      n2kit eval --vectors vectors.parquet --pairs test.csv --k 10 --pool pool.csv --json
    """
    from n2kit.data.pairs import read_ids, read_pairs
    from n2kit.embed import read_vectors
    from n2kit.errors import BadInput
    from n2kit.evaluate import evaluate as run

    try:
        ks = sorted({int(part) for part in k.split(",")})
    except ValueError:
        ks = []
    if not ks or ks[0] < 1:
        raise BadInput(f"--k {k!r}: expected positive whole numbers", "for example --k 1,10,100")
    table_in = read_vectors(vectors)
    known = set(table_in.ids)
    positives = read_pairs(pairs, known, lenient=lenient)
    options.dropped(pairs, positives.dropped)
    allowed = read_ids(pool, known, lenient=lenient) if pool else None
    report = run(table_in.ids, table_in.vectors, positives, ks=ks, pool=allowed)
    if json:
        document(report.to_dict())
        return
    table(("k", "recall"), [(cut, f"{value:.4f}") for cut, value in report.recall.items()])
    say(f"{report.queries} queries, pool of {report.pool}, protocol {protocol.value}")
