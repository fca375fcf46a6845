"""The sections of the page, as plain values for the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from n2kit.bench.cell_row import RERUN_HINT, CellRow
from n2kit.bench.report import charts, labels, neighbours, panels, tables
from n2kit.bench.report.aggregate import ArmResult, Difference, Leaderboard
from n2kit.data.items import Items
from n2kit.errors import BadInput

PRICES = ("embed_ms_item", "trained_parameters", "peak_memory_mb", "train_s")
PRICE_TITLES = {
    "embed_ms_item": "milliseconds to embed an item",
    "trained_parameters": "parameters trained",
    "peak_memory_mb": "peak memory",
    "train_s": "time to train",
}
PLOTS = 3
COLOURS = 8
CURVES = 12  # arms whose saliency is drawn
BUCKETS, BUCKET_ARMS = 10, 12  # the largest buckets, the best arms


def colours(board: Leaderboard) -> dict[str, int]:
    """Number the colours of the arms: one for a pair of backbones, or for a vision encoder where there are too many pairs."""
    for name in (_backbones, lambda arm: labels.component(arm.axes.vision) if arm.axes.vision else "no picture"):
        groups = sorted({name(arm) for arm in board.arms if not arm.baseline}, key=labels.natural)
        if len(groups) <= COLOURS:
            return {group: n for n, group in enumerate(groups)}
    return {}


def _backbones(arm: ArmResult) -> str:
    return " + ".join(labels.component(part) for part in (arm.axes.mllm, arm.axes.llm, arm.axes.vision) if part)


def _colour(arm: ArmResult, colours: Mapping[str, int]) -> int | None:
    """Return the number of an arm's colour; None for baselines."""
    if arm.baseline:
        return None
    vision = labels.component(arm.axes.vision) if arm.axes.vision else "no picture"
    return colours.get(_backbones(arm), colours.get(vision))


