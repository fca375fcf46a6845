"""The typed settings of a run, and the layer that set each of them.

Precedence: flag > `N2KIT_*` variable > recipe file > project `n2kit.yaml` > user file > default.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, PositiveFloat, ValidationError, field_validator

from n2kit.contract.kinds import CHOICES
from n2kit.errors import BadInput, suggest
from n2kit.recipe.best_metric import check_best_metric
from n2kit.recipe.choices import Backbone, Choices, Settings
from n2kit.recipe.variants import SPECS
from n2kit.utils.cache import config_folder
from n2kit.utils.yaml_files import ERRORS, construct, parse_yaml, problem_of, read_with_lines

VariantName = Literal[
    "text_only", "image_only", "basic", "only_late_fusion", "late_early_fusion", "micl", "notellm2", "late_whitened",
    "joined_whitened",
]  # fmt: skip
SHOWN = 60  # characters of a value in an error
UNKNOWN = "extra_forbidden"  # pydantic's name for a key that a model does not have
PROJECT_FILE = Path("n2kit.yaml")


class Head(Settings):
    width: int | None = Field(256, ge=1, description="embedding width; the paper had 64; null keeps the LLM's own")


class Prompt(Settings):
    """Limits of the prompt. Fields are cut, never the end of the prompt; a null limit is the template's own."""

    template: str = Field(
        "auto",
        description="a built-in name (en, zh, compact, plain, …), plain:WORDS, a plug-in's, a YAML file, or auto: an embedding "
        "model's own, else compact for a small LLM and en for a larger one",
    )
    body_tokens: int = Field(140, ge=8, description="most tokens of a prompt before its suffix")
    title_chars: int | None = Field(None, ge=0, description="most characters of a title")
    content_chars: int | None = Field(None, ge=0, description="most characters of a content")
    topics: int | None = Field(None, ge=0, description="most topics an item keeps")


class Train(Settings):
    epochs: float = Field(1.0, gt=0, description="passes over the pairs")
    max_steps: int | None = Field(None, ge=1, description="stops after so many steps; overrides epochs")
    batch_size: int = Field(16, ge=2, description="pairs a step: twice as many items")
    lr: float = Field(3e-6, gt=0, description="learning rate of the backbones that are tuned")
    new_lr: float | None = Field(
        1e-4,
        gt=0,
        description="learning rate of connector, fusion, head, words (special tokens); null: lr",
    )
    lrs: dict[Literal["llm", "vision", "connector", "fusion", "head", "residual", "words", "loss"], PositiveFloat] = (
        Field({}, description="part → its own learning rate, in place of lr and new_lr: {llm: 1e-5}")
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor of the learning rate for each block that a weight of a backbone lies deeper",
    )
    weight_decay: float = Field(0.001, ge=0, description="AdamW's, of matrices; vectors and scalars have none")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    seed: int = Field(0, ge=0, lt=2**32, description="of new weights, the order of the pairs, and what else is drawn")
    hard_negatives: int | None = Field(
        None, ge=1, description="most hard negatives of a pair in a step, drawn anew each epoch; null: all it has"
    )
    topic_share: float = Field(
        0.4, ge=0, le=1, description="share of items that loss notellm asks for topics, and not for their category"
    )
    topics_held: int = Field(
        5, ge=1, description="most topics that an item is asked for; they are held back from its prompt"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the computation; auto takes bf16 only where the machine is faster with it"
    )
    save_steps: int = Field(500, ge=1, description="steps between checkpoints")
    eval_steps: int = Field(100, ge=1, description="steps between recalls on the validation pairs")
    log_steps: int = Field(10, ge=1, description="steps between log entries")
    loggers: list[str] = Field(
        [],
        description="who else gets what the log gets: tensorboard, wandb, mlflow, each an extra of the package, n2kit[tensorboard]; "
        "or a plug-in's",
    )
    feature_cache_gb: float = Field(
        4.0,
        ge=0,
        description="memory, and as much disk, for features of a frozen vision encoder, and states of a frozen LLM; 0: none",
    )
    grad_cache: int | None = Field(
        None, ge=1, description="items encoded at a time, to save memory; null: all of a step"
    )
    checkpointing: bool = Field(
        False, description="the backbones' blocks keep their inputs alone and run twice: less memory, more time"
    )
    compile: bool = Field(False, description="the backbones' blocks run as code that torch.compile makes of them")
    fsdp: bool = Field(
        False, description="spread the LLM's blocks over the processes of a launcher (FSDP2), each keeping a share"
    )
    best_metric: str = Field(
        "recall@10",
        description="what validations are compared by: recall@K, ndcg@K or mrr, as n2kit eval computes them, or a plug-in's",
    )
    keep_best: bool = Field(
        True,
        description="end with the weights of the best validation, and from a bundle that was fitted or trained only where it is ahead "
        "of the start by more than a standard error; false: with those of the last step",
    )
    patience: int | None = Field(
        None, ge=1, description="validations in a row without a better one, after which training stops; null: never"
    )
    explosion: float | None = Field(
        100.0,
        gt=1,
        description="stop when, 5 steps in a row, the gradient is so many times its median over 100 steps; null: never",
    )


