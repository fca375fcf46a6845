"""The check of a card that a plug-in computed: dataclasses take any value, and a plan computes with them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any


def card_problems(card: Any) -> list[str]:
    """List the facts of a card that have another type than its class says."""
    found = []
    for field in fields(card):
        name, kind, value = field.name, str(field.type), getattr(card, field.name)
        if is_dataclass(value):
            found += [f"{name}.{problem}" for problem in card_problems(value)]
        elif kind == "bool" and type(value) is not bool:
            found.append(f"{name} is {value!r:.40}, not true or false")
        elif kind.startswith("str") and not (value is None or isinstance(value, str)):
            found.append(f"{name} is {value!r:.40}, not a text")
        elif kind.startswith("tuple") and not (isinstance(value, tuple) and all(isinstance(v, str) for v in value)):
            found.append(f"{name} is {value!r:.40}, not a tuple of texts")
        elif kind.startswith("int") and not _whole(value, optional=kind.endswith("None")):
            found.append(f"{name} is {value!r:.40}, not a whole number from 0")
    return found


def _whole(value: Any, *, optional: bool) -> bool:
    return (optional and value is None) or (type(value) is int and value >= 0)