def rows(board: Leaderboard, colours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Make the rows of the table: text to show and numbers to sort by."""
    m, names = board.metric, tables.short_names(board)
    metrics = tables.telling_metrics(board)
    tops = {name: tables.leaders(board, name) for name in metrics}
    costs = tables.measured(board, tables.PAGE_COSTS)
    track = charts.linear(
        v for arm in board.arms for v in (arm.figures[m].low, arm.figures[m].high, *arm.figures[m].seeds)
    )
    return [
        {
            "arm": arm,
            "number": number,
            "name": names[arm.label],
            "colour": _colour(arm, colours),
            "parts": _parts(names[arm.label]),
            "seeds": labels.seeds_of(arm, board.most_seeds),
            "figures": [
                {
                    "name": name,
                    "sort": arm.figures[name].value,
                    "value": labels.number(arm.figures[name].value, name),
                    "half": labels.number((arm.figures[name].high - arm.figures[name].low) / 2, name),
                    "top": arm.label in tops[name],
                    "title": _spoken(arm, name),
                }
                for name in metrics
            ],
            "plot": _interval(track, arm, m),
            "against": labels.signed(arm.difference.value, m) if arm.difference else "",
            "mark": tables.MARKS[arm.verdict],
            "why": _why(arm, m),
            "costs": [(labels.cost(c, arm.costs.get(c)), arm.costs.get(c, "")) for c in costs],
            "commands": [(row.seed, row.key, row.command) for row in arm.rows if row.command],
        }
        for number, arm in enumerate(board.arms, 1)
    ]


def _parts(name: str) -> tuple[str, str]:
    """Split a name into its two lines: the method, and the backbones."""
    joined, dot, method = name.partition(" · ")
    return (method, joined) if dot else (name, "")


def _spoken(arm: ArmResult, metric: str) -> str:
    f = arm.figures[metric]
    seeds = ", ".join(labels.number(v, metric) for v in f.seeds)
    bounds = f"{labels.number(f.low, metric)} – {labels.number(f.high, metric)}"
    return f"{labels.title(metric)} {labels.number(f.value, metric)}, 95 % interval {bounds}, seeds {seeds}"


def _why(arm: ArmResult, metric: str) -> str:
    if arm.difference is None:
        return ""
    found = arm.difference
    low, high = labels.signed(found.low, metric), labels.signed(found.high, metric)
    return f"95 % interval of the difference {low} to {high}, p {found.p:.2g}, after Holm's correction {found.corrected:.2g}"


def _bounds(difference: Difference, metric: str) -> str:
    return f"{labels.signed(difference.low, metric)} to {labels.signed(difference.high, metric)}"


def _interval(track: charts.Scale, arm: ArmResult, metric: str) -> dict[str, Any]:
    f = arm.figures[metric]
    placed = {name: track.percent(getattr(f, name)) for name in ("low", "value", "high")}
    return placed | {
        "seeds": [track.percent(v) for v in f.seeds] if len(f.seeds) > 1 else [],
        "title": _spoken(arm, metric),
    }


def prices(board: Leaderboard, colours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Make a Pareto plot for each of the first PLOTS costs in which arms differ."""
    m, names = board.metric, tables.short_names(board)
    sign = -1.0 if m == "mean_rank" else 1.0
    plots = []
    for price in PRICES:
        points = [
            charts.Point(
                cost, (f := arm.figures[m]).value, f.low, f.high, number,
                f"{names[arm.label]}: {labels.cost(price, cost)}, {_spoken(arm, m)}", _colour(arm, colours),
            )
            for number, arm in enumerate(board.arms, 1)
            if arm in board.comparable and (cost := arm.costs.get(price)) is not None
        ]  # fmt: skip
        if len({point.cost for point in points}) > 1:
            plot = charts.scatter(points, partial(labels.cost, price), partial(_tick, metric=m), sign)
            front = [
                {"number": s.number, "name": names[board.arms[s.number - 1].label], "colour": s.colour}
                | {"cost": labels.cost(price, s.cost), "value": labels.number(s.value, m)}
                for s in sorted(plot.front, key=lambda s: s.cost)
            ]
            rest = [names[arm.label] for arm in board.comparable if price not in arm.costs]
            plots.append({"title": PRICE_TITLES[price], "plot": plot, "front": front, "unmeasured": rest})
    return plots[:PLOTS]


def _tick(value: float, metric: str) -> str:
    return f"{100 * value if labels.share(metric) else value:g}"


def drawn(panel: panels.Panel, board: Leaderboard) -> dict[str, Any]:
    m = board.metric
    track = charts.linear(
        (v for bar in panel.bars for v in (bar.arm.figures[m].high, *bar.arm.figures[m].seeds)), zero=True
    )
    forest = charts.linear((v for e in panel.effects for v in (e.difference.low, e.difference.high)), zero=True)
    return {
        "title": panel.title,
        "rest": panel.rest,
        "bars": [
            {"name": bar.name, "label": bar.arm.label, "best": bar.best, "tied": bar.tied, "colour": None}
            | {"value": labels.number(bar.arm.figures[m].value, m), "plot": _interval(track, bar.arm, m)}
            for bar in panel.bars
        ],
        "zero": forest.percent(0.0),
        "effects": [
            {
                "what": e.what,
                "steps": f"{e.a} → {e.b}",
                "value": labels.signed(e.difference.value, m),
                "sure": e.difference.separable,
            }
            | {name: forest.percent(getattr(e.difference, name)) for name in ("low", "high")}
            | {"mean": forest.percent(e.difference.value), "up": e.difference.value > 0}
            | {"title": f"{_bounds(e.difference, m)}, p {e.difference.corrected:.2g} (Holm)"}
            for e in panel.effects
        ],
    }


def saliency(board: Leaderboard) -> list[dict[str, Any]]:
    """Average the saliency curves of the best arms over seeds, each layer's as shares of their sum."""
    out: list[dict[str, Any]] = []
    names = tables.short_names(board)
    for arm in board.arms:
        measured = [_curves(row) for row in arm.rows if row.saliency and row.saliency.get("layers")]
        if measured and len({len(curves) for curves in measured}) == 1 and len(out) < CURVES:
            mean = np.mean(measured, axis=0)
            shares = mean / mean.sum(1, keepdims=True).clip(1e-30)
            out.append(
                {"name": names[arm.label], "lines": charts.lines(shares.tolist()), "image": 100 * shares[:, 0].mean()}
            )
    return out


def _curves(row: CellRow) -> np.ndarray:
    try:
        curves = np.asarray((row.saliency or {})["layers"], np.float64)
        if curves.ndim == 2 and curves.shape[1] == 3 and np.isfinite(curves).all():
            return curves
    except (TypeError, ValueError):
        pass
    raise BadInput(f"{row.path}: saliency.layers is not three numbers a layer", RERUN_HINT)


def buckets(board: Leaderboard) -> dict[str, Any] | None:
    """Tabulate the main metric on the largest buckets, for the best arms and the best baseline."""
    m, names = board.metric, tables.short_names(board)
    sizes: dict[str, tuple[int, str]] = {}
    for arm in board.comparable:
        for bucket in arm.rows[0].buckets:
            if m in bucket.metrics:
                sizes.setdefault(bucket.name, (bucket.queries, bucket.rule))
    chosen = sorted(sizes, key=lambda name: (-sizes[name][0], name))[:BUCKETS]
    if not chosen:
        return None
    arms = board.comparable[:BUCKET_ARMS]
    arms += [arm for arm in board.comparable if arm.baseline and arm not in arms][:1]
    shown = [name for name in sizes if name in chosen]  # in the order of the rows
    columns = [{"name": name, "queries": sizes[name][0], "rule": sizes[name][1]} for name in shown]
    lines = [(_parts(names[arm.label]), [_in_bucket(arm, name, m) for name in shown]) for arm in arms]
    heat = charts.linear(cell["number"] for _, cells in lines for cell in cells if cell)
    for cell in (cell for _, cells in lines for cell in cells if cell):
        cell["heat"] = heat.percent(cell["number"])
    return {"columns": columns, "lines": lines}


def _in_bucket(arm: ArmResult, name: str, metric: str) -> dict[str, Any] | None:
    """Return value and half interval: the seeds' own intervals, averaged, are never narrower than that of their mean."""
    found = [b.metrics[metric] for row in arm.rows for b in row.buckets if b.name == name and metric in b.metrics]
    values = [v for f in found if (v := f.get("value")) is not None]
    if not values:
        return None
    halves = [
        (high - low) / 2 for f in found if (low := f.get("low")) is not None and (high := f.get("high")) is not None
    ]
    value = float(np.mean(values))
    half = labels.number(float(np.mean(halves)), metric) if halves else None
    return {"value": labels.number(value, metric), "half": half, "number": value}


def examples(
    board: Leaderboard, shown: Sequence[neighbours.QueryExample], items: Items | None, images: Path | None
) -> dict[str, Any] | None:
    if not shown or items is None:
        return None
    thumbnails = neighbours.Thumbnails(items, images)
    for example in shown:
        for item_id in [example.query, *example.targets[:1], *(i for found in example.found for i in found.items)]:
            thumbnails.add(item_id)
    classes = {item_id: n for n, item_id in enumerate(thumbnails.data)}
    names = tables.short_names(board)
    position = {arm.label: n for n, arm in enumerate(board.arms, 1)}

    def tile(item_id: str, right: bool = False, score: float | None = None) -> dict[str, Any]:
        text, tags = thumbnails.text(item_id), [*filter(None, (item_id, thumbnails.category(item_id)))]
        return {"src": "", "picture": classes.get(item_id), "text": text, "tags": tags, "right": right, "score": score}

    return {
        "thumbnails": [(classes[item_id], data) for item_id, data in thumbnails.data.items()],
        "cards": [
            {
                "query": tile(e.query),
                "target": tile(e.targets[0], True),
                "why": e.why,
                "arms": [
                    {"number": position[f.arm.label], "name": names[f.arm.label], "rank": f.rank}
                    | {"found": [tile(i, i in e.targets, score) for i, score in f.found]}
                    for f in e.found
                ],
            }
            for e in shown
        ],
    }
