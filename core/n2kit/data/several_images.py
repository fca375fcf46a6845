"""Cells that hold several images, of which an item has one: the first."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from n2kit.data.image_source import URL, is_image_name
from n2kit.data.values import is_null

# Under which shops and data sets keep an image's address, the largest first.
ADDRESSES = ("hi_res", "large", "original", "url", "src", "image_url", "href", "file_name", "medium", "small", "thumb")
NOTHING = {"nan", "null", "none", "n/a", "#n/a", "\\n"}  # as programs write that there is none
_SEPARATORS = re.compile(r"\s*[|;,\n]\s*")


def first_image(value: Any) -> tuple[Any, int]:
    """Return the first image of what a cell holds, and how many it holds; anything else comes back as it is, as one.

    Several are a list, a list written as a text (JSON or Python), or addresses with `|`, `;` or `,` between them. A dict of an image is
    its largest address; empty entries, and those like NULL, count for nothing.
    """
    found = [one for one in _listed(value) if not _is_empty(one)]
    if not found:
        return None, 0
    first = found[0]
    if first is value:
        return value, 1
    return first_image(first)[0], len(found)


def _listed(value: Any) -> list[Any]:
    """Take apart what holds several images; one image is a list of itself."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 0) == 1:
        value = value.tolist()
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, dict) and not value.keys() & {"bytes", "path"}:
        return next((_listed(value[name]) for name in ADDRESSES if not _is_empty(value.get(name))), [value])
    if isinstance(value, str) and type(value) is str:
        return _of_text(value)
    return [value]


def _of_text(text: str) -> list[Any]:
    """Read a list that is written as a text; a name with a comma in it is one name."""
    if text.lstrip()[:1] in ("[", "{"):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            return _listed(found) if isinstance(found, list | dict) else [text]
    parts = [part for part in _SEPARATORS.split(text) if part]
    alike = all(URL.match(part) for part in parts) if URL.match(text.lstrip()) else all(map(is_image_name, parts))
    return parts if len(parts) > 1 and alike else [text]


def _is_empty(value: Any) -> bool:
    if type(value) is str and value.strip().casefold() in NOTHING:
        return True
    return (isinstance(value, str | bytes | list | tuple | dict) and not value) or (
        not isinstance(value, list | tuple | dict) and is_null(value)
    )
