"""The report of a matrix: from its cells to tables and a page.

results = read_results(folder)
columns, rows = table(aggregate(results))
write(folder, items, images)            # report.html, results.md, results.csv, results.tex
"""

from n2kit.bench.cell_row import CellRow
from n2kit.bench.report.aggregate import Leaderboard, aggregate
from n2kit.bench.report.compare import Comparison, compare
from n2kit.bench.report.read import Results, read_results
from n2kit.bench.report.summary import summary, warning
from n2kit.bench.report.tables import table
from n2kit.bench.report.write import write

__all__ = [
    "CellRow",
    "Comparison",
    "Leaderboard",
    "Results",
    "aggregate",
    "compare",
    "read_results",
    "summary",
    "table",
    "warning",
    "write",
]
