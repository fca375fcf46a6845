"""The arms of a matrix: the product of its axes, and the arms that are added to it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from n2kit.bench.matrix.baseline_names import OWN
from n2kit.bench.matrix.spec import ArmSpec, Inference, MatrixSpec
from n2kit.errors import BadInput, suggest
from n2kit.recipe.settings import Recipe
from n2kit.recipe.variants import SPECS

MOST_CELLS = 100_000


@dataclass(frozen=True)
class Combination:
    """One arm before its seeds."""

    flags: Mapping[str, Any]  # axis or dotted key → value
    changed: Mapping[str, Any] = field(default_factory=dict)  # of them, the settings that are this arm's own
    name: str = ""
    inference: Inference = "both"
    trained: bool = True
    optional: bool = False


def combinations(matrix: MatrixSpec) -> Iterator[Combination]:
    """Yield the product of the axes, then the arms, each distinct one once: what a variant does not use is left out first.

    Where arms or baselines are named and no variant, there are no others.
    """
    for name in matrix.variant:
        _known_variant(name)
    _check_size(matrix)
    if matrix.variant or not (matrix.arms or matrix.baselines):
        settings = own_settings(matrix)
        for flags in _distinct(_used(chosen) | settings for chosen in _product(matrix)):
            yield Combination(flags)
    for arm in matrix.arms:
        yield from _of_arm(arm, matrix)


def own_settings(matrix: MatrixSpec) -> dict[str, Any]:
    """Return the settings of recipes, without those of baselines."""
    return {key: value for key, value in matrix.settings.items() if not key.startswith(OWN)}


def _product(matrix: MatrixSpec) -> Iterator[dict[str, Any]]:
    for backbones in backbones_of(matrix):
        for variant, connector, fusion, loss in itertools.product(
            _or_none(matrix.variant), _or_none(matrix.connector), _or_none(matrix.fusion), _or_none(matrix.loss)
        ):
            rest = {"connector": connector, "fusion": fusion, "loss": loss, "variant": variant}
            yield backbones | {axis: value for axis, value in rest.items() if value is not None}


def backbones_of(matrix: MatrixSpec) -> list[dict[str, Any]]:
    """Pair every llm with every vision, and add every multimodal LLM: axis → name, for those that are named."""
    pairs = [
        {axis: value for axis, value in (("llm", llm), ("vision", vision)) if value is not None}
        for llm, vision in itertools.product(_or_none(matrix.llm), _or_none(matrix.vision))
    ]
    whole = [{"mllm": name} for name in matrix.mllm]
    return whole if whole and not (matrix.llm or matrix.vision) else pairs + whole


def _or_none(values: Sequence[str]) -> list[str | None]:
    return list(values) or [None]


def _of_arm(arm: ArmSpec, matrix: MatrixSpec) -> Iterator[Combination]:
    if arm.variant is not None:
        _known_variant(arm.variant)
    own = {axis: v for axis in ("llm", "vision", "mllm") if (v := getattr(arm, axis)) is not None}
    rest = {
        axis: value
        for axis in ("connector", "fusion", "loss")
        if (value := getattr(arm, axis) or next(iter(getattr(matrix, axis)), None)) is not None
    }
    settings = own_settings(matrix)

    def choices() -> Iterator[dict[str, Any]]:
        for backbones in backbones_of(matrix):
            if "mllm" in own:
                backbones = {}
            elif own:
                backbones = {axis: v for axis, v in backbones.items() if axis != "mllm"}
            chosen = backbones | own | rest | {"variant": arm.variant or "notellm2"}
            yield _used(chosen) | settings | arm.settings

    for flags in _distinct(choices()):
        yield Combination(flags, arm.settings, arm.name, arm.inference, arm.trained, arm.optional)


def _distinct(several: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for flags in several:
        if (key := repr(sorted(flags.items()))) not in seen:
            seen.add(key)
            yield flags


def _check_size(matrix: MatrixSpec) -> None:
    """Check how many cells a matrix may have, before any is made.

    Raises:
        BadInput: more than anybody runs.
    """
    backbones = max(1, len(matrix.llm)) * max(1, len(matrix.vision)) + len(matrix.mllm)
    axes = (matrix.connector, matrix.fusion, matrix.loss, matrix.variant)
    product = math.prod(max(1, len(axis)) for axis in axes)
    if (count := backbones * (product + len(matrix.arms) + len(matrix.baselines)) * len(matrix.seeds)) > MOST_CELLS:
        raise BadInput(
            f"the matrix has {count:,} combinations, and {MOST_CELLS:,} are the most",
            "name fewer on an axis, or fewer seeds",
        )


def _used(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the axes that the variant does not use."""
    spec = SPECS[chosen.get("variant", Recipe().variant)]
    whole = "mllm" in chosen
    used = {
        "llm": not whole, "vision": not whole and spec.image, "connector": not whole and spec.early,
        "fusion": spec.late, "mllm": True, "loss": True, "variant": True,
    }  # fmt: skip
    return {axis: value for axis, value in chosen.items() if used[axis]}


def _known_variant(name: str) -> None:
    if name not in SPECS:
        raise BadInput(f"there is no variant {name!r}", suggest(name, SPECS) or f"variants: {', '.join(SPECS)}")
