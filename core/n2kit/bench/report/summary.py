"""A summary of the figures, in sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Sequence

from n2kit.bench.cell_row import DONE
from n2kit.bench.report import labels
from n2kit.bench.report.aggregate import ArmResult, Leaderboard
from n2kit.errors import counted, truncate_list
from n2kit.evaluate import WHY_LEFT_OUT
from n2kit.utils.durations import duration

NEAR = 0.02  # "close to the best": within two points of recall, MRR or NDCG
NAMED = 4  # arms called by name in a sentence; the rest are counted
THROUGH = ("embed_ms_item", "trained_parameters")  # what "cheapest" goes by: the first that was measured


def summary(board: Leaderboard) -> list[str]:
    """Summarise a board: the best arm and its cost, the arms not separable from it, baselines, the cheapest, and cautions."""
    if board.best is None:
        return ["No cell is finished yet.", *_cautions(board, {})]
    names = labels.short_names([(arm.label, arm.axes) for arm in board.arms])
    said = [
        _best(board, board.best, names),
        _price(board.best),
        _not_separable(board, names),
        _baselines(board, names),
        _cheapest(board, names),
    ]
    return [sentence for sentence in said if sentence] + _cautions(board, names)


def warning(board: Leaderboard) -> str | None:
    """Warn of trained arms that are below one without a gradient; None where there is none."""
    arms = board.comparable
    free = next((arm for arm in arms if not arm.axes.trained), None)
    if free is None:
        return None
    m, top = board.metric, free.figures[board.metric].value
    worse = [arm for arm in arms[arms.index(free) :] if arm.figures[m].value != top]
    below = [arm for arm in worse if arm.axes.trained and _whole(arm)]
    if not below:
        return None
    names = labels.short_names([(arm.label, arm.axes) for arm in board.arms])
    first, more = below[0], len(below) - 1
    figures = f"{labels.number(first.figures[m].value, m)} against {labels.number(top, m)}{' %' * labels.share(m)}"
    said = f"Warning: “{names[first.label]}” was trained and is below “{names[free.label]}”, which took no gradient: {m} {figures}"
    said += f", {_behind(board, first)}" if free is board.best else ""
    return said + (f"; {more} more trained {'arm is' if more == 1 else 'arms are'} below it." if more else ".")


def _whole(arm: ArmResult) -> bool:
    """Tell whether an arm had all inputs: one whose image or text was taken away is expected to lose."""
    return arm.axes.inference in (None, "both")


def _price(best: ArmResult) -> str:
    """Say how long the best arm was trained or fitted, where its rows hold that."""
    if (seconds := best.costs.get("train_s")) is None:
        return ""
    if not seconds:
        return "It took no training."
    cpu = best.costs.get("train_cpu_s")
    of_cpu = "" if cpu is None else f" ({duration(cpu)} of CPU)"
    seed = " a seed" if len(best.rows) > 1 else ""
    return f"{'Training' if best.axes.trained else 'Fitting'} it took {duration(seconds)}{of_cpu}{seed}."


def _best(board: Leaderboard, best: ArmResult, names: dict[str, str]) -> str:
    m, figure = board.metric, best.figures[board.metric]
    bounds = f"95 % interval {labels.number(figure.low, m)} – {labels.number(figure.high, m)}"
    if m.startswith("recall@"):
        k = int(m.removeprefix("recall@"))
        place = f"{'in the first place' if k == 1 else f'among the first {k:,}'} of {best.ranking.pool:,}"
        share, who = f"{labels.number(figure.value, m)} %", f"“{names[best.label]}” finds"
        if len(best.ranking.pairs) > best.queries:  # several right items a query: recall is their share
            return f"{who} {share} of a query's right items {place}, the mean of {counted(best.queries, 'query')} ({bounds})."
        return f"{who} the right item {place} for {share} of {counted(best.queries, 'query')} ({bounds})."
    unit = " %" if labels.share(m) else ""
    return f"“{names[best.label]}” is best by {m}: {labels.number(figure.value, m)}{unit} on {counted(best.queries, 'query')} ({bounds})."


def _not_separable(board: Leaderboard, names: dict[str, str]) -> str:
    others = [arm for arm in board.comparable if arm is not board.best]
    tied = [arm for arm in others if arm.verdict == "not separable"]
    unsure = [arm for arm in others if arm.verdict == "seeds overlap"]
    if not others:
        return ""
    every = "Every other arm" if len(board.comparable) == len(board.arms) else "Every other arm on its queries"
    said = f"It cannot be told apart from {_listed(tied, names)}" if tied else f"{every} is separably worse"
    if unsure:
        said += f"; with another seed it might fall behind {_listed(unsure, names)}"
    return said + "."


def _baselines(board: Leaderboard, names: dict[str, str]) -> str:
    best = board.best
    trained = next((arm for arm in board.comparable if arm.trained), None)
    baseline = next((arm for arm in board.comparable if arm.baseline), None)
    if best is None or baseline is None:
        some = any(arm.baseline for arm in board.arms)
        lack = "No baseline was asked the same queries." if some else "There is no baseline to compare with."
        return lack if trained is not None and len(board.arms) > 1 else ""
    if trained is None:
        return ""
    if best is baseline:
        return f"That is a baseline: the best trained model, “{names[trained.label]}”, is {_behind(board, trained)}."
    return f"The best baseline, “{names[baseline.label]}”, is {_behind(board, baseline)}."


def _behind(board: Leaderboard, arm: ArmResult) -> str:
    difference, m = arm.difference, board.metric
    assert difference is not None  # only the best arm has none
    bounds = sorted((abs(difference.low), abs(difference.high))) if difference.low * difference.high > 0 else None
    size = labels.number(abs(difference.value), m)
    unit = " points" if labels.share(m) else " ranks" * labels.is_own(m)
    if not difference.separable:
        return f"{size}{unit} behind, which is not separable (interval of the difference {_range(difference.low, difference.high, m)})"
    inside = (
        f"{labels.number(bounds[0], m)} – {labels.number(bounds[1], m)}"
        if bounds
        else _range(difference.low, difference.high, m)
    )
    seeds = "; the seeds overlap" if arm.verdict == "seeds overlap" else ""
    return f"{size}{unit} behind ({inside}{seeds})"


def _range(low: float, high: float, metric: str) -> str:
    return f"{labels.signed(low, metric)} to {labels.signed(high, metric)}"


def _cheapest(board: Leaderboard, names: dict[str, str]) -> str:
    best, m = board.best, board.metric
    by = next((cost for cost in THROUGH if any(cost in arm.costs for arm in board.comparable)), None)
    if best is None or by is None or not labels.share(m) or len(board.comparable) < 2 or by not in best.costs:
        return ""
    top = best.figures[m].value
    near = [arm for arm in board.comparable if by in arm.costs and top - arm.figures[m].value <= NEAR]
    cheap = min(near, key=lambda arm: arm.costs[by])
    unit = " ms an item" if by == "embed_ms_item" else " trained parameters"
    price = labels.cost(by, cheap.costs[by]) + unit
    within = f"within {100 * NEAR:.0f} points of the best"
    if cheap is best:
        return f"No cheaper arm is {within} ({price})."
    return f"The cheapest {within} is “{names[cheap.label]}”: {price}, against {labels.cost(by, best.costs[by])}."


def _cautions(board: Leaderboard, names: dict[str, str]) -> list[str]:
    counts = board.results.counts
    missing = sum(n for state, n in counts.items() if state != DONE)
    planned = board.planned or sum(counts.values())
    said = []
    if unseen := max(0, planned - sum(counts.values())):
        counts = counts | {"to come": unseen}
    if missing or unseen:
        states = ", ".join(f"{n:,} {state}" for state, n in counts.items())
        said.append(f"Of {planned:,} cells: {states}.")
    if elsewhere := [arm for arm in board.arms if arm.verdict == "other queries"]:
        said.append(f"Asked other queries, and so not compared: {_listed(elsewhere, names)}.")
    trained = [arm for arm in board.arms if arm.trained]
    if trained and max(len(arm.rows) for arm in trained) == 1:
        said.append("With one seed an arm, it is not known how far another seed would move a figure.")
    elif any(len(arm.rows) < board.most_seeds for arm in trained):
        said.append("Some arms lack a seed.")
    for what, found in (("versions", _distinct(board, "versions")), ("devices", _distinct(board, "device"))):
        if found > 1:
            said.append(f"Cells ran with {found} different {what}: compare times with care.")
    return said + _beyond(board) + _left_out(board) + [f"{note[0].upper()}{note[1:]}." for note in board.results.notes]


def _beyond(board: Leaderboard) -> list[str]:
    """Name the cut-offs that are no smaller than the pool."""
    cuts = {int(name.partition("@")[2]) for name in board.metrics if name.startswith("recall@")}
    beyond = [f"{k:,}" for k in sorted(cuts) if board.best is not None and k >= board.best.ranking.pool]
    return [f"At {', '.join(beyond)} every model finds everything: the pool is no larger."] if beyond else []


def _left_out(board: Leaderboard) -> list[str]:
    """Report what was left out: pairs that the protocol does not rank, and images that cannot be read."""
    rows = board.results.of(DONE)
    said = []
    if best := board.best:
        beyond = max(row.pairs_beyond for row in best.rows)
        said += [f"{beyond:,} more test pairs were not asked: {WHY_LEFT_OUT[best.ranking.protocol]}."] if beyond else []
    worst = max(rows, key=lambda row: (row.pairs_left_out, row.items_skipped), default=None)
    if worst is None or not worst.items_skipped:
        return said
    return [
        *said,
        f"{counted(worst.items_skipped, 'item')} could not be used as they are ({truncate_list(worst.skipped, worst.items_skipped)}), "
        f"and with them {counted(worst.pairs_left_out, 'test pair')}. A cell's vectors.parquet names all of them.",
    ]


def _distinct(board: Leaderboard, name: str) -> int:
    return len({repr(getattr(row, name)) for row in board.results.of(DONE)})


def _listed(arms: Sequence[ArmResult], names: dict[str, str]) -> str:
    called = [f"“{names[arm.label]}”" for arm in arms]
    if len(called) > NAMED:
        called = [*called[: NAMED - 1], counted(len(called) - NAMED + 1, "other")]
    return called[0] if len(called) == 1 else f"{', '.join(called[:-1])} and {called[-1]}"
