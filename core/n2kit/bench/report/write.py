"""The files of a report."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from n2kit.bench.report.aggregate import aggregate
from n2kit.bench.report.page import page
from n2kit.bench.report.plugged import plugged_sections
from n2kit.bench.report.read import read_results
from n2kit.bench.report.tables import csv_text, latex, markdown
from n2kit.utils.files import write_text

if TYPE_CHECKING:
    from n2kit.data.items import Items


def write(
    folder: Path,
    items: Items | None = None,
    images: Path | None = None,
    *,
    pool: Collection[str] | None = None,
    metric: str | None = None,
    planned: int | None = None,
) -> list[Path]:
    """Write report.html, results.md, results.csv and results.tex into `folder`, from its finished cells; more may come.

    Args:
        items, images: what neighbours are shown with; without items the page has none.
        pool: ids that may be found, as they were evaluated; default: every item that is no query.
        metric: by which arms are ordered and compared; default recall at the middle cut-off.
        planned: how many cells the matrix has.

    Raises:
        BadInput: no results there, or a damaged one.
    """
    board = aggregate(read_results(folder), metric, planned=planned)
    further = plugged_sections(board.results)
    texts = {
        "report.html": page(board, items, images, pool, further),
        "results.md": markdown(board, further),
        "results.csv": csv_text(board),
        "results.tex": latex(board),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
