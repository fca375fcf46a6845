"""The version of the plug-in contract that a plug-in states, and the reason to refuse another one."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from pathlib import Path

from n2kit.contract.hookspecs import API_CHANGES, PLUGIN_API

_STATED = re.compile(r"^N2KIT_PLUGIN_API\b[^=\n]*=\s*([(\[][\d\s,()\[\]]*[)\]])\s*(?:#.*)?$", re.MULTILINE)
_PAIR = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*,?\s*\)")
Version = tuple[int, int]


def versions_of(stated: object) -> tuple[Version, ...]:
    """Read the value of `N2KIT_PLUGIN_API`: one version, or several that one release of a plug-in serves; empty where it is neither."""
    several = (
        stated if isinstance(stated, tuple | list) and stated and isinstance(stated[0], tuple | list) else (stated,)
    )
    if not all(isinstance(v, tuple | list) and len(v) == 2 and all(type(n) is int for n in v) for v in several):
        return ()
    return tuple((v[0], v[1]) for v in several)


def api_problem(versions: tuple[Version, ...]) -> str | None:
    """Return the reason to refuse a plug-in of these API versions; None if one of them can be loaded, or none is stated."""
    if not versions or any(v[0] == PLUGIN_API[0] and v[1] <= PLUGIN_API[1] for v in versions):
        return None
    cure = API_CHANGES if max(versions) < PLUGIN_API else "it needs a newer n2kit"
    stated = " and ".join(f"{major}.{minor}" for major, minor in versions)
    return f"written for plug-in API {stated}; this n2kit has {PLUGIN_API[0]}.{PLUGIN_API[1]}: {cure}"


def stated_api(entry: str) -> tuple[Version, ...]:
    """Read `N2KIT_PLUGIN_API` from a plug-in's source, without an import; empty where the text does not show it.

    Args:
        entry: the entry point's value, `package.module` or `package.module:Attr`.
    """
    top, *inner = entry.partition(":")[0].strip().split(".")
    with contextlib.suppress(ImportError, ValueError, OSError, UnicodeDecodeError):
        spec = importlib.util.find_spec(top)  # finding a top-level module imports nothing
        if spec is None or spec.origin is None:
            return ()
        place = Path(spec.origin)
        if inner:
            place = place.parent.joinpath(*inner)
            place = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if found := _STATED.search(place.read_text("utf8")):
            return tuple((int(major), int(minor)) for major, minor in _PAIR.findall(found[1]))
    return ()
