"""The report as one self-contained HTML page: it loads nothing, and whatever users wrote is text in it."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from n2kit.bench.cell_row import DONE, CellRow
from n2kit.bench.report import charts, labels, neighbours, panels, sections, tables
from n2kit.bench.report.aggregate import Leaderboard
from n2kit.bench.report.summary import summary, warning
from n2kit.contract.report_section import ReportSection
from n2kit.data.items import Items
from n2kit.errors import counted
from n2kit.pages.render import environment as page_environment
from n2kit.utils.files import real_path
from n2kit.utils.version import VERSION
from n2kit.utils.yaml_files import read_yaml

FACTS = 80  # lines of the environment
DATA = {  # a matrix's keys, as the page calls them
    "items": "items", "pairs": "training pairs", "val_pairs": "validation pairs", "test_pairs": "test pairs", "images": "images",
}  # fmt: skip


def page(
    board: Leaderboard,
    items: Items | None,
    images: Path | None,
    pool: Collection[str] | None = None,
    further: Sequence[ReportSection] = (),
) -> str:
    """Render the page as HTML.

    Args:
        items, images: what the neighbours are shown with; without them there is no such section.
        pool: ids that may be found; default: every item that is no query.
        further: sections of plug-ins.
    """
    environment = page_environment("n2kit.bench.report")
    script = environment.get_template("page.js").render()
    environment.filters["n"] = lambda value: f"{value:.2f}".rstrip("0").rstrip(".")
    colours = sections.colours(board)
    shown = neighbours.examples(board, pool) if items is not None else []
    found, more = panels.panels(board)
    context: dict[str, Any] = {
        "version": VERSION,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "title": real_path(board.results.folder).name,
        "facts": _facts(board, items),
        "sentences": summary(board),
        "warning": warning(board),
        "legend": [*tables.legend(board), *tables.left_out(board)],
        "seeds": len({len(arm.rows) for arm in board.arms}) > 1,
        "unit": ", %" if labels.share(board.metric) else "",
        "metric": board.metric,
        "metric_title": labels.title(board.metric),
        "metrics": [(m, labels.title(m) + (", %" if labels.share(m) else "")) for m in tables.telling_metrics(board)],
        "costs": [(c, labels.TITLES[c]) for c in tables.measured(board, tables.PAGE_COSTS)],
        "rows": sections.rows(board, colours),
        "colours": colours,
        "prices": sections.prices(board, colours),
        "panels": [sections.drawn(panel, board) for panel in found],
        "more_panels": more,
        "saliency": sections.saliency(board),
        "saliency_limit": sections.CURVES,
        "buckets": sections.buckets(board),
        "examples": sections.examples(board, shown, items, images),
        "rule": neighbours.RULE,
        "further": further,
        "problems": tables.problems(board),
        "matrix": _matrix_command(board.results.folder),
        "environment": _environment(board),
        "redo": _redo(board),
        "charts": charts,
    }
    return environment.get_template("page.html.j2").render(context)


def _facts(board: Leaderboard, items: Items | None) -> list[tuple[str, str]]:
    """Collect the facts behind the figures, a line each: cells, queries, pool, data, device, versions."""
    counts = ", ".join(f"{n:,} {state}" for state, n in board.results.counts.items())
    facts = [("cells", counts + (f", of {board.planned:,}" if board.planned else ""))]
    if board.best is not None:
        ranking = board.best.ranking
        facts += [
            ("queries", f"{board.best.queries:,} ({counted(len(ranking.pairs), 'pair')})"),
            ("pool", counted(ranking.pool, "item")),
        ]
        seeds = sorted({row.seed for row in board.results.of(DONE)})
        facts += [("protocol", ranking.protocol or "–"), ("seeds", ", ".join(map(str, seeds)))]
    facts[1:1] = _data(board, items)
    devices = dict.fromkeys(row.device for row in board.results.of(DONE) if row.device)
    facts.append(("device", ", ".join(devices) or "–"))
    versions: dict[str, dict[str, None]] = {}
    for row in board.results.of(DONE):
        for name, version in row.versions.items():
            versions.setdefault(name, {})[str(version)] = None
    return [*facts, ("versions", ", ".join(f"{k} {' and '.join(v)}" for k, v in versions.items()) or "–")]


def _data(board: Leaderboard, items: Items | None) -> list[tuple[str, str]]:
    """Name the files that were read, from the matrix; their hashes stand with the environment."""
    matrix = board.results.folder / "matrix.yaml"
    named = read_yaml(matrix) if matrix.is_file() else {}
    found = {key: Path(str(named[key])).name for key in DATA if isinstance(named, dict) and named.get(key)}
    if items is not None:
        found["items"] = f"{len(items):,}" + (f" ({found['items']})" if "items" in found else "")
    return [(DATA[key], found[key]) for key in DATA if key in found]


def _redo(board: Leaderboard) -> list[tuple[str, list[CellRow]]]:
    """Group the cells that have a command by arm, the arms of the table first."""
    cells: dict[str, list[CellRow]] = {arm.label: [] for arm in board.arms}
    for row in board.results.rows:
        if row.command:
            cells.setdefault(row.arm, []).append(row)
    return [(arm, rows) for arm, rows in cells.items() if rows]


def _matrix_command(folder: Path) -> str | None:
    matrix = folder / "matrix.yaml"
    return f"n2kit bench {shlex.quote(str(matrix))} -o {shlex.quote(str(folder))}" if matrix.is_file() else None


def _environment(board: Leaderboard) -> list[tuple[str, str]]:
    def leaves(value: Any, name: str) -> list[tuple[str, str]]:
        if isinstance(value, dict) and value:
            return [leaf for k, v in value.items() for leaf in leaves(v, f"{name}.{k}" if name else str(k))]
        return [(name, "–" if value is None else str(value))]

    hashes = [(f"SHA-256 of {k}", str(v)) for k, v in board.results.data.items() if v]
    return hashes + (leaves(board.results.env, "")[:FACTS] if board.results.env else [])
