"""Panels: arms side by side that differ in one thing only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from n2kit.bench.cell_row import Axes
from n2kit.bench.report import labels
from n2kit.bench.report.aggregate import ArmResult, Difference, Leaderboard, paired_differences
from n2kit.recipe.variants import SPECS

MOST = 24  # panels on a page
TITLES = {
    "variant": "Variants",
    "connector": "Connectors",
    "fusion": "Late fusion",
    "loss": "Losses",
    "inference": "At inference",
    "trained": "Training",
}
DEFAULT = "default"
USUAL = {"inference": "both", "trained": True}
# What a step adds, from which variant, to which variant.
STEPS = (
    ("the picture, in the prompt", "text_only", "basic"),
    ("the text, beside the picture", "image_only", "basic"),
    ("late fusion on the text alone", "text_only", "only_late_fusion"),
    ("late fusion on basic", "basic", "late_early_fusion"),
    ("mICL on basic", "basic", "micl"),
    ("late fusion on mICL", "micl", "notellm2"),
    ("mICL and late fusion together", "basic", "notellm2"),
    ("all of it, over the picture alone", "image_only", "notellm2"),
)


@dataclass
class Bar:
    """An arm in a panel. `tied`: not separable from the panel's best."""

    name: str
    arm: ArmResult
    best: bool = False
    tied: bool = False


@dataclass
class Effect:
    """The change from arm `a` to arm `b`."""

    what: str
    a: str
    b: str
    difference: Difference


@dataclass
class Panel:
    """Arms that differ in `title` only; `rest` is what they share and other panels do not."""

    title: str
    rest: str
    bars: list[Bar]
    effects: list[Effect] = field(default_factory=list)


def panels(board: Leaderboard) -> tuple[list[Panel], int]:
    """Return at most MOST panels, variants first, and how many more there would be."""
    arms = [arm for arm in board.comparable if not arm.baseline]
    found = [*_variants(board, arms), *_one_thing(board, arms, ("inference",))]
    for keys in sorted({tuple(sorted(arm.axes.setting)) for arm in arms} - {()}):
        found += _one_thing(board, [arm for arm in arms if tuple(sorted(arm.axes.setting)) in (keys, ())], keys)
    for axis in ("connector", "fusion", "loss", "trained"):
        found += _one_thing(board, arms, (axis,))
    return found[:MOST], max(0, len(found) - MOST)


def _variants(board: Leaderboard, arms: Sequence[ArmResult]) -> Iterator[Panel]:
    """Yield a panel for each set of parts; a variant that uses fewer of them stands in every panel that it fits."""
    sides = {arm.label: _parts(arm.axes) for arm in arms}
    whole = [s for s in sides.values() if not any(_fits(s, other) and s != other for other in sides.values())]
    for parts in [dict(items) for items in dict.fromkeys(tuple(sorted(s.items(), key=str)) for s in whole)]:
        inside = [arm for arm in arms if _fits(sides[arm.label], parts)]
        order = {name: n for n, name in enumerate(SPECS)}
        inside.sort(key=lambda arm: (order.get(arm.axes.variant or "", len(order)), arm.label))
        if len({arm.axes.variant for arm in inside}) > 1:
            panel = Panel(TITLES["variant"], "", [Bar(str(arm.axes.variant), arm) for arm in inside])
            panel.rest = _rest(board, [(p, parts.get(p)) for p in labels.PARTS])
            panel.rest += "".join(
                f" · {_named(parts[k])}" for k, usual in USUAL.items() if parts.get(k, usual) != usual
            )
            panel.rest += "".join(
                f" · {k.rsplit('.', 1)[-1]} {v}" for k, v in parts.items() if k not in Axes.model_fields
            )
            _judge(panel, board)
            panel.effects = _effects(panel, board)
            yield panel


def _parts(axes: Axes) -> dict[str, Any]:
    """Collect the parts and settings of an arm but its variant, without those that it does not use."""
    parts = axes.model_dump(exclude={"variant", "baseline", "setting"}, exclude_none=True)
    return parts | {key: labels.plain(value) for key, value in axes.setting.items()}


