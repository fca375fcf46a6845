"""Names and numbers for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from n2kit.bench.cell_row import Axes
from n2kit.bench.report.aggregate import ArmResult, MeanInterval
from n2kit.evaluate.plugged_metrics import OWN
from n2kit.recipe.settings import Recipe
from n2kit.utils.durations import duration

PARTS = ("mllm", "llm", "vision", "connector", "fusion", "loss", "variant")
TITLES = {
    "parameters": "parameters",
    "trained_parameters": "trained weights",
    "train_s": "training time",
    "train_cpu_s": "training, CPU",
    "steps": "steps",
    "embed_ms_item": "embedding, ms an item",
    "peak_memory_mb": "peak memory",
}


def component(spec: str) -> str:
    """Shorten a component's reference: `clip@file:/models/clip-vit-base` → `clip-vit-base`, `hf:org/name` → `name`."""
    for scheme in ("file:", "hf:", "pkg:"):
        if scheme in spec:
            source = spec.partition(scheme)[2].partition("@")[0]
            return re.split(r"[/\\]", source.rstrip("/\\"))[-1] or spec
    return spec


def constant(axes: Iterable[Axes]) -> dict[str, str]:
    """Return axis → its one value, for the axes on which all arms that use them agree."""
    rows = list(axes)
    values = {part: {v for a in rows if (v := getattr(a, part)) is not None} for part in PARTS}
    return {part: found.pop() for part, found in values.items() if len(found) == 1}


def short_names(arms: Sequence[tuple[str, Axes]]) -> dict[str, str]:
    """Name each arm by what differs among them, if that is unique, else by its label: label → name."""
    same = set(constant(axes for _, axes in arms))
    short = {label: _short(label, axes, same) for label, axes in arms}
    taken: dict[str, int] = {}
    for name in short.values():
        taken[name] = taken.get(name, 0) + 1
    return {label: name if taken[name] == 1 else label for label, name in short.items()}


def _short(label: str, axes: Axes, same: set[str]) -> str:
    backbone = axes.mllm or axes.llm
    if axes.baseline is not None or backbone is None or component(backbone) not in label:
        return label
    _, bracket, name = label.removesuffix(")").partition(" (")
    parts = [part for part in PARTS[:-1] if part not in same and (part != "loss" or axes.loss != Recipe().loss.name)]
    joined = [component(v) for part in parts if (v := getattr(axes, part)) is not None]
    tail = [axes.variant] if axes.variant and "variant" not in same else []
    if bracket:  # an arm that has a name says by it what is its own
        tail.append(name)
    else:
        tail += [str(axes.inference)] * (axes.inference not in (None, "both")) + ["untrained"] * (not axes.trained)
        tail += [f"{key.rsplit('.', 1)[-1]} {plain(value)}" for key, value in sorted(axes.setting.items())]
    return " · ".join([" + ".join(joined), *tail] if joined else tail) or label


def plain(value: Any) -> str:
    """Write a setting's value without the brackets of a list or a mapping."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ":".join(map(plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def title(metric: str) -> str:
    """Write a metric as a heading."""
    if not is_own(metric):
        return metric
    return {"mrr": "MRR", "mean_rank": "Mean rank"}.get(metric) or metric.replace("ndcg", "NDCG").replace(
        "recall", "Recall"
    )


def is_own(metric: str) -> bool:
    """Tell whether a metric is n2kit's, and not a plug-in's."""
    return metric.partition("@")[0] in OWN


def share(metric: str) -> bool:
    """Tell whether a metric lies between 0 and 1, and is shown in per cent; one of a plug-in may be anything."""
    return metric != "mean_rank" and is_own(metric)


def number(value: float, metric: str) -> str:
    if not is_own(metric):
        return f"{value:.4g}"
    return f"{100 * value:.1f}" if share(metric) else f"{value:.1f}"


def with_interval(figure: MeanInterval, metric: str) -> str:
    """Write a value as `65.9 ± 4.3`, with half the width of its interval."""
    return f"{number(figure.value, metric)} ± {number((figure.high - figure.low) / 2, metric)}"


def spread(figure: MeanInterval, metric: str) -> str:
    """Write the standard deviation over seeds; of a single seed, an en dash."""
    return "–" if figure.deviation is None else number(figure.deviation, metric)


def signed(value: float, metric: str) -> str:
    return f"{100 * value if share(metric) else value:{'+.1f' if is_own(metric) else '+.4g'}}".replace("-", "−")


def cost(name: str, value: float | None) -> str:
    """Write a cost with its unit; an en dash where it was not measured."""
    if value is None:
        return "–"
    if name in ("parameters", "trained_parameters"):
        return count(value)
    if name in ("train_s", "train_cpu_s"):
        return duration(value)
    if name == "embed_ms_item":
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    if name == "peak_memory_mb":
        return f"{value:.0f} MB" if value < 1000 else f"{value / 1000:.1f} GB"
    return f"{value:g}"


def count(value: float) -> str:
    """Write a number as 135M or 1.7B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def seeds_of(arm: ArmResult, most: int) -> str:
    """Write the number of seeds as `3`, or `2 of 3` where another arm has more."""
    return str(len(arm.rows)) if len(arm.rows) == most or not arm.trained else f"{len(arm.rows)} of {most}"


def natural(text: str) -> list[tuple[int, float, str]]:
    """Make a sorting key that puts `8:1` before `16:1`."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return [(0, float(p), "") if p[0].isdigit() else (1, 0.0, p) for p in parts]
