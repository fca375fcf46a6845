"""A list of every setting with its type, default and meaning, made from the recipe's pydantic model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from n2kit.contract.kinds import CHOICES
from n2kit.recipe.settings import Recipe

BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


class Setting(NamedTuple):
    """One key of a recipe, dotted as `--set` takes it."""

    key: str
    type: str
    default: Any
    meaning: str


def settings() -> list[Setting]:
    """List all settings in the order of `n2kit config show`; `KIND.*` stands for the options of a component itself."""
    schema = Recipe.model_json_schema()
    return list(_rows(schema, schema["$defs"], Recipe().model_dump(), ""))


def _rows(node: Mapping[str, Any], shared: Mapping[str, Any], defaults: Any, prefix: str) -> Iterator[Setting]:
    for name, given in node["properties"].items():
        key, default = f"{prefix}{name}", (defaults or {}).get(name)
        section = _section(given, shared)
        if section is None:
            yield Setting(key, kind_of(given), default, given.get("description", ""))
            continue
        rows = list(_rows(section, shared, default, f"{key}."))
        if name in CHOICES:  # its name first, which says what it is
            rows[0] = rows[0]._replace(meaning=f"{given['description']}: {rows[0].meaning}")
            rows.append(Setting(f"{key}.*", "any", None, "an option of that component; n2kit ls NAME lists them"))
        yield from rows


def _section(given: Mapping[str, Any], shared: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of the settings below a key; None where the key is a setting itself."""
    for one in (given, *given.get("anyOf", ())):
        if "$ref" in one:
            found: Mapping[str, Any] = shared[one["$ref"].rpartition("/")[2]]
            return found
    return None


def kind_of(given: Mapping[str, Any]) -> str:
    """Describe a JSON schema's type in words: `integer ≥ 1 or null`, `auto | fp32 | bf16`."""
    if "anyOf" in given:
        return " or ".join(kind_of(one) for one in given["anyOf"])
    if "enum" in given:
        return " | ".join(map(str, given["enum"]))
    if "const" in given:
        return str(given["const"])
    if given.get("type") == "array" and "items" in given:
        return f"list of {kind_of(given['items'])}s"
    if given.get("type") == "object" and {"propertyNames", "additionalProperties"} <= given.keys():
        return f"mapping of {kind_of(given['propertyNames'])} to {kind_of(given['additionalProperties'])}"
    bounds = [f"{sign} {given[bound]}" for bound, sign in BOUNDS.items() if bound in given]
    return " ".join([given.get("type", "any"), *bounds])
