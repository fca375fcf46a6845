"""n2kit config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit.contract.kinds import KINDS
from n2kit_cli import options
from n2kit_cli.option_groups import chooses
from n2kit_cli.output import document, emit, table

if TYPE_CHECKING:
    from n2kit.recipe.settings import Resolved

app = typer.Typer(help="The settings of a run.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def show(
    every: Annotated[
        bool, typer.Option("--all", help="Also what each setting means, and the options of the chosen components.")
    ] = False,
    origin: Annotated[bool, typer.Option("--origin", help="Also say what set each value.")] = False,
    recipe: options.RecipeFile = None,
    sets: options.Sets = None,
    json: options.Json = False,
) -> None:
    """Show every setting as it would be used here, as a recipe file to start from.

    Precedence: flag > N2KIT_* variable > recipe file > n2kit.yaml here > ~/.config/n2kit/config.yaml > default.
    A variable is N2KIT_SECTION__KEY: N2KIT_TRAIN__LR=1e-4 sets train.lr, and N2KIT_LLM=qwen the language model.

    \b
    Examples:
      n2kit config show
      n2kit config show --all
      n2kit config show --origin --set train.lr=1e-4
    """
    from n2kit.recipe.settings import parse_sets, resolve

    resolved = resolve(parse_sets(sets or []), file=recipe)
    values = list(_flat(resolved.recipe.model_dump(), ""))
    if every:
        _show_all(resolved, json)
    elif json:
        document({key: {"value": value, "origin": _origin(resolved.origin, key)} for key, value in values})
    elif origin:
        table(
            ("setting", "value", "from"),
            [(key, _shown(value), _origin(resolved.origin, key)) for key, value in values],
        )
    else:
        emit(resolved.recipe.to_yaml(), end="")


def _show_all(resolved: Resolved, json: bool) -> None:
    """Print every setting with its value, default, origin and meaning; those of the chosen components behind their names."""
    from n2kit.recipe.schema import settings

    values = dict(_flat(resolved.recipe.model_dump(), ""))
    rows: list[tuple[str, Any, Any, str]] = []
    for one in settings():
        if one.key.endswith(".*"):
            rows += _options(one.key.removesuffix(".*"), values)
        elif one.key in values:
            rows.append((one.key, values[one.key], one.default, one.meaning))
    if json:
        facts = ((key, {"value": v, "default": d, "meaning": m}) for key, v, d, m in rows)
        document({key: fact | {"origin": _origin(resolved.origin, key)} for key, fact in facts})
        return
    shown = [(key, _shown(v), _shown(d), _origin(resolved.origin, key), m) for key, v, d, m in rows]
    table(("setting", "value", "default", "from", "meaning"), shown)


def _options(kind: str, values: Mapping[str, Any]) -> list[tuple[str, Any, Any, str]]:
    """List the options of the component that is chosen for a kind; none where none is."""
    from n2kit.plugins.catalogue import resolve_component

    name = values.get(f"{kind}.name")
    if name is None:
        return []
    chosen = resolve_component(kind, name)  # type: ignore[arg-type]
    found = options.of_component(chosen.registered)
    return [
        (
            f"{kind}.{key}",
            values.get(f"{kind}.{key}", chosen.options.get(key, o["default"])),
            o["default"],
            str(o["description"] or ""),
        )
        for key, o in found.items()
    ]


@app.command()
@chooses(*KINDS)
def schema(
    chosen: dict[str, str],
    json: options.Json = False,
) -> None:
    """List every setting there is: its type, its default, its meaning. With --json, as a JSON schema for an editor.

    With the name of a component, the options of that component.

    \b
    Examples:
      n2kit config schema
      n2kit config schema --json
      n2kit config schema --loss notellm2 --index flat
    """
    from n2kit.recipe.schema import settings
    from n2kit.recipe.settings import Recipe

    if chosen:
        _show_component_options(chosen, json)
    elif json:
        document({"$schema": "https://json-schema.org/draft/2020-12/schema"} | Recipe.model_json_schema())
    else:
        rows = [(s.key, s.type, _shown(s.default), s.meaning) for s in settings()]
        table(("setting", "type", "default", "meaning"), rows)


def _show_component_options(named: Mapping[str, str], json: bool) -> None:
    """Print the options of components: kind → name."""
    from n2kit.plugins.catalogue import resolve_component

    chosen = {kind: resolve_component(kind, name) for kind, name in named.items()}  # type: ignore[arg-type]
    if json:
        document({kind: one.load(one.registered.spec.config).model_json_schema() for kind, one in chosen.items()})
        return
    found = [(kind, options.of_component(one.registered)) for kind, one in chosen.items()]
    rows = [
        (f"{kind}.{key}", o["type"], _shown(o["default"]), o["description"] or "")
        for kind, own in found
        for key, o in own.items()
    ]
    table(("option", "type", "default", "meaning"), rows)


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
