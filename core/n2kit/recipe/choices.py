"""The part of a recipe that chooses components: a section for each kind that `n2kit.contract.kinds` gives a recipe key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from n2kit.contract.kinds import KIND_SPECS, RecipeKey
from n2kit.recipe.tuning import Tune


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Choice(BaseModel):
    """A component by name; every other key is an option of that component."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(
        description="NAME[:PRESET][@SOURCE], as n2kit ls lists them; other keys are the component's options"
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _valid_tune(text: str) -> str:
    return str(Tune.parse(text))


class Backbone(Choice):
    """An LLM or a vision encoder, and how it is tuned; see `n2kit.recipe.tuning`."""

    tune: Annotated[str, AfterValidator(_valid_tune)] = Field(
        "frozen",
        description="frozen: bit-equal and in eval mode; last:K: the last K blocks and what comes after them; lora:R or "
        "lora:R:ALPHA: adapters of rank R on the linear layers of its blocks (ALPHA is 2 R); qlora:R: the same, the LLM's weights "
        "in 4 bits meanwhile; full: all of it",
    )


class Joint(Choice):
    """A connector, and whether it is tuned."""

    tune: Literal["frozen", "full"] = Field(
        "full", description="frozen, for one that was trained before; full: all of it"
    )


SECTIONS: dict[str | None, type[Choice]] = {"blocks": Backbone, "whole": Joint, None: Choice}


def _section(key: RecipeKey) -> tuple[Any, Any]:
    """Make the field of a kind: its type, its default and its meaning."""
    section = SECTIONS[key.tuning]
    if key.default is None:
        return section | None, Field(None, description=key.meaning)
    default = section(name=key.default) if key.tune is None else section(name=key.default, tune=key.tune)
    return section, Field(default, description=key.meaning)


if TYPE_CHECKING:

    class Choices(Settings):
        """The types of the sections that code asks for by name; `test_kinds.py` compares them with what is made of the kinds."""

        llm: Backbone = Backbone(name="")
        vision: Backbone = Backbone(name="")
        mllm: Choice | None = None
        connector: Joint = Joint(name="")
        fusion: Choice = Choice(name="")
        loss: Choice = Choice(name="")
else:
    Choices = create_model(
        "Choices",
        __base__=Settings,
        **{kind: _section(spec.recipe) for kind, spec in KIND_SPECS.items() if spec.recipe is not None},
    )
