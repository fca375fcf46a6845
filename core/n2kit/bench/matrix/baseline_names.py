"""The names of the baselines, and their settings; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field, PositiveFloat, ValidationError

from n2kit.contract.baseline import Baseline
from n2kit.contract.cards import LLMCard, MLLMCard
from n2kit.errors import BadInput
from n2kit.planning.planner import component_of, with_template
from n2kit.plugins.component import Component
from n2kit.plugins.registries import find
from n2kit.recipe.choices import Settings
from n2kit.recipe.settings import Recipe, Resolved, resolve

BOTH = ("llm", "vision")
PAIRS = ("pairs", "val_pairs")
BASELINES: dict[str, Baseline] = {
    "tfidf": Baseline("TF-IDF of words and characters", needs="scikit-learn"),
    "text": Baseline("the frozen LLM's compressed word of the text prompt", ("llm",)),
    "vision": Baseline("the frozen vision encoder's pooled vector", ("vision",)),
    "mllm": Baseline("the frozen multimodal LLM's own vector of image and text, by its own prompt", ("mllm",)),
    "text-std": Baseline("text, standardised by the training items", ("llm",), ("pairs",)),
    "vision-std": Baseline("vision, standardised by the training items", ("vision",), ("pairs",)),
    "concat-std": Baseline("both, standardised by the training items and concatenated", BOTH, ("pairs",)),
    "whitened": Baseline("both, whitened by the training pairs in closed form: what n2kit fit does", BOTH, PAIRS),
    "whitened-no-pairs": Baseline("both, whitened by all items: what n2kit fit does without pairs", BOTH),
    "text-linear": Baseline("text, standardised, with a trained linear head", ("llm",), PAIRS, trained=True),
    "vision-linear": Baseline("vision, standardised, with a trained linear head", ("vision",), PAIRS, trained=True),
    "concat": Baseline("both, standardised and concatenated, with a trained linear head", BOTH, PAIRS, trained=True),
    "sum": Baseline(
        "both, standardised, each with a trained linear head to unit length, summed", BOTH, PAIRS, trained=True
    ),
}
NAMES: dict[str, str] = {name: baseline.summary for name, baseline in BASELINES.items()}
REGISTRY = "baseline"
OWN = "baseline."  # prefix of the settings of heads: baseline.max_steps
# Settings that a baseline shares with the joined models of a matrix. Those of their training do not apply to a linear head.
SHARED = ("llm", "vision", "mllm", "prompt", "loss", "head", "train.precision", "train.feature_cache_gb")


class HeadSettings(Settings):
    """The training of the baselines' heads. Validation pairs choose the learning rate and the step; nothing else does."""

    lrs: list[PositiveFloat] = Field(
        [1e-3, 3e-4, 3e-3], min_length=1, description="learning rates to try; without validation pairs, the first alone"
    )
    max_steps: int = Field(1000, ge=1, description="most steps; without validation pairs, all of them")
    batch_size: int = Field(256, ge=2, description="pairs a step")
    eval_steps: int = Field(20, ge=1, description="steps between evaluations of the validation pairs")
    patience: int = Field(10, ge=1, description="evaluations without an improvement before a training stops")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's")


def baseline_of(name: str) -> Baseline:
    """Return a baseline of n2kit's or of a plug-in's by name.

    Raises:
        BadInput: an unknown name. Unavailable: the plug-in's is no sound `Baseline`.
    """
    if name in BASELINES:
        return BASELINES[name]
    entry = find(REGISTRY, name, BASELINES)
    made = entry.load()
    if (
        not isinstance(made, Baseline)
        or not made.target
        or not {*made.takes} <= {*BOTH, "mllm"}
        or not {*made.learns_from} <= {*PAIRS}
    ):
        raise entry.fault("it is no n2kit.contract.Baseline with a target, and known `takes` and `learns_from`")
    return replace(made, needs=entry.distribution)  # whose version is a part of a cell's key


def settings_of(given: Mapping[str, Any], backbones: Mapping[str, str | None]) -> tuple[Resolved, HeadSettings]:
    """Split the settings of a matrix for a baseline: the recipe of its backbones, and the settings of its head.

    Raises:
        BadInput: a setting that there is not.
    """
    flags = {k: v for k, v in given.items() if any(k == s or k.startswith(f"{s}.") for s in SHARED)}
    resolved = resolve(flags | dict(backbones))
    own = {k.removeprefix(OWN): v for k, v in given.items() if k.startswith(OWN)}
    try:
        return resolved, HeadSettings.model_validate(own)
    except ValidationError as error:
        wrong = "; ".join(f"{OWN}{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadInput(wrong, f"known: {', '.join(OWN + k for k in HeadSettings.model_fields)}") from None


def worded(resolved: Resolved, parts: Mapping[str, Component]) -> Recipe:
    """Return the recipe with the prompt that a joined model of the same language model and settings has."""
    recipe = resolved.recipe
    if "llm" in parts and isinstance(llm := parts["llm"].card(), LLMCard):
        recipe = with_template(recipe, llm, parts["llm"], resolved.origin)
    if "mllm" in parts and isinstance(whole := parts["mllm"].card(), MLLMCard):
        recipe = with_template(recipe, whole.llm, parts["mllm"], resolved.origin)
    return recipe


def worded_settings_of(given: Mapping[str, Any], backbones: Mapping[str, str | None]) -> tuple[Recipe, HeadSettings]:
    """Split the settings of a matrix likewise, with the prompt of the backbones that are named.

    Raises:
        BadInput, Mismatch, Unavailable: a setting that there is not; a language model that cannot be had.
    """
    resolved, own = settings_of(given, backbones)
    named = [kind for kind in ("llm", "mllm") if backbones.get(kind)]
    return worded(resolved, {kind: component_of(resolved.recipe, kind) for kind in named}), own
