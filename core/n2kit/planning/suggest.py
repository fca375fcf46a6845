"""Combinations of the catalogue that a device can train, with their memory and an estimate of the time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from n2kit.contract.kinds import Kind
from n2kit.errors import N2kitError
from n2kit.planning.advice import TUNINGS, Fitting, tuned
from n2kit.planning.memory import GB, backward_through_llm, estimate, tune_of
from n2kit.planning.plan import Plan
from n2kit.planning.planner import make_plan
from n2kit.plugins.catalogue import default_catalogue
from n2kit.recipe.settings import resolve

PAIRS = 10_000  # pairs that the time is given for
TFLOPS = 100.0  # what a data-centre GPU reaches of its bf16 peak in training, roughly a third


@dataclass(frozen=True)
class Suggestion:
    """A combination that fits: its plan, the flags that make it fit, its memory in bytes, and the seconds of `PAIRS` pairs."""

    plan: Plan
    flags: str
    memory: float
    seconds: float

    @property
    def licences(self) -> list[str]:
        """List the licences of its weights."""
        return list(dict.fromkeys(row.licence or "unknown" for row in self.plan.rows if row.weights != "random"))

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.plan.id,
            "flags": self.flags,
            "parameters": self.plan.parameters,
            "trainable": self.plan.trainable,
            "memory_gb": round(self.memory / GB, 2),
            "seconds": round(self.seconds, 1),
            "pairs": PAIRS,
            "licences": self.licences,
        }


def suggest(device: float, settings: Mapping[str, Any], *, tflops: float = TFLOPS) -> list[Suggestion]:
    """List the combinations that fit a device of so many bytes, largest first, each with the fullest tuning that fits.

    What `settings` name stays. Without an LLM, all of the catalogue are tried; with one and without a vision encoder, all of those;
    with both, each way of tuning that fits.
    """
    every = "llm" in settings and "vision" in settings
    found = []
    for plan in _plans(settings):
        ways = list(_ways(plan, device))
        found += [_suggestion(way, tflops) for way in (ways if every else ways[:1])]
    return sorted(found, key=lambda one: (-one.plan.parameters, one.plan.id, -one.plan.trainable))


def seconds(plan: Plan, pairs: int, tflops: float) -> float:
    """Estimate the seconds of training on so many pairs of longest rows: operations by the parameters, at `tflops`.

    A forward pass takes 2 operations a parameter and token, a backward pass 2 for the gradient of what is computed and 2 for that of
    the weights where they are trained. What is frozen and cached is computed once.
    """
    llm, vision, train = plan.llm, plan.vision, plan.recipe.train
    again = 2 * (bool(train.grad_cache) + train.checkpointing)
    mode = tune_of(plan, "llm").mode
    passes = (6 if mode == "full" else 4) + again if backward_through_llm(plan) else 2
    operations = passes * plan.longest * (llm.parameters - llm.vocab * llm.input_width)
    if vision is not None:
        passes = 2 if tune_of(plan, "vision").mode == "frozen" else 6 + again
        operations += passes * vision.tokens * vision.parameters
    return 2 * pairs * operations / (tflops * 1e12)


def _plans(settings: Mapping[str, Any]) -> Iterator[Plan]:
    """Yield the plan of each combination that the rules accept."""
    kind: Kind | None = "llm" if "llm" not in settings else "vision" if "vision" not in settings else None
    if kind is None or "mllm" in settings:
        choices: list[dict[str, str]] = [{}]
    else:
        names = default_catalogue().aliases[kind]
        choices = [{kind: f"{name}:{preset}"} for name in names for preset in _presets(kind, name)]
    for choice in choices:
        resolved = resolve({**settings, **choice})
        try:
            plan = make_plan(resolved.recipe, requested=resolved.origin)
        except N2kitError:
            if not choice:
                raise
            continue  # its plug-in's requirements are not installed, or it has no card before its weights are there
        if not plan.refusals:
            yield plan


def _presets(kind: Kind, name: str) -> list[str]:
    return [preset for preset, one in default_catalogue().presets(kind, name).items() if one.card is not None]


def _ways(plan: Plan, device: float) -> Iterator[Fitting]:
    """Yield a combination's ways of tuning that fit, the fullest first: its own, and those that take less."""
    use = estimate(plan).total
    if use <= device:
        yield Fitting(f"--tune llm={plan.recipe.llm.tune}", plan, use)
    yield from tuned(plan, device, TUNINGS if use > device else TUNINGS[1:])


def _suggestion(way: Fitting, tflops: float) -> Suggestion:
    return Suggestion(way.plan, way.flags, way.memory, seconds(way.plan, PAIRS, tflops))
