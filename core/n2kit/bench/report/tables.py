"""One table for a terminal, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from n2kit.bench.cell_row import FAILED, REFUSED
from n2kit.bench.report import labels
from n2kit.bench.report.aggregate import ALPHA, ArmResult, Leaderboard, Verdict
from n2kit.bench.report.summary import summary, warning
from n2kit.contract.report_section import ReportSection

# The columns of costs. Another one: its name in a row's `costs` here, its title and its format in labels.py.
COSTS = ("trained_parameters", "train_s", "embed_ms_item")
PAGE_COSTS = (*COSTS, "peak_memory_mb")
MARKS: dict[Verdict, str] = {
    "best": "best",
    "not separable": "≈ best",
    "seeds overlap": "~ by seed",
    "separable": "",
    "other queries": "other queries",
}
Table = tuple[list[str], list[list[str]]]


def shown_metrics(board: Leaderboard) -> list[str]:
    """Return the metrics to show: recall at every cut-off, MRR, those of plug-ins, and the one that the arms are ordered by."""
    wanted = [n for n in board.metrics if n.startswith("recall@") or n == "mrr" or not labels.is_own(n)]
    return wanted if board.metric in wanted else [*wanted, board.metric]


def telling_metrics(board: Leaderboard) -> list[str]:
    """Return the metrics to show in which arms differ, and the one that they are ordered by."""
    shown = shown_metrics(board)
    if len(board.arms) < 2:
        return shown
    values = {name: {labels.number(arm.figures[name].value, name) for arm in board.arms} for name in shown}
    return [name for name in shown if name == board.metric or len(values[name]) > 1]


def left_out(board: Leaderboard) -> list[str]:
    """Say which metrics are the same for all arms, a sentence each: a column of them would say nothing."""
    value = (
        {name: labels.number(board.arms[0].figures[name].value, name) for name in shown_metrics(board)}
        if board.arms
        else {}
    )
    same = [f"{labels.title(n)} is {v} for every arm." for n, v in value.items() if n not in telling_metrics(board)]
    return same + [f"{name} is left out: its plug-in is not installed here." for name in board.absent]


def legend(board: Leaderboard) -> list[str]:
    """Explain the numbers and marks of a table, a sentence each."""
    m = board.metric
    return [
        "Shares in per cent: mean over seeds ± half the 95 % bootstrap interval over queries.",
        f"Ordered by {m}. Against the best: the paired difference in {m}; “≈ best” is not separable from the best "
        f"(p ≥ {ALPHA:g} after Holm's correction over {max(0, len(board.comparable) - 1)} arms, {board.resamples} resamples).",
        "“~ by seed” differs over queries, but the ranges over seeds overlap: another seed might turn it round.",
    ]


def table(board: Leaderboard) -> Table:
    """Return the columns and the rows of text, best arm first."""
    metrics, names = shown_metrics(board), short_names(board)
    costs = measured(board, COSTS)
    spread = [f"{board.metric}: sd of seeds"] if board.most_seeds > 1 else []
    columns = ["arm", "seeds", *metrics, *spread, "against the best", *(labels.TITLES[c] for c in costs)]
    rows = [
        [
            names[arm.label],
            labels.seeds_of(arm, board.most_seeds),
            *(labels.with_interval(arm.figures[m], m) for m in metrics),
            *(labels.spread(arm.figures[board.metric], board.metric) for _ in spread),
            against(arm, board.metric),
            *(labels.cost(c, arm.costs.get(c)) for c in costs),
        ]
        for arm in board.arms
    ]
    return columns, rows


def against(arm: ArmResult, metric: str) -> str:
    mark = MARKS[arm.verdict]
    return mark if arm.difference is None else f"{labels.signed(arm.difference.value, metric)} {mark}".rstrip()


def problems(board: Leaderboard) -> Table | None:
    """Return the cells that failed or were refused, or None."""
    rows = [[r.arm, str(r.seed), r.state, r.reason, r.hint] for r in board.results.of(FAILED, REFUSED)]
    return (["arm", "seed", "state", "reason", "hint"], rows) if rows else None


def measured(board: Leaderboard, costs: Sequence[str]) -> list[str]:
    return [c for c in costs if any(c in arm.costs for arm in board.arms)]


def short_names(board: Leaderboard) -> dict[str, str]:
    return labels.short_names([(arm.label, arm.axes) for arm in board.arms])


def markdown(board: Leaderboard, further: Sequence[ReportSection] = ()) -> str:
    alert = warning(board)
    lines = ["# Results", "", *_paragraphs(summary(board)), *_paragraphs([alert] if alert else [])]
    lines += [*_markdown_table(board), ""]
    lines += _paragraphs(legend(board) if board.arms else [])
    for section in further:
        lines += [f"## {_marked(section.title)}", "", *_paragraphs([section.text] if section.text else [])]
        lines += [*_pipes([*map(_marked, section.columns)], section.rows), ""] if section.columns else []
    if bad := problems(board):
        lines += ["## Failed and refused", "", *_pipes(*bad), ""]
    return "\n".join(lines)


def _paragraphs(sentences: Sequence[str]) -> list[str]:
    return [" ".join(map(_marked, sentences)), ""] if sentences else []


def _markdown_table(board: Leaderboard) -> list[str]:
    columns, rows = table(board)
    for name in [*shown_metrics(board)]:
        at = columns.index(name)
        top = leaders(board, name)
        for row, arm in zip(rows, board.arms, strict=True):
            if arm.label in top:
                row[at] = f"**{row[at]}**"
    return _pipes(columns, [[_marked(row[0]), *row[1:]] for row in rows], escaped=True)


def leaders(board: Leaderboard, metric: str) -> set[str]:
    """Return the labels of the arms with the best value, among those that ranked the same queries."""
    values = {arm.label: arm.figures[metric].value for arm in board.comparable}
    if not values:
        return set()
    top = min(values.values()) if metric == "mean_rank" else max(values.values())
    return {label for label, value in values.items() if value == top}


def _pipes(columns: Sequence[str], rows: Sequence[Sequence[Any]], escaped: bool = False) -> list[str]:
    ready = rows if escaped else [[_marked(c) for c in row] for row in rows]
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return head + ["| " + " | ".join(row) + " |" for row in ready]


def _marked(text: str) -> str:
    """Escape text so that Markdown shows it as it is."""
    for char in "\\`*[]|<>&":
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())


def csv_text(board: Leaderboard) -> str:
    """Write every number at full precision as CSV, one row an arm."""
    out = io.StringIO()
    rows = [_record(board, arm) for arm in board.arms]
    costs = list(dict.fromkeys(name for arm in board.arms for name in arm.costs))
    if not rows:
        return ""
    writer = csv.DictWriter(out, [*rows[0], *costs], restval="", lineterminator="\n")
    writer.writeheader()
    for row, arm in zip(rows, board.arms, strict=True):
        writer.writerow(row | arm.costs)
    return out.getvalue()


def _record(board: Leaderboard, arm: ArmResult) -> dict[str, Any]:
    axes = arm.axes.model_dump()
    axes["setting"] = json.dumps(axes["setting"], sort_keys=True) if axes["setting"] else ""
    record: dict[str, Any] = {"arm": arm.label} | {k: "" if v is None else v for k, v in axes.items()}
    record |= {"seeds": len(arm.rows), "queries": arm.queries, "pool": arm.ranking.pool}
    for name, f in arm.figures.items():
        record |= {name: f.value, f"{name}_low": f.low, f"{name}_high": f.high}
        record |= {f"{name}_seed_min": min(f.seeds), f"{name}_seed_max": max(f.seeds)}
        record[f"{name}_seed_deviation"] = "" if f.deviation is None else f.deviation
    difference = arm.difference
    record |= {"ordered_by": board.metric, "verdict": arm.verdict, "difference": difference.value if difference else ""}
    record |= {
        "difference_low": difference.low if difference else "",
        "difference_high": difference.high if difference else "",
    }
    return record | {"p": difference.p if difference else "", "p_holm": difference.corrected if difference else ""}


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "[": "{[}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "−": r"$-$", "≈": r"$\approx$", "·": r"$\cdot$", "–": "--", "“": "``", "”": "''", "≥": r"$\geq$",
}  # fmt: skip


def tex_escaped(text: str) -> str:
    """Escape text so that LaTeX prints it as it is, on one line."""
    return "".join(_TEX.get(char, char) for char in " ".join(text.split()))


def latex(board: Leaderboard) -> str:
    """Write a `table` for the booktabs package; the best of each column is bold."""
    columns, rows = table(board)
    metrics = shown_metrics(board)
    lines = ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering"]
    lines += [
        f"\\caption{{{tex_escaped(' '.join(legend(board)))}}}",
        f"\\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
    ]
    lines += ["\\toprule", " & ".join(map(tex_escaped, columns)) + " \\\\", "\\midrule"]
    tops = [leaders(board, m) for m in metrics]
    for arm, row in zip(board.arms, rows, strict=True):
        cells = [tex_escaped(cell) for cell in row]
        for at, top in enumerate(tops, 2):
            if arm.label in top:
                cells[at] = f"\\textbf{{{cells[at]}}}"
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])
