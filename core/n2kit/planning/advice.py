"""Advice on memory: does a training fit a device, and what would make it fit: ways of tuning, of saving memory, smaller weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from n2kit.errors import Mismatch, N2kitError
from n2kit.planning.memory import GB, batch_that_fits, estimate
from n2kit.planning.plan import Plan
from n2kit.planning.planner import make_plan, with_settings
from n2kit.planning.rules import tuning
from n2kit.plugins.catalogue import default_catalogue
from n2kit.recipe.settings import Recipe

TUNINGS = ("full", "lora:16", "qlora:16", "frozen")  # of the LLM: each takes less than the one before
SAVINGS: tuple[Mapping[str, Any], ...] = (  # each takes less than the one before, and more time
    {},
    {"train.grad_cache": 8},
    {"train.grad_cache": 8, "train.checkpointing": True},
    {"train.grad_cache": 2, "train.checkpointing": True},
)


@dataclass(frozen=True)
class Fitting:
    """A change of a plan that fits a device: the flags that make it, the plan with it, and its memory in bytes."""

    flags: str
    plan: Plan
    memory: float

    def __str__(self) -> str:
        return f"{self.flags} ({self.memory / GB:.1f} GB)"


def fit_memory(plan: Plan, device: float, *, presets: bool = True) -> None:
    """Add a refusal or a note to a plan whose training does not fit a device of so many bytes, with what would fit.

    Weights, gradients and optimiser are arithmetic, and refused where they do not fit; activations are an estimate: a note.

    Args:
        presets: smaller weights can still be chosen; not for a bundle that is built.
    """
    use = estimate(plan)
    if use.certain > device:
        message = f"weights, gradients and optimiser take {use.certain / GB:.1f} GB in training, and the device has {device / GB:.1f}"
        ways = [*_one(tuned(plan, device)), *(_one(smaller(plan, device)) if presets else [])]
        plan.refusals.append(Mismatch(message, "; or ".join(map(str, ways)) or "smaller parts, or a larger device"))
    elif use.total > device:
        batch = batch_that_fits(plan, device)
        ways = [*_one(saved(plan, device)), *_one(tuned(plan, device, TUNINGS[1:]))]
        fixes = [str(way) for way in ways] + [f"--set train.batch_size={batch}"] * bool(batch)
        fix = f"{'; or '.join(fixes)} fits" if fixes else "not even two pairs a step fit; smaller parts do"
        plan.notes.append(f"training may take {use.total / GB:.1f} GB, and the device has {device / GB:.1f}: {fix}")
    if unknown := [row.part for row in plan.rows if row.parameters == 0 and row.part in ("llm", "vision")]:
        plan.notes.append(
            f"how large {' and '.join(unknown)} is shows when its weights are there: memory is underestimated"
        )


def propose(plan: Plan, device: float, what: str) -> None:
    """Add a note to a plan that is built on a device which could not train it: the first way of tuning that would fit."""
    use = estimate(plan)
    if use.total <= device or plan.refusals:
        return
    asked = f"training with llm.tune {plan.recipe.llm.tune} takes {use.total / GB:.1f} GB"
    message = f"{asked}, and this device has {device / GB:.1f} ({what})"
    ways = [*_one(tuned(plan, device)), *_one(smaller(plan, device))]
    plan.notes.append(f"{message}: {'; or '.join(map(str, ways)) or 'no way of tuning it fits'}")


def plan_training(recipe: Recipe, memory: float) -> Plan | None:
    """Plan the training of a bundle by `recipe` on a device of `memory` bytes: its tuning and its memory are checked alone.

    None where the parts cannot be resolved any more: the bundle contains their weights and does not need the original source.
    """
    try:
        plan = make_plan(recipe)
    except N2kitError:
        return None
    plan.refusals, plan.notes = list(tuning(plan)), []
    if not recipe.train.fsdp:  # with it, a device keeps a share of the memory only
        fit_memory(plan, memory, presets=False)
    return plan


def saved(plan: Plan, device: float) -> Iterator[Fitting]:
    """Yield the plan with each saving that fits; the first one costs the least time."""
    for saving in SAVINGS[1:]:
        changed = with_settings(plan, saving)
        if (use := estimate(changed).total) <= device:
            yield Fitting(_flags(saving), changed, use)


def tuned(plan: Plan, device: float, tunings: tuple[str, ...] = TUNINGS) -> Iterator[Fitting]:
    """Yield the plan with each way to tune its LLM that takes no more than its own and fits, with the saving that it needs."""
    own = estimate(plan)
    for tune in tunings:
        trained = with_settings(plan, {"llm.tune": tune})
        if any(tuning(trained)) or estimate(trained).certain > own.certain:
            continue
        for saving in SAVINGS[1:] if tune == plan.recipe.llm.tune else SAVINGS:
            changed = with_settings(trained, saving)
            if (use := estimate(changed).total) <= device:
                yield Fitting(f"--tune llm={tune}" + (f" {_flags(saving)}" if saving else ""), changed, use)
                break


def smaller(plan: Plan, device: float) -> Iterator[Fitting]:
    """Yield the plan with each smaller preset of its LLM that fits as it is tuned, the largest first."""
    kind = "mllm" if "mllm" in plan.components else "llm"
    name, _, own = plan.components[kind].reference.partition(":")
    catalogue, found = default_catalogue(), []
    for preset, weights in catalogue.presets(kind, name).items():  # type: ignore[arg-type]
        if preset == own or weights.weights == "random":
            continue
        choice = getattr(plan.recipe, kind).model_copy(update={"name": f"{name}:{preset}"})
        other = make_plan(plan.recipe.model_copy(update={kind: choice}))
        use = estimate(other).total
        if not other.refusals and use <= device and other.llm.parameters < plan.llm.parameters:
            found.append(Fitting(f"--{kind} {name}:{preset}", other, use))
    yield from sorted(found, key=lambda way: -way.plan.parameters)


def _flags(settings: Mapping[str, Any]) -> str:
    return " ".join(f"--set {name}={str(value).lower()}" for name, value in settings.items())


def _one(ways: Iterator[Fitting]) -> list[Fitting]:
    return [way for way in (next(ways, None),) if way]
