"""Cells to texts: what a column of any type becomes in an item."""

from __future__ import annotations

import json
from typing import Any

from n2kit.errors import BadInput

EXACT = 2**53  # a float up to here is a whole number without doubt
JOINED = {"title": " ", "content": " ", "category": ", "}  # field → what stands between the texts of a list


def text_of(value: Any) -> str:
    """Convert a value to text: empty for null and NaN, U+FFFD for half a character."""
    if type(value) is str:
        return value.strip() if value.isascii() else value.encode("utf8", "replace").decode().strip()
    if is_null(value):
        return ""
    return str(value).encode("utf8", "replace").decode().strip()


def is_null(value: Any) -> bool:
    """Tell whether a value is null, NaN, or the NA of pandas, which is not even a truth value when compared."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"


def id_of(value: Any) -> str:
    """Convert an id to text: a float that is a whole number is one (pandas makes floats of ids where one is missing)."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    return text_of(value)


def field_text(field: str, value: Any) -> str:
    """Convert the value of a field to text: a list of texts is joined.

    Raises:
        BadInput: it is no text.
    """
    if (
        isinstance(value, list | tuple)
        and field in JOINED
        and not any(isinstance(v, dict | list | tuple | bytes) for v in value)
    ):
        return JOINED[field].join(text for text in map(text_of, value) if text)
    if isinstance(value, dict | list | tuple | bytes):
        raise BadInput(f"{field} is a {type(value).__name__}, not a text")
    return id_of(value) if field == "id" else text_of(value)


def topics_of(value: Any) -> tuple[str, ...]:
    """Parse topics: a list, a JSON list, or text separated by `|`, `,`, `，` or `;`.

    Raises:
        BadInput: they are no texts.
    """
    if isinstance(value, str):
        if value.startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                value = value.strip("[]").replace("'", "").replace('"', "")
            except RecursionError:
                raise BadInput("topics are nested too deep", 'write them as a|b, or as ["a", "b"]') from None
        if isinstance(value, str):
            for separator in "，;,":
                value = value.replace(separator, "|")
            value = value.split("|")
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        value = [value]
    if (odd := next((t for t in value if isinstance(t, dict | list | tuple | bytes)), None)) is not None:
        raise BadInput(f"topics hold a {type(odd).__name__}, not a text", 'write them as a|b, or as ["a", "b"]')
    return tuple(dict.fromkeys(t for t in map(text_of, value) if t))
