"""The version of the plug-in contract that a plug-in states, and the reason to refuse another one."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from pathlib import Path

from n2kit.contract.hookspecs import API_CHANGES, PLUGIN_API

_STATED = re.compile(r"^N2KIT_PLUGIN_API\b[^=\n]*=\s*\(\s*(\d+)\s*,\s*(\d+)\s*,?\s*\)", re.MULTILINE)


def api_problem(api: tuple[int, int] | None) -> str | None:
    """Return the reason to refuse a plug-in of this API version; None if it can be loaded or states no version."""
    if api is None or (api[0] == PLUGIN_API[0] and api[1] <= PLUGIN_API[1]):
        return None
    cure = API_CHANGES if api < PLUGIN_API else "it needs a newer n2kit"
    return f"written for plug-in API {api[0]}.{api[1]}; this n2kit has {PLUGIN_API[0]}.{PLUGIN_API[1]}: {cure}"


def stated_api(entry: str) -> tuple[int, int] | None:
    """Read `N2KIT_PLUGIN_API` from a plug-in's source, without an import; None where the text does not show it.

    Args:
        entry: the entry point's value, `package.module` or `package.module:Attr`.
    """
    top, *inner = entry.partition(":")[0].strip().split(".")
    with contextlib.suppress(ImportError, ValueError, OSError, UnicodeDecodeError):
        spec = importlib.util.find_spec(top)  # finding a top-level module imports nothing
        if spec is None or spec.origin is None:
            return None
        place = Path(spec.origin)
        if inner:
            place = place.parent.joinpath(*inner)
            place = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if found := _STATED.search(place.read_text("utf8")):
            return int(found[1]), int(found[2])
    return None
