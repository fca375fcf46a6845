"""n2kit plan."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit.errors import counted
from n2kit_cli import options
from n2kit_cli.option_groups import chooses
from n2kit_cli.output import count, document, emit, error, say, table

if TYPE_CHECKING:
    from n2kit.planning.plan import Plan

SHOWN = 20  # suggestions in a table


@chooses()
def plan(
    chosen: dict[str, str],
    combination: options.Combination = None,
    variant: options.VariantName = None,
    tune: options.Tuned = None,
    sets: options.Sets = None,
    recipe: options.RecipeFile = None,
    memory: Annotated[
        float | None, typer.Option(min=0, help="GB of the device that will train; default: this machine's.")
    ] = None,
    suggest: Annotated[
        bool,
        typer.Option("--suggest", help="List what of the catalogue fits, largest first; parts that are named stay."),
    ] = False,
    tflops: Annotated[
        float, typer.Option(min=0.001, help="Speed that --suggest reckons time with; 100: a data-centre GPU in bf16.")
    ] = 100.0,
    json: options.Json = False,
) -> None:
    """Show what a combination consists of and whether it can be built: parts, tokens, parameters, memory. Loads no weight.

    Exit 2 if it is refused: both sides, the numbers, and what would fit. What n2kit build and train apply is the same.

    \b
    Examples:
      n2kit plan --llm qwen --vision siglip --memory 80
      n2kit plan --llm qwen:tiny --vision clip:tiny --connector mlp --fusion gate
      n2kit plan qwen:tiny+siglip:tiny+qformer:8+gate --set train.batch_size=64 --json
      n2kit plan --memory 24 --suggest
      n2kit plan --memory 24 --suggest --llm qwen:4b --vision siglip
    """
    from n2kit.errors import BadInput
    from n2kit.planning.advice import fit_memory
    from n2kit.planning.memory import GB, device_memory, estimate
    from n2kit.planning.planner import describe
    from n2kit.recipe.settings import drop_none, parse_sets
    from n2kit.recipe.tuning import tune_flags

    named = chosen | drop_none(variant=variant)
    if memory is not None and not math.isfinite(memory):
        raise BadInput(f"--memory {memory} is no size", "gigabytes, as 24")
    device, what = (memory * GB, "as given") if memory is not None else device_memory()
    if suggest:
        if combination or "mllm" in chosen or recipe:
            raise BadInput(
                "--suggest varies parts, and all of them are given", "leave out the combination, --mllm, --recipe"
            )
        _suggest({**named, **tune_flags(tune), **parse_sets(sets or [])}, device, what, tflops, json)
        return
    made = planned(combination, {**named, **tune_flags(tune)}, sets, recipe)
    fit_memory(made, device)
    if json:
        document(describe(made) | {"device": {"memory": round(device / GB, 3), "what": what}})
    else:
        show(made)
        use = estimate(made)
        emit(
            f"weights {use.weights / GB:.2f} · gradients {use.gradients / GB:.2f} · optimiser {use.optimiser / GB:.2f} · "
            f"activations ≈ {use.activations / GB:.2f} GB ({use.batch_size} pairs, {use.precision}) of {device / GB:.1f} GB ({what})"
        )
    refuse(made)


def _suggest(settings: dict[str, Any], device: float, what: str, tflops: float, json: bool) -> None:
    """Print the combinations that fit."""
    from n2kit.errors import BadInput
    from n2kit.planning.memory import GB
    from n2kit.planning.suggest import PAIRS, suggest
    from n2kit.utils.durations import duration

    found = suggest(device, settings, tflops=tflops)
    if json:
        document({"device": {"memory": round(device / GB, 3), "what": what}, "fits": [one.to_dict() for one in found]})
        return
    if not found:
        raise BadInput(f"nothing of the catalogue can be trained in {device / GB:.1f} GB ({what})", "a larger --memory")
    rows = [
        (
            one.plan.id,
            count(one.plan.parameters),
            one.flags,
            f"{one.memory / GB:.1f}",
            duration(one.seconds),
            ", ".join(one.licences),
        )
        for one in found[:SHOWN]
    ]
    table(("combination", "parameters", "how", "GB", f"{PAIRS:,} pairs", "licence"), rows)
    more = f"; {counted(len(found) - SHOWN, 'smaller one')}: --json" if len(found) > SHOWN else ""
    say(f"{len(found)} fit {device / GB:.1f} GB ({what}); times at {tflops:g} TFLOP/s (--tflops){more}")


def planned(combination: str | None, flags: dict[str, Any], sets: list[str] | None, recipe: Path | None) -> Plan:
    """Make the plan of an id; flags override the id, and `--set` overrides flags."""
    from n2kit.planning.planner import make_plan, parse_id
    from n2kit.recipe.settings import parse_sets, resolve

    combined = parse_id(combination) if combination else {}
    resolved = resolve({**combined, **flags, **parse_sets(sets or [])}, file=recipe)
    return make_plan(resolved.recipe, requested=resolved.origin)


def show(plan: Plan) -> None:
    """Print a plan as a table, and its sums."""
    from n2kit.planning.memory import estimate

    rows = [
        (
            r.part,
            r.name,
            r.shape,
            count(r.parameters or (None if r.part in ("llm", "vision") else 0)),
            count(r.trainable),
        )
        for r in plan.rows
    ]
    table(("part", "name", "shape", "parameters", "trained"), rows, title=plan.id)
    emit(
        f"\nvariant {plan.recipe.variant} · {plan.image_tokens} tokens an image · at most {plan.longest} tokens an item · "
        f"{count(plan.parameters)} parameters, {count(plan.trainable)} trained · {estimate(plan).total / 1e9:.2f} GB to train"
    )
    for row in plan.rows:
        if row.weights != "random":
            emit(f"{row.part}: {row.weights}" + (f", {row.licence}" if row.licence else ""))
    for note in plan.notes:
        say(f"note: {note}")


def refuse(plan: Plan) -> None:
    """Print the refusals of a plan and exit with 2, if it has any."""
    for refusal in plan.refusals:
        error(refusal.message, refusal.hint)
    if plan.refusals:
        raise typer.Exit(2)


def slug(name: str) -> str:
    """Convert a combination's id to a folder name."""
    return "".join(c if c.isalnum() or c in "._-+" else "-" for c in name)[:120]
