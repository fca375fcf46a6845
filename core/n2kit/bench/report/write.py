"""All files of a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from n2kit.bench.report.aggregate import aggregate
from n2kit.bench.report.read import read_results
from n2kit.bench.report.tables import csv_text, latex, markdown

if TYPE_CHECKING:
    from n2kit.data.items import Items


def write(
    folder: Path,
    items: Items | None = None,
    images: Path | None = None,
    *,
    metric: str | None = None,
    planned: int | None = None,
) -> list[Path]:
    """Write results.md, results.csv and results.tex into `folder`, from the cells that are there; more may come.

    Args:
        metric: by which arms are ordered and compared; default recall at the middle cut-off.
        planned: how many cells the matrix has.

    Raises:
        BadInput: no results there, or a damaged one.
    """
    board = aggregate(read_results(folder), metric, planned=planned)
    texts = {"results.md": markdown(board), "results.csv": csv_text(board), "results.tex": latex(board)}
    written = []
    for name, text in texts.items():
        aside = folder / f".{name}.tmp"
        aside.write_text(text, encoding="utf8")
        written.append(aside.replace(folder / name))
    return written
