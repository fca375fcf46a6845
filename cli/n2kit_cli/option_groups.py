"""Groups of options: one parameter of a command stands for several flags."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any

import typer

from n2kit.contract.kinds import CHOICES, KIND_SPECS, Kind

Command = Callable[..., None]
Decorator = Callable[[Command], Command]


def with_options(name: str, group: Sequence[inspect.Parameter], collect: Callable[[dict[str, Any]], Any]) -> Decorator:
    """Give a command a group of options in place of its parameter `name`, which gets what `collect` makes of their values."""

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)

        @wraps(command)
        def with_group(**given: Any) -> None:
            command(**{name: collect({one.name: given.pop(one.name, one.default) for one in group})}, **given)

        parameters: list[inspect.Parameter] = []
        for own, parameter in signature.parameters.items():
            parameters += group if own == name else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        with_group.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_group.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return with_group

    return decorate


def of_kind(kind: Kind) -> Any:
    """Return the type of a kind's option: `--llm NAME`."""
    return Annotated[str | None, typer.Option(f"--{kind}", help=KIND_SPECS[kind].option)]


def chooses(*kinds: Kind) -> Decorator:
    """Give a command an option for each of some kinds in place of its parameter `chosen`: kind → the name that is given."""
    group = [
        inspect.Parameter(kind, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=of_kind(kind))
        for kind in kinds or CHOICES
    ]
    return with_options("chosen", group, lambda given: {kind: name for kind, name in given.items() if name is not None})
