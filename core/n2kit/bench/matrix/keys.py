"""The keys of cells: hashes of all that a result depends on, without paths, so that a cell has the same key wherever it is run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.requirements import Requirement

from n2kit.planning.plan import Plan
from n2kit.plugins.component import CARD_FILES, Component
from n2kit.plugins.weights import WeightsUri, weight_files
from n2kit.recipe.prompt_templates import load_template
from n2kit.recipe.settings import Recipe
from n2kit.utils.digests import file_digest

# Raise it with any change of what a cell computes, a changed default included: what is left at its default is not hashed, so
# that a new setting keeps the keys of cells that were run before it.
CELL_VERSION = 1
# Settings of a training that change no result of a cell, as n2kit.train.run knows them; and the seed, which is hashed on its own.
NOT_HASHED = {"seed", "log_steps", "save_steps", "loggers", "feature_cache_gb", "checkpointing"}
COMMIT = re.compile("[0-9a-f]{40}")
UNKNOWN = "unknown"  # version of a distribution that is not installed
TASKS = {"category_task", "topics_task", "answer"}  # fields of a template that only a generating loss uses


def of_training(plan: Plan, data: Mapping[str, Any], *, trained: bool) -> dict[str, Any]:
    """Collect all that decides a model's weights but for the seed: its parts, how they are tuned, the data that it sees."""
    recipe = plan.recipe
    parts = {kind: part(component) for kind, component in plan.components.items()}
    facts: dict[str, Any] = {
        "version": CELL_VERSION,
        "versions": versions(plan.components.values()),
        "variant": recipe.variant,
        "parts": parts,
        "head": recipe.head.model_dump(),
        "prompt": _wording(recipe, tasks=plan.generates),
        "trained": trained,
        "precision": recipe.train.precision,
    }
    if not trained:
        return facts
    used = {"llm": True, "vision": plan.vision is not None, "connector": plan.connector is not None}
    schedule = recipe.train.model_dump(mode="json", exclude=NOT_HASHED, exclude_defaults=True)
    if recipe.train.max_steps is not None:
        schedule.pop("epochs", None)
    rates = {part: rate for part, rate in schedule.pop("lrs", {}).items() if part in _learning(plan)}
    if rates:  # of parts that there are
        schedule["lrs"] = rates
    seen = ["items", "pairs", "val_pairs", "on_bad_image"] + ["images"] * (plan.vision is not None)
    return facts | {
        "tune": {kind: getattr(recipe, kind).tune for kind, present in used.items() if present},
        "train": schedule,
        "data": {name: data[name] for name in seen},
    }


def _learning(plan: Plan) -> set[str]:
    """Return the parts that may have a learning rate of their own in this plan."""
    return {*plan.components, "head", "words"} | (
        {"llm", "vision", "connector"} if "mllm" in plan.components else set()
    )


def of_baseline(
    name: str,
    parts: Mapping[str, Component],
    recipe: Recipe,
    head: Mapping[str, Any] | None,
    data: Mapping[str, Any],
    learns_from: tuple[str, ...] = (),
    library: str | None = None,
) -> dict[str, Any]:
    """Collect all that decides a baseline's vectors but for the seed.

    Args:
        parts: the frozen backbones that it takes, and the loss that its head is trained with.
        head: the settings of that head; None: there is none to train.
        learns_from: the pairs that it learns from.
        library: a distribution that computes it.
    """
    seen = ["items", "on_bad_image", *["images"] * ("vision" in parts or "mllm" in parts), *learns_from]
    return {
        "version": CELL_VERSION,
        "versions": versions(parts.values()) | ({library: installed(library)} if library else {}),
        "baseline": name,
        "parts": {kind: part(component) for kind, component in parts.items()},
        "precision": recipe.train.precision,
        "prompt": _wording(recipe, tasks=False) if "llm" in parts or "mllm" in parts else None,
        "head": None if head is None else [recipe.head.model_dump(), dict(head)],
        "data": {key: data[key] for key in seen},
    }


def kind_of(training: Mapping[str, Any]) -> dict[str, Any]:
    """Select from the facts of `of_training` those that decide the cost of a step."""
    facts = {name: fact for name, fact in training.items() if name not in ("data", "train", "versions")}
    facts["parts"] = facts["parts"] | {"loss": facts["parts"]["loss"]["component"]}
    schedule = training.get("train", {})
    return facts | {name: schedule[name] for name in ("batch_size", "grad_cache") if name in schedule}


def of_vectors(reads_images: bool, data: Mapping[str, Any], inference: str) -> dict[str, Any]:
    """Collect what a cell's vectors depend on beside its model."""
    seen = ["items", "pairs", "test_pairs", "pool", "on_bad_image"] + ["images"] * reads_images
    return {"inference": inference, "data": {name: data[name] for name in seen}}


def digest(*facts: Any) -> str:
    """Hash facts to twelve hex digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def versions(components: Iterable[Component]) -> dict[str, str]:
    """Return the versions of the packages that compute a cell."""
    found = list(components)
    needed = {Requirement(line).name for c in found for line in c.registered.spec.requires}
    names = {"n2kit", "torch", "transformers", *needed, *(c.registered.distribution for c in found)}
    return {name: installed(name) for name in sorted(names)}


def installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return UNKNOWN


def part(component: Component) -> dict[str, Any]:
    """Describe a component by its class, its options and its weights."""
    spec = component.registered.spec
    options = component.config().model_dump(mode="json", exclude_defaults=True)
    if adapter := options.get("adapter"):
        options["adapter"] = weights_id(WeightsUri("file", adapter))
    return {
        "component": f"{component.registered.distribution}/{spec.name}",
        "version": component.registered.version,
        "options": options,
        "weights": weights_id(component.weights),
    }


def _wording(recipe: Recipe, *, tasks: bool) -> dict[str, Any]:
    """Describe a prompt by its words; `tasks`: with those that a generating loss uses."""
    words = asdict(load_template(recipe.prompt.template))
    limits = recipe.prompt.model_dump(exclude={"template"}, exclude_defaults=True)
    # A switch that is off is left out: templates had none once, and their cells keep their keys.
    return limits | {name: text for name, text in words.items() if text is not False and (tasks or name not in TASKS)}


def weights_id(weights: WeightsUri) -> str:
    """Identify weights without a path: a local folder by its content, a package by its version, a hub's branch by its commit."""
    if weights.scheme == "file":
        where = weights.locate()
        assert where is not None
        return f"sha256:{digest({name: file_digest(file) for name, file in weight_files(where).items()})}"
    if weights.scheme == "pkg":
        name, _, inner = weights.location.partition("/")
        return f"pkg:{name}=={installed(name)}/{inner}"
    if weights.scheme == "hf" and not COMMIT.fullmatch(weights.revision or ""):
        where = weights.locate(CARD_FILES)
        assert where is not None
        return str(weights.pinned(where))
    return str(weights)