def _fits(fewer: dict[str, Any], more: dict[str, Any]) -> bool:
    """Tell whether all of `fewer` is in `more`, and every setting of `more` is in `fewer`."""
    beside = [key for key in more if key not in Axes.model_fields]
    return all(more.get(k) == v for k, v in fewer.items()) and all(key in fewer for key in beside)


def _one_thing(board: Leaderboard, arms: Sequence[ArmResult], what: tuple[str, ...]) -> Iterator[Panel]:
    """Yield a panel for each set of arms that are equal in all but `what`: one part, or settings that change together."""
    groups: dict[str, list[tuple[str, ArmResult]]] = {}
    for arm in arms:
        everything = arm.axes.model_dump(exclude={"baseline", "setting"}) | arm.axes.setting
        values = [everything.pop(key, DEFAULT) for key in what]
        if None not in values:
            rest = repr(sorted(everything.items(), key=str))
            text = _default(arm) if set(values) == {DEFAULT} else " : ".join(map(_named, values))
            groups.setdefault(rest, []).append((text, arm))
    for members in groups.values():
        if len({value for value, _ in members}) < 2:
            continue
        members.sort(key=lambda m: (m[0] not in ("both", _default(m[1])), labels.natural(m[0])))
        axes = members[0][1].axes
        shared = [(p, getattr(axes, p)) for p in labels.PARTS if p not in what]
        panel = Panel(TITLES.get(what[0], ", ".join(what)), _rest(board, shared), [Bar(v, arm) for v, arm in members])
        panel.rest += "".join(
            f" · {k.rsplit('.', 1)[-1]} {labels.plain(v)}" for k, v in axes.setting.items() if k not in what
        )
        _judge(panel, board)
        yield panel


def _default(arm: ArmResult) -> str:
    """Name an arm without a setting of its own; where other arms come to the same, with their names."""
    return f"{DEFAULT} ({', '.join(arm.rows[0].also)})" if arm.rows[0].also else DEFAULT


def _named(value: Any) -> str:
    if isinstance(value, bool):
        return "trained" if value else "as it is built"
    return labels.component(value) if isinstance(value, str) else labels.plain(value)


def _rest(board: Leaderboard, shared: Sequence[tuple[str, str | None]]) -> str:
    """Name the shared parts that are not the same in the whole matrix."""
    same = labels.constant(arm.axes for arm in board.arms)
    left = {part: labels.component(value) for part, value in shared if value is not None and part not in same}
    variant = left.pop("variant", None)
    return " · ".join(filter(None, [" + ".join(left.values()), variant]))


def _values(board: Leaderboard, arm: ArmResult) -> Any:
    return arm.values[:, board.metrics.index(board.metric)]


def _judge(panel: Panel, board: Leaderboard) -> None:
    """Mark the panel's best, and what is not separable from it (Holm over the panel)."""
    sign = -1 if board.metric == "mean_rank" else 1
    best = max(panel.bars, key=lambda bar: sign * bar.arm.figures[board.metric].value)
    others = [bar for bar in panel.bars if bar is not best]
    best.best = True
    found = paired_differences(
        _values(board, best.arm), [_values(board, bar.arm) for bar in others], board.resamples, 0
    )
    for bar, difference in zip(others, found, strict=True):
        bar.tied = not difference.separable


def _effects(panel: Panel, board: Leaderboard) -> list[Effect]:
    """Measure the steps between the panel's variants, p corrected for their number. STEPS was chosen before any result."""
    present = {bar.name: bar.arm for bar in panel.bars}
    steps = [step for step in STEPS if step[1] in present and step[2] in present]
    zero = 0 * _values(board, panel.bars[0].arm)
    changes = [_values(board, present[b]) - _values(board, present[a]) for _, a, b in steps]
    return [
        Effect(*step, difference)
        for step, difference in zip(steps, paired_differences(zero, changes, board.resamples, 0), strict=True)
    ]