class Recipe(Choices):
    """Everything that decides what a model computes and how it is trained."""

    variant: VariantName = Field(
        "notellm2",
        description="how image and text come together: the paper's ablation, late_whitened or joined_whitened",
    )
    licences: list[str] | None = Field(None, description="the only licences of weights to allow; null: any")
    head: Head = Field(Head(), description="what makes the embedding of the LLM's state")
    prompt: Prompt = Field(Prompt(), description="the text that an item becomes")
    train: Train = Field(Train(), description="how it is trained")

    @field_validator("vision")
    @classmethod
    def _four_bits(cls, vision: Backbone) -> Backbone:
        if vision.tune.startswith("qlora"):
            raise ValueError(f"tune {vision.tune!r} packs a language model alone; lora:R trains the same adapter")
        return vision

    def digest(self, without: Mapping[str, set[str]] | None = None) -> str:
        """Hash every setting but those in `without` (section → names): two runs are the same run if it is equal."""
        settings = self.model_dump(exclude=dict(without or {}))
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


@dataclass
class Resolved:
    """A recipe with, for each dotted key, the place that set it (`flag`, `file:line`, a variable, `default`)."""

    recipe: Recipe
    origin: dict[str, str] = field(default_factory=dict)


def resolve(
    flags: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    base: Recipe | None = None,
    env: Mapping[str, str] | None = None,
) -> Resolved:
    """Merge all layers and validate once.

    Args:
        flags: dotted key → value.
        file: a recipe file; its errors are reported by line.
        base: a bundle's own recipe, which takes the place of the defaults. What a project, a user or the environment sets then
            counts for training only: it cannot change what the bundle is.

    Raises:
        BadInput: every wrong setting, each with its place.
    """
    merged: dict[str, Any] = base.model_dump() if base else {}
    origin: dict[str, str] = {}
    ambient = _from_env(os.environ if env is None else env)
    for path in (_user_file(), PROJECT_FILE):
        if path.is_file():
            apply_layer(merged, origin, _applicable(_read_yaml(path), base))
    if file is not None:
        if not file.is_file():
            raise BadInput(f"no recipe file {file}", "n2kit config show prints one to start from")
        apply_layer(merged, origin, _read_yaml(file))
    apply_layer(merged, origin, _applicable(ambient, base))
    apply_layer(merged, origin, [(k, v, "flag") for k, v in (flags or {}).items()])
    if base is None:
        _apply_variant(merged, origin)
    try:
        resolved = Resolved(Recipe.model_validate(merged), origin)
    except ValidationError as error:
        hint = _meant(error, origin) or "n2kit config show --all lists every setting"
        raise BadInput(_explain(error, origin), hint) from None
    if "train.best_metric" in origin:  # a bundle's own counts in a training alone, and its plug-in may not be here
        check_best_metric(resolved.recipe.train.best_metric)
    return resolved


def _apply_variant(merged: dict[str, Any], origin: dict[str, str]) -> None:
    """Apply the defaults of the variant that was chosen, where nothing else has set them."""
    variant = merged.get("variant")
    spec = SPECS.get(variant) if isinstance(variant, str) else None
    entries = [(k, v, f"variant {variant}") for k, v in (spec.defaults if spec else {}).items() if k not in origin]
    apply_layer(merged, origin, entries)


def parse_sets(pairs: Iterable[str]) -> dict[str, Any]:
    """Parse `--set a.b=c` into dotted key → YAML value.

    Raises:
        BadInput: no `=`, or a key that no setting begins with.
    """
    flags: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--set {pair!r}: expected key=value", "for example --set train.lr=1e-4")
        flags[key.strip()] = scalar(value)
    return flags


def _applicable(entries: Iterable[tuple[str, Any, str]], base: Recipe | None) -> list[tuple[str, Any, str]]:
    return [e for e in entries if base is None or e[0].split(".")[0] == "train"]


