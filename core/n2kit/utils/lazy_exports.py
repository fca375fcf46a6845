"""Names of a package that are imported when they are first used, so that importing the package loads nothing heavy."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lazy_exports(
    package: str, homes: Mapping[str, str], submodules: Iterable[str] = ()
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's `__all__`, `__getattr__` and `__dir__`.

    Args:
        homes: module → the names, separated by spaces, that the package hands on from it.
        submodules: modules of the package that need no import of their own.
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}
    names = sorted(home_of)
    home_of |= {name: f"{package}.{name}" for name in submodules}

    def load(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(home_of[name])
        value = module if module.__name__ == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return names, load, lambda: names
