"""`--data DIR` in place of the flags of items, images, pairs and pool, for every command that takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from n2kit.errors import BadInput
from n2kit_cli.output import say

Roles = Mapping[str, str | tuple[str, ...]]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="A folder of items, train, val, test, pool and images, in place of their flags, which count over it.",
    ),
]


def takes_data(*, unless: str = "", **roles: str | tuple[str, ...]) -> Callable[..., Callable[..., None]]:
    """Give a command `--data`, a folder whose files stand for its own flags.

    Args:
        roles: parameter → the role of the file in the folder, beside items and images.
        unless: a parameter; where it is given, items and pairs of the training are not asked for.
    """
    every: Roles = {"items": "items", "images": "images", **roles}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        needed = [n for n, p in signature.parameters.items() if n in every and p.default is inspect.Parameter.empty]

        @wraps(command)
        def with_data(**given: Any) -> None:
            folder = given.pop("data")
            if folder is not None:
                left = every if not given.get(unless) else {n: r for n, r in every.items() if r in ("test", "pool")}
                _fill(given, left, folder, needed)
            if missing := next((name for name in needed if given[name] is None), None):
                what = f"Missing option '--{missing.replace('_', '-')}'"
                raise BadInput(what, f"n2kit {_name(command)} --help; or --data FOLDER, which has all of them")
            command(**given)

        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            kept = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            if name in needed:
                annotation = Annotated[get_args(kept.annotation)[0] | None, *get_args(kept.annotation)[1:]]  # type: ignore[valid-type]
                kept = kept.replace(default=None, annotation=annotation)
            if name in every and not any(p.name == "data" for p in parameters):
                parameters.append(inspect.Parameter("data", kept.kind, default=None, annotation=Data))
            parameters.append(kept)
        with_data.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_data.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return with_data

    return decorate


def _name(command: Callable[..., None]) -> str:
    """Name a command as it is typed; bench run needs no option of these."""
    return {"evaluate": "eval"}.get(command.__name__, command.__name__.replace("_", "-"))


def _fill(given: dict[str, Any], roles: Roles, folder: Path, needed: list[str]) -> None:
    """Let the folder's files stand for the flags that were not given."""
    from n2kit.data.folder import data_file, needed_file, passed_over

    read: list[str] = []
    for name, role in roles.items():
        if name not in given or given[name]:
            continue
        read += [role] if isinstance(role, str) else role
        if isinstance(role, tuple):
            given[name] = [file for one in role if (file := data_file(folder, one)) is not None] or given[name]
        else:
            given[name] = (needed_file if name in needed else data_file)(folder, role)
    for note in passed_over(folder, dict.fromkeys(read)):
        say(f"note: {note}")
