"""n2kit config."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Show every setting as it would be used here, as a recipe file to start from.

    Precedence: flag > N2KIT_* variable > recipe file > n2kit.yaml here > ~/.config/n2kit/config.yaml > default.

    \b
    Examples:
      n2kit config show
      n2kit config show --origin --set train.lr=1e-4
    """
    from n2kit.recipe.settings import parse_sets, resolve

    resolved = resolve(parse_sets(sets or []), file=recipe)
    values = list(_flat(resolved.recipe.model_dump(), ""))
    if json:
        document({key: {"value": value, "origin": _origin(resolved.origin, key)} for key, value in values})
    elif origin:
        table(
            ("setting", "value", "from"),
            [(key, _shown(value), _origin(resolved.origin, key)) for key, value in values],
        )
    else:
        print(resolved.recipe.to_yaml(), end="")


@app.command()
def schema(json: options.Json = False) -> None:
    """List every setting there is: its type, its default, its meaning. With --json, as a JSON schema for an editor.

    \b
    Examples:
      n2kit config schema
      n2kit config schema --json
    """
    from n2kit.recipe.schema import settings
    from n2kit.recipe.settings import Recipe

    if json:
        document({"$schema": "https://json-schema.org/draft/2020-12/schema"} | Recipe.model_json_schema())
    else:
        rows = [(s.key, s.type, _shown(s.default), s.meaning) for s in settings()]
        table(("setting", "type", "default", "meaning"), rows)


def _origin(origin: Mapping[str, str], key: str) -> str:
    """Return the place that set a value; of a mapping, of the last of its entries."""
    inside = [where for k, where in origin.items() if k == key or k.startswith(f"{key}.")]
    return inside[-1] if inside else "default"


def _flat(node: dict[str, Any], prefix: str) -> Any:
    for key, value in node.items():
        if isinstance(value, dict) and value and not prefix:
            yield from _flat(value, f"{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
