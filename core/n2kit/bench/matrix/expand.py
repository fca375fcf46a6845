"""The expansion of a matrix into its distinct cells: an axis that a variant does not use gives no further cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from n2kit.bench.matrix import keys
from n2kit.bench.matrix.baseline_cells import baseline_cells
from n2kit.bench.matrix.cell import Cell, VisionFeatureKey, short, vision_feature_key
from n2kit.bench.matrix.combinations import Combination, combinations
from n2kit.bench.matrix.spec import AXES, MatrixSpec
from n2kit.errors import BadInput, Mismatch, Unavailable
from n2kit.planning.plan import Plan
from n2kit.planning.planner import make_plan
from n2kit.recipe.settings import Recipe, resolve


def expand(matrix: MatrixSpec, data: Mapping[str, str | None]) -> list[Cell]:
    """Expand a matrix into its cells, in its order, each once; a cell that cannot be run carries the reason.

    Args:
        data: the digests of `n2kit.bench.matrix.data.Data`.

    Raises:
        BadInput: a name, an option or a setting that there is not; nothing to run.
    """
    for settings in (matrix.settings, *(arm.settings for arm in matrix.arms)):
        if "train.seed" in settings:
            raise BadInput("train.seed is no setting of a matrix", "--seeds 3, or seeds: [7] in the file")
    cells: dict[str, Cell] = {}
    for combination in combinations(matrix):
        for cell in _cells(combination, matrix, data):
            first = cells.setdefault(cell.key, cell)
            if combination.name and first is not cell:
                cells[cell.key] = replace(first, also=(*first.also, combination.name))
    for cell in baseline_cells(matrix, data):
        cells.setdefault(cell.key, cell)
    if not cells:
        raise BadInput("the matrix is empty", "--llm, --vision, --variant …, or --preset quick")
    return _distinct(list(cells.values()))


def _cells(combination: Combination, matrix: MatrixSpec, data: Mapping[str, str | None]) -> Iterator[Cell]:
    """Yield a combination with each seed; one without random weights and without training has one cell."""
    try:
        resolved = resolve(combination.flags)
        given = frozenset(resolved.origin)
        plan = make_plan(resolved.recipe, requested=given)
        training = keys.of_training(plan, data, trained=combination.trained)
    except (BadInput, Unavailable) as problem:
        if not combination.optional and not isinstance(problem, Mismatch | Unavailable):
            raise
        yield from _refused(combination, matrix, problem)
        return
    vectors = keys.of_vectors(plan.vision is not None, data, combination.inference)
    saliency = matrix.saliency if _has_saliency(combination, plan) else 0
    figures = vectors | matrix.evaluation | {"saliency": saliency}
    refusal = None
    if plan.refusals:
        refusal = ("\n".join(r.message for r in plan.refusals), "; ".join(r.hint or "" for r in plan.refusals))
    elif (reason := _pointless(combination, plan)) is not None:
        refusal = (reason, "leave this arm out")
    kind = keys.digest(keys.kind_of(training))
    chosen = {kind: component.reference for kind, component in plan.components.items()}
    axes = _axes(combination, chosen | {"variant": plan.recipe.variant})
    arm, vision_key = _label(combination, plan), _vision_key(plan)
    is_random = combination.trained or plan.vision is not None or plan.recipe.head.width is not None
    for seed in matrix.seeds if is_random else matrix.seeds[:1]:
        recipe = plan.recipe.model_copy(update={"train": plan.recipe.train.model_copy(update={"seed": seed})})
        run_key = keys.digest(training, seed)
        key = keys.digest(run_key, figures)
        # Curves need the model, as vectors do.
        curves = [keys.digest(run_key, vectors, saliency, matrix.bootstrap)] if saliency else []
        yield Cell(
            arm=arm, axes=axes, seed=seed, key=key, run_key=run_key, vectors_keys=(*curves, keys.digest(run_key, vectors)),
            kind=kind, recipe=recipe, given=given, inference=combination.inference, trained=combination.trained, refusal=refusal,
            vision_key=vision_key,
        )  # fmt: skip


def _vision_key(plan: Plan) -> VisionFeatureKey | None:
    if plan.vision is None or plan.recipe.vision.tune != "frozen":
        return None
    return vision_feature_key(
        plan.components["mllm" if "mllm" in plan.components else "vision"], plan.vision, plan.recipe
    )


def _has_saliency(combination: Combination, plan: Plan) -> bool:
    """Tell whether saliency can be measured, as far as a plan shows."""
    return combination.inference == "both" and plan.variant.early and bool(plan.llm.attention) and plan.llm.causal


def _pointless(combination: Combination, plan: Plan) -> str | None:
    """Explain why an inference arm would change nothing; None if it would."""
    if combination.inference == "both" or (plan.variant.image and plan.variant.text):
        return None
    return f"variant {plan.recipe.variant} reads {'images' if plan.variant.image else 'text'} alone: nothing can be taken away"


def _refused(combination: Combination, matrix: MatrixSpec, problem: BadInput | Unavailable) -> Iterator[Cell]:
    """Yield the refused cells of a combination whose components cannot be resolved."""
    flags = combination.flags
    kinds = ("mllm", "llm", "vision", "connector", "fusion")
    variant = flags.get("variant", Recipe().variant)
    arm = _named("+".join([*(short(str(flags[axis])) for axis in kinds if axis in flags), variant]), combination)
    chosen = {axis: flags.get(axis) for axis in kinds} | {
        "loss": flags.get("loss", Recipe().loss.name),
        "variant": variant,
    }
    axes = _axes(combination, chosen)
    for seed in matrix.seeds:
        run_key = keys.digest(keys.CELL_VERSION, dict(flags), combination.trained, seed)
        key = keys.digest(run_key, combination.inference)
        refusal = (problem.message, problem.hint or "")
        yield Cell(arm, axes, seed, key, run_key, inference=combination.inference, refusal=refusal)


def _label(combination: Combination, plan: Plan) -> str:
    kinds = [k for k in ("mllm", "llm", "vision", "connector", "fusion") if k in plan.components]
    pieces = [short(plan.components[kind].reference) for kind in kinds]
    if (loss := plan.components["loss"].reference) != Recipe().loss.name:
        pieces.append(loss)
    return _named("+".join([*pieces, plan.recipe.variant]), combination)


def _named(label: str, combination: Combination) -> str:
    return f"{label} ({combination.name})" if combination.name else label


def _axes(combination: Combination, chosen: Mapping[str, str | None]) -> dict[str, Any]:
    """Collect the axes of a cell for its row; `chosen`: axis → name, for what the cell has."""
    axes: dict[str, Any] = {axis: chosen.get(axis) for axis in AXES}
    own = {"inference": combination.inference, "trained": combination.trained, "setting": dict(combination.changed)}
    return axes | {"baseline": None} | own


def _distinct(cells: Sequence[Cell]) -> list[Cell]:
    """Give arms with the same name the full names of their backbones instead."""
    arms: dict[str, set[str]] = {}
    for cell in cells:
        arms.setdefault(cell.arm, set()).add(str(dict(cell.axes)))
    return [replace(cell, arm=_in_full(cell)) if len(arms[cell.arm]) > 1 else cell for cell in cells]


def _in_full(cell: Cell) -> str:
    _, bracket, name = cell.arm.partition(" (")
    pieces = [cell.axes[axis] for axis in AXES if axis != "loss" or cell.axes[axis] != Recipe().loss.name]
    full = "+".join(filter(None, pieces)) + bracket + name
    return f"{cell.baseline}: {full}" if cell.baseline else full
