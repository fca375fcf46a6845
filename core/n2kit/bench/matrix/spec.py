"""The specification of a matrix, as a user writes it: a YAML file, flags, or both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator

from n2kit.errors import BadInput, suggest
from n2kit.recipe.choices import Settings
from n2kit.recipe.limits import MOST_K, MOST_RESAMPLES
from n2kit.recipe.settings import scalar
from n2kit.utils.yaml_files import ERRORS, Place, construct, not_yaml, read_with_lines

Inference = Literal["both", "no-image", "no-text"]
Protocol = Literal["notellm2", "standard"]
Preset = Literal["paper", "quick"]
AXES = ("llm", "vision", "mllm", "connector", "fusion", "loss", "variant")
MOST_SEEDS = 1000


def _listed(value: Any) -> Any:
    """Split `a,b`, as a flag gives it, into a list."""
    if not isinstance(value, str):
        return value
    names = [part.strip() for part in value.split(",") if part.strip()]
    if not names:  # as of a variable of the shell that is not set; the default would be another model than was meant
        raise ValueError("names nothing")
    return names


def _counted(value: Any) -> Any:
    """Expand N into the seeds 0 … N − 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value > MOST_SEEDS:
        raise ValueError(f"at most {MOST_SEEDS} seeds")
    return list(range(value))


def _flat(value: Any) -> Any:
    """Flatten nested settings to their dotted names."""
    return dict(_dotted(value, "")) if isinstance(value, Mapping) else value


