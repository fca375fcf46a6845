"""Baselines as cells of a matrix."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from n2kit.bench.matrix import keys
from n2kit.bench.matrix.baseline_names import baseline_of, settings_of, worded
from n2kit.bench.matrix.cell import Cell, short, vision_feature_key
from n2kit.bench.matrix.combinations import backbones_of
from n2kit.bench.matrix.spec import AXES, MatrixSpec
from n2kit.contract.cards import VisionCard
from n2kit.errors import Mismatch, Unavailable
from n2kit.planning.planner import component_of
from n2kit.recipe.settings import resolve


def baseline_cells(matrix: MatrixSpec, data: Mapping[str, str | None]) -> Iterator[Cell]:
    """Yield each baseline with the backbones that it takes, and with each seed if it is trained. Those of one LLM are one task."""
    for name in matrix.baselines:
        baseline_of(name)
    for name, backbones in itertools.product(matrix.baselines, backbones_of(matrix)):
        if matrix.mllm and "mllm" in baseline_of(name).takes and "mllm" not in backbones:
            continue  # a matrix of both has it for its multimodal ones
        yield from _baseline(name, backbones, matrix, data)


def _baseline(
    name: str, backbones: Mapping[str, str], matrix: MatrixSpec, data: Mapping[str, str | None]
) -> Iterator[Cell]:
    baseline, default = baseline_of(name), resolve().recipe
    chosen = {kind: backbones.get(kind) or getattr(getattr(default, kind), "name", None) for kind in baseline.takes}
    taken = {kind: name for kind, name in chosen.items() if name is not None}
    resolved, head = settings_of(matrix.settings, taken)
    has_head = baseline.trained and baseline.target is None
    kinds = [*baseline.takes, *(["loss"] if has_head else [])]
    axes = (
        dict.fromkeys(AXES)
        | taken
        | {"baseline": name, "inference": "both", "trained": baseline.trained, "setting": {}}
    )
    common: dict[str, Any] = {"axes": axes, "baseline": name, "trained": baseline.trained}
    try:
        if baseline.needs is not None and keys.installed(baseline.needs) == keys.UNKNOWN:
            raise Unavailable(
                f"the baseline {name} needs {baseline.needs}, which is not installed", 'pip install "n2kit[bench]"'
            )
        if "mllm" in baseline.takes and "mllm" not in backbones:
            raise Mismatch(f"baseline {name} is a multimodal LLM's own vector, and none is named", "--mllm NAME")
        if baseline.takes and "mllm" in backbones and "mllm" not in baseline.takes:
            raise Mismatch(
                f"baseline {name} takes no multimodal LLM apart",
                f"name its {' and '.join(baseline.takes)} on their own",
            )
        parts = {kind: component_of(resolved.recipe, kind) for kind in kinds}
        recipe = worded(resolved, parts)
        trained = head.model_dump(exclude_defaults=True) if has_head else None
        facts = keys.of_baseline(name, parts, recipe, trained, data, baseline.learns_from, baseline.needs)
    except (Mismatch, Unavailable) as problem:
        arm = ": ".join([name, "+".join(short(n) for n in backbones.values() if n)])
        key = keys.digest(keys.CELL_VERSION, name, dict(backbones))
        yield Cell(
            arm, key=key, run_key=key, seed=matrix.seeds[0], refusal=(problem.message, problem.hint or ""), **common
        )
        return
    names = {kind: part.reference for kind, part in parts.items()}
    common["axes"] = axes | names
    arm = ": ".join([name, *(["+".join(short(names[kind]) for kind in baseline.takes)] if taken else [])])
    run_key = keys.digest("baselines", facts["parts"].get("mllm" if "mllm" in parts else "llm"), dict(data))
    seen = keys.of_vectors(not parts.keys().isdisjoint(("vision", "mllm")), data, "both")
    figures = seen | matrix.evaluation
    card = parts["vision"].card() if "vision" in parts else None
    vision_key = vision_feature_key(parts["vision"], card, recipe) if isinstance(card, VisionCard) else None
    for seed in matrix.seeds if baseline.trained else matrix.seeds[:1]:
        key = keys.digest(facts, seed, figures)
        vectors = (keys.digest(facts, seed, seen),)
        yield Cell(
            arm,
            seed=seed,
            key=key,
            run_key=run_key,
            vectors_keys=vectors,
            recipe=recipe,
            vision_key=vision_key,
            **common,
        )