def drop_none(**flags: Any) -> dict[str, Any]:
    """Return the flags that were given: those that are not None."""
    return {k: v for k, v in flags.items() if v is not None}


def scalar(text: str) -> Any:
    """Parse a value as YAML does, but `1e-4` as a number, which YAML 1.1 takes for a text.

    Raises:
        BadInput: the text is no YAML value.
    """
    try:
        value = parse_yaml(text) if text else None
    except ERRORS as error:
        shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
        raise BadInput(f"{shown} is no YAML value: {problem_of(error)}", "quote it: key='\"text\"'") from None
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as a string
        except ValueError:
            return value
    return value


def _from_env(env: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    """Collect settings from variables: `N2KIT_TRAIN__LR=1e-4` sets `train.lr`; other N2KIT_ variables are no settings."""
    out = []
    for name, text in sorted(env.items()):
        key = name.removeprefix("N2KIT_").lower().replace("__", ".")
        if name.startswith("N2KIT_") and key.split(".")[0] in Recipe.model_fields:
            out.append((key, scalar(text), name))
    return out


def apply_layer(merged: dict[str, Any], origin: dict[str, str], entries: Iterable[tuple[str, Any, str]]) -> None:
    """Apply one layer to `merged`, component names first: a new name drops the options of the old component."""
    named = [(f"{k}.name" if k in CHOICES and isinstance(v, str) else k, v, w) for k, v, w in entries]
    for key, value, where in sorted(named, key=lambda e: not e[0].endswith(".name")):
        *parents, last = key.split(".")
        node = merged
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                default = Recipe.model_fields[parent].default if parent in CHOICES else None
                node[parent] = default.model_dump() if default else {}
            node = node[parent]
        if parents and parents[0] in CHOICES and last == "name" and node.get("name") != value:
            for stale in set(node) - {"tune"}:
                del node[stale]
        node[last] = value
        origin[key] = where


def _read_yaml(path: Path) -> list[tuple[str, Any, str]]:
    """Read the leaves of a YAML file as (dotted key, value, `file:line`)."""
    root, found = read_with_lines(path)
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise BadInput(f"{path}:1: expected settings by name", "n2kit config show prints a recipe")
    leaves = []
    for place, line, node in found:
        if any(isinstance(part, int) for part in place) or (isinstance(node, yaml.MappingNode) and node.value):
            continue  # an entry of a list, which is one value; or a mapping, whose own values are leaves
        key = ".".join(map(str, place))
        try:
            value = construct(node)
        except ERRORS as error:
            raise BadInput(f"{path}:{line}: {key}: {problem_of(error)}", "correct the value") from None
        plain = isinstance(value, str) and isinstance(node, yaml.ScalarNode) and not node.style
        leaves.append((key, scalar(value) if plain else value, f"{path}:{line}"))
    return leaves


def _explain(error: ValidationError, origin: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        near = (w for k, w in origin.items() if k.startswith(f"{key}.") or key.startswith(f"{k}."))
        where = origin.get(key) or next(near, "default")
        what = "no such setting" if problem["type"] == UNKNOWN else problem["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {key}: {what}")
    return "\n".join(lines) if len(lines) == 1 else f"{len(lines)} settings are wrong\n" + "\n".join(lines)


def _meant(error: ValidationError, origin: Mapping[str, str]) -> str | None:
    """Say which setting the first unknown one may be: by its whole name, and by the last part of it (`lr`, `training.lr`)."""
    unknown = next((p["loc"] for p in error.errors() if p["type"] == UNKNOWN), None)
    if unknown is None:
        return None
    key = ".".join(map(str, unknown))
    key = next((k for k in origin if k.startswith(f"{key}.")), key)
    known = list(_keys(Recipe))
    alike = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
    return f"did you mean {' or '.join(alike[:3])}?" if alike else suggest(key, known)


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings, without the options of components."""
    for name, about in model.model_fields.items():
        inner = about.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def changed_settings(old: Recipe, new: Recipe, without: Mapping[str, set[str]] | None = None) -> list[str]:
    """List the settings in which two recipes differ, as `train.lr 3e-06, now 0.001`; but for those in `without`."""
    one, two = (dict(_leaves(r.model_dump(exclude=dict(without or {})), "")) for r in (old, new))
    keys = dict.fromkeys([*one, *two])
    return [f"{k} {one.get(k)}, now {two.get(k)}" for k in keys if one.get(k) != two.get(k)]


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _user_file() -> Path:
    return config_folder() / "config.yaml"