def _dotted(node: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _setting(value) if isinstance(value, str) else value


def _setting(text: str) -> Any:
    """Parse a text as `scalar` does; one that was quoted in the file need not be YAML once more."""
    try:
        return scalar(text)
    except BadInput:
        return text


Names = Annotated[list[str], BeforeValidator(_listed)]
Dotted = Annotated[dict[str, Any], BeforeValidator(_flat)]


class ArmSpec(Settings):
    """One more arm for every pair of backbones: what it does not name is the first of the matrix's own, the variant notellm2."""

    name: str = Field(min_length=1, description="what the arm is called")
    llm: str | None = None
    vision: str | None = None
    mllm: str | None = None
    connector: str | None = None
    fusion: str | None = None
    loss: str | None = None
    variant: str | None = None
    settings: Dotted = Field({}, description="dotted key → value, over the matrix's own")
    inference: Inference = Field("both", description="what a trained model gets to read when it embeds")
    trained: bool = Field(True, description="false: the model as it is built (zero-shot)")
    optional: bool = Field(False, description="true: where the parts at hand cannot be it, it is refused and no error")


class MatrixSpec(Settings):
    """Axes, whose product is run; arms that are added to it; and the data that all cells share."""

    preset: Preset | None = Field(None, description="paper: the paper's arms and the first baselines; quick: a few")
    llm: Names = Field([], description="language models")
    vision: Names = Field([], description="vision encoders")
    mllm: Names = Field([], description="multimodal LLMs, each in place of llm, vision and connector")
    connector: Names = Field([], description="connectors")
    fusion: Names = Field([], description="late fusions")
    loss: Names = Field([], description="losses")
    variant: Names = Field([], description="variants, as the paper's ablation has them")
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], BeforeValidator(_counted)] = Field(
        [0], min_length=1, description="a list, or N for 0 … N − 1"
    )
    settings: Dotted = Field({}, description="dotted key → value, for every cell: train.max_steps: 300")
    arms: list[ArmSpec] = Field([], description="further arms")
    baselines: Names = Field([], description="what anybody would try first; n2kit bench --help names them")
    items: Path | None = Field(None, description="the items file")
    pairs: Path | None = Field(None, description="training pairs")
    val_pairs: Path | None = Field(None, description="pairs for the recall that is watched while training")
    test_pairs: Path | None = Field(None, description="pairs that are ranked at the end")
    pool: Path | None = Field(None, description="ids that may be found; without it, all items")
    images: Path | None = Field(None, description="the folder that image paths are relative to")
    fetch_images: Path | None = Field(None, description="download images that are URLs into this folder, once")
    fetch_private: bool = Field(False, description="download from private addresses, too")
    on_bad_image: Literal["error", "skip", "text-only"] = "error"
    format: str = "auto"
    map: dict[str, str] = Field({}, description="field → the own column of the items file, or of the pairs files")
    encoding: str | None = Field(None, description="of text files that are not UTF-8")
    allow_no_images: bool = Field(False, description="go on where no item has a picture, and a variant reads them")
    allow_no_texts: bool = Field(False, description="go on where no item has a text, and a variant reads them")
    lenient: bool = Field(False, description="drop unusable rows instead of refusing the file")
    protocol: Protocol = Field("notellm2", description="how pairs are ranked, as n2kit eval has it")
    ks: list[Annotated[int, Field(ge=1, le=MOST_K)]] = Field([1, 10, 100], min_length=1, description="cut-offs")
    metrics: Names = Field([], description="metrics of plug-ins, beside n2kit's own; n2kit plugins list names them")
    bootstrap: int = Field(1000, ge=0, le=MOST_RESAMPLES, description="samples for the 95 % intervals; 0 for none")
    saliency: int = Field(0, ge=0, description="items whose saliency is measured in each arm that has one")

    @field_validator("seeds", "ks", "metrics")
    @classmethod
    def _distinct(cls, value: list[Any]) -> list[Any]:
        return list(dict.fromkeys(value))

    @field_validator("arms")
    @classmethod
    def _by_name(cls, value: list[ArmSpec]) -> list[ArmSpec]:
        names = [(arm.name, arm.variant or "notellm2") for arm in value]
        if twice := next((name for name, count in Counter(names).items() if count > 1), None):
            raise ValueError(f"two arms of one variant are called {twice[0]!r}")
        return value

    @property
    def evaluation(self) -> dict[str, Any]:
        """The settings that decide figures beside vectors and pairs."""
        other: dict[str, Any] = {"protocol": self.protocol} if self.protocol != "notellm2" else {}
        other |= {"metrics": sorted(self.metrics)} if self.metrics else {}
        return {"ks": self.ks, "bootstrap": self.bootstrap} | other

    def to_yaml(self) -> str:
        """Write the matrix as YAML from which it can be read again, its data by absolute paths."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        content |= {key: str(v.absolute()) for key in content if isinstance(v := getattr(self, key), Path)}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def read_matrix(file: Path | None, flags: Mapping[str, Any]) -> MatrixSpec:
    """Read a matrix file; flags override it, and `settings` of both are merged.

    Raises:
        BadInput: no such file, no YAML, or every wrong entry with its line.
    """
    content: dict[str, Any] = {}
    lines: dict[Place, str] = {}
    if file is not None:
        content, lines = _read(file)
    merged = content | dict(flags)
    if isinstance(own := content.get("settings") or {}, Mapping):
        merged["settings"] = _flat(own) | flags.get("settings", {})
    else:
        merged["settings"] = own  # for pydantic to refuse, with its line
    return _checked(merged, lines, flags)


def matrix_of(content: Mapping[str, Any]) -> MatrixSpec:
    """Check a matrix that is given as a mapping, with the keys of a matrix file.

    Raises:
        BadInput: every wrong entry by its key.
    """
    return _checked(content, {}, {})


def _checked(content: Mapping[str, Any], lines: Mapping[Place, str], flags: Mapping[str, Any]) -> MatrixSpec:
    try:
        return MatrixSpec.model_validate(dict(content))
    except ValidationError as error:
        raise BadInput(_explain(error, lines, flags), "docs/bench.md names every key") from None


def _read(file: Path) -> tuple[dict[str, Any], dict[Place, str]]:
    """Read the file's content, and `file:line` of every value in it."""
    if not file.is_file():
        raise BadInput(f"no matrix file {file}", "give a YAML file, or the axes as flags: n2kit bench --help")
    root, values = read_with_lines(file, text_keys=True)
    if not isinstance(root, yaml.MappingNode):
        raise BadInput(f"{file}:1: expected the matrix by its keys", "for example llm: [qwen, llama]")
    try:
        content = construct(root)
    except ERRORS as error:
        raise not_yaml(file, error) from None
    return content, {value.place: f"{file}:{value.line}" for value in values}


def _explain(error: ValidationError, lines: Mapping[Place, str], flags: Mapping[str, Any]) -> str:
    found = []
    for problem in error.errors():
        place = problem["loc"]
        known = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), None)
        where = f"--{str(place[0]).replace('_', '-')}" if place and place[0] in flags else known or "matrix"
        what = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            names = ArmSpec.model_fields if len(place) > 1 else MatrixSpec.model_fields
            what = f"there is no such key; {suggest(str(place[-1]), names) or ''}"
        found.append(f"{where}: {'.'.join(map(str, place))}: {what.rstrip('; ')}")
    return "\n".join(found) if len(found) == 1 else f"{len(found)} entries are wrong\n" + "\n".join(found)
