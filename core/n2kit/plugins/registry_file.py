"""The check of a registry file: every entry has known keys, with values of the right types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from n2kit.contract.cards import LLMCard, VisionCard
from n2kit.contract.kinds import CARDS, KINDS
from n2kit.errors import BadInput, suggest

HINT = "write it like the registry.yaml that n2kit ships"
TEXT, MAPPING, NAME = "a text", "a mapping", "a name"
KNOWN = {"distribution": TEXT, "brings": TEXT, "summary": TEXT, "install": TEXT}
ENTRY = {"component": TEXT, "default": NAME, "tiny": NAME, "presets": MAPPING, "options": MAPPING}
PRESET = {
    "weights": TEXT, "revision": NAME, "licence": TEXT, "notes": TEXT, "template": TEXT, "options": MAPPING, "card": MAPPING,
}  # fmt: skip
TYPES: dict[str, type | tuple[type, ...]] = {TEXT: str, MAPPING: dict, NAME: (str, int, float)}


def check_registry(content: Any, where: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Check a registry file's content and return it, with an empty mapping in place of what is left empty.

    Raises:
        BadInput: an unknown key or a value of another type, with the file and the key.
    """
    if not isinstance(content, dict):
        raise BadInput(f"{where}: expected a mapping of kinds", HINT)
    checked: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, entries in content.items():
        if kind not in (*KINDS, "known_plugins"):
            hint = suggest(str(kind), KINDS) or f"kinds: {', '.join(KINDS)}"
            raise BadInput(f"{where}: there is no kind {str(kind)!r}", hint)
        checked[kind] = {}
        for name, entry in _mapping(entries, f"{where}: {kind}").items():
            at = f"{where}: {kind}.{name}"
            if kind == "known_plugins":
                checked[kind][str(name)] = _typed(entry, KNOWN, at, needed=("distribution", "install"))
            else:
                checked[kind][str(name)] = _entry(entry, kind, at)
    return checked


def _entry(entry: Any, kind: str, at: str) -> dict[str, Any]:
    if isinstance(entry, dict) and "variants" in entry:
        where, _, key = at.rpartition(": ")
        raise BadInput(f"{where}: the key {key}.variants is called presets now", "rename it to `presets:`")
    if not isinstance(entry, dict) or "component" not in entry:
        raise BadInput(f"{at} names no component", "write `component: NAME` under it")
    found = _typed(entry, ENTRY, at, needed=("component",))
    presets = {}
    for key, preset in found.get("presets", {}).items():
        below = f"{at}.presets.{key}"
        presets[key] = _typed(preset, PRESET, below)
        if card := presets[key].get("card"):
            if kind not in CARDS:
                raise BadInput(f"{below}.card: a {kind} has no card", "leave it out")
            _check_card(card, CARDS[kind], f"{below}.card")
    return found | {"presets": presets, "options": found.get("options", {})}


def _typed(entry: Any, keys: Mapping[str, str], at: str, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an entry without the keys that are left empty."""
    entry = _mapping(entry, at)
    for key, value in entry.items():
        if key not in keys:
            raise BadInput(f"{at}: there is no key {str(key)!r}", suggest(str(key), keys) or f"keys: {', '.join(keys)}")
        if value is not None and (not isinstance(value, TYPES[keys[key]]) or isinstance(value, bool)):
            what = "no mapping" if keys[key] is MAPPING else f"{value!r}, not {keys[key]}"
            raise BadInput(f"{at}.{key} is {what}", HINT)
    for key in needed:
        if entry.get(key) is None:
            raise BadInput(f"{at} has no {key}", HINT)
    return {key: value for key, value in entry.items() if value is not None}


def _mapping(value: Any, at: str) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{at} is no mapping", HINT)
    return value


def _check_card(card: Any, made: type, at: str) -> None:
    """Check a card's facts by the types of the class that is made of them."""
    card = _mapping(card, at)
    known = {field.name: field for field in fields(made)}
    for key in card:
        if key not in known:
            raise BadInput(
                f"{at}: there is no key {str(key)!r}", suggest(str(key), known) or f"keys: {', '.join(known)}"
            )
    for name, field in known.items():
        if name in card:
            for problem in _of_type(card[name], str(field.type), f"{at}.{name}"):
                raise BadInput(problem, HINT)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise BadInput(f"{at} has no {name}", HINT)


def _of_type(value: Any, kind: str, at: str) -> Iterator[str]:
    """Yield the problem of a value whose type is not `kind`, as the card's class states it."""
    if kind == "int" and (type(value) is not int or value < 0):
        yield f"{at} is {value!r}, not a whole number from 0"
    elif kind == "bool" and type(value) is not bool:
        yield f"{at} is {value!r}, not true or false"
    elif kind.startswith("str") and not isinstance(value, str):
        yield f"{at} is {value!r}, not a text"
    elif kind.startswith("tuple") and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
        yield f"{at} is {value!r}, not a list of texts"
    elif kind in ("LLMCard", "VisionCard"):
        _check_card(value, LLMCard if kind == "LLMCard" else VisionCard, at)
