"""n2kit config."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from n2kit_cli import options
from n2kit_cli.output import document, table

app = typer.Typer(help="The settings of a run.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Also say what set each value.")] = False,
    recipe: options.RecipeFile = None,
    sets: options.Sets = None,
    json: options.Json = False,
) -> None:
    """Every setting as it would be used here, as a recipe file to start from.

    Precedence: flag > N2KIT_* variable > recipe file > n2kit.yaml here > ~/.config/n2kit/config.yaml > default.

    \b
    Examples:
      n2kit config show
      n2kit config show --origin --set train.lr=1e-4
    """
    from n2kit.recipe import parse_sets, resolve

    resolved = resolve(parse_sets(sets or []), file=recipe)
    values = list(_flat(resolved.recipe.model_dump(), ""))
    if json:
        document({key: {"value": value, "origin": resolved.origin.get(key, "default")} for key, value in values})
    elif origin:
        table(
            ("setting", "value", "from"),
            [(key, _shown(value), resolved.origin.get(key, "default")) for key, value in values],
        )
    else:
        print(resolved.recipe.to_yaml(), end="")


def _flat(node: dict[str, Any], prefix: str) -> Any:
    for key, value in node.items():
        if isinstance(value, dict) and value and not prefix:
            yield from _flat(value, f"{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
