"""One cell of a matrix, with its name and its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from n2kit.bench.matrix import keys
from n2kit.bench.matrix.spec import Inference
from n2kit.contract.cards import VisionCard
from n2kit.plugins.component import Component
from n2kit.recipe.settings import Recipe


@dataclass(frozen=True)
class VisionFeatureKey:
    """A frozen vision encoder whose features are kept once for all cells; `values`: the numbers that it gives for an image."""

    key: str
    name: str
    values: int


@dataclass(frozen=True)
class Cell:
    """One model, trained with one seed, evaluated in one way; or one baseline.

    arm: its name without its seed. also: names of arms that come to the same. key: of its result. run_key: of its training, which
    inference arms share. vectors_keys: of its vectors, which cells with other measures share; the first is the one that it needs.
    kind: the same for cells that cost the same, which differ in seed, number of steps and learning rates alone. given: the
    settings that the user gave. refusal: (reason, hint) of a cell that cannot be run. vision_key: of the encoder's features.
    """

    arm: str
    axes: Mapping[str, Any]
    seed: int
    key: str
    run_key: str
    vectors_keys: tuple[str, ...] = ()
    kind: str = ""
    recipe: Recipe | None = None
    given: frozenset[str] = frozenset()
    inference: Inference = "both"
    trained: bool = True
    baseline: str | None = None
    refusal: tuple[str, str] | None = None
    vision_key: VisionFeatureKey | None = None
    also: tuple[str, ...] = ()

    def source(self, kept: Mapping[str, str]) -> str | None:
        """Return the key of a cell whose kept vectors are those of this one, so that only measuring is left; None without one."""
        return kept.get(self.vectors_keys[0]) if self.vectors_keys else None


def vision_feature_key(component: Component, card: VisionCard, recipe: Recipe) -> VisionFeatureKey | None:
    """Return the key of a frozen vision encoder's features; None where none are to be kept."""
    if not recipe.train.feature_cache_gb:
        return None
    key = keys.digest(keys.part(component), recipe.train.precision, recipe.train.feature_cache_gb)
    return VisionFeatureKey(key, short(component.reference), card.tokens * card.token_width + card.pooled_width)


def short(reference: str) -> str:
    """Shorten a backbone's reference for a label: of a path or an address, its last piece."""
    for scheme in ("file:", "hf:", "pkg:"):
        if scheme in reference:
            return PurePath(reference.partition(scheme)[2].partition("@")[0]).name
    return reference
