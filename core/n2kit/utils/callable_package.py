"""Packages that are called as the function of their own name: `n2kit.train(…)`, where `n2kit.train` is a package too."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def make_callable(package: str, home: str) -> None:
    """Let a package be called: it calls the function of the same name in the module `home`, which is imported only then."""
    name = package.rpartition(".")[2]

    class CallablePackage(ModuleType):
        """A package that is a function, too."""

        @property
        def __wrapped__(self) -> Any:
            """The function itself, for `help` and `inspect.signature`."""
            return getattr(importlib.import_module(home), name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.__wrapped__(*args, **kwargs)

    sys.modules[package].__class__ = CallablePackage
