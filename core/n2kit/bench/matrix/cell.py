"""One cell of a matrix, and what it is called."""

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
    """A frozen vision encoder; `values` is how many numbers it gives for a picture."""

    key: str
    name: str
    values: int


@dataclass(frozen=True)
class Cell:
    """One model, trained with one seed, evaluated in one way; or one baseline.

    arm: what it is called without its seed. also: names of arms that come to the same. key: of its result. run_key: of its
    training, which inference arms share.
    vectors_keys: what its vectors are known by, that cells share which are measured differently; the first says what it needs.
    kind: the same for cells that cost the same: all but the seed, the number of steps and how fast is learned.
    given: settings that were asked for. refusal: (reason, hint) of a cell that cannot be. tower: what its cells have features of.
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
        """The key of a cell, of those whose vectors are kept, that leaves nothing but measuring; None if there is none."""
        return kept.get(self.vectors_keys[0]) if self.vectors_keys else None


def vision_feature_key(component: Component, card: VisionCard, recipe: Recipe) -> VisionFeatureKey | None:
    """A vision encoder that is frozen; None where no features are to be kept."""
    if not recipe.train.feature_cache_gb:
        return None
    key = keys.digest(keys.part(component), recipe.train.precision, recipe.train.feature_cache_gb)
    return VisionFeatureKey(key, short(component.reference), card.tokens * card.token_width + card.pooled_width)


def short(reference: str) -> str:
    """What a backbone is called in a label: of a source, its last piece."""
    for scheme in ("file:", "hf:", "pkg:"):
        if scheme in reference:
            return PurePath(reference.partition(scheme)[2].partition("@")[0]).name
    return reference
