"""Calls of hooks, by pluggy: in its order, with its wrappers; what one plug-in raises is noted, and the others are called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pluggy

Failure = tuple[str, BaseException]  # of a plug-in, `distribution/name`


class Hooks(pluggy.PluginManager):
    """pluggy's manager, whose hooks do not fail."""

    def __init__(self, project: str, specs: ModuleType) -> None:
        super().__init__(project)
        self.add_hookspecs(specs)
        self._failures: list[Failure] = []

    def add(self, module: object, name: str) -> None:
        """Register a plug-in's module, and let none of its hooks end the call of the others."""
        self.register(module, name=name)
        for caller in self.get_hookcallers(module) or []:
            for implementation in caller.get_hookimpls():
                if implementation.plugin is module and not (implementation.wrapper or implementation.hookwrapper):
                    implementation.function = self._guarded(name, implementation.function)  # type: ignore[misc]

    def call(self, hook: str, **facts: Any) -> tuple[list[Any], list[Failure]]:
        """Call a hook of all plug-ins; return their results, those that are None left out, and what failed."""
        self._failures = []
        try:
            results = getattr(self.hook, hook)(**facts)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # of a wrapper: it stands around all others
            return [], [*self._failures, (f"a wrapper of {hook}", error)]
        return list(results), self._failures

    def each(self, hook: str) -> Iterator[tuple[str, Any, BaseException | None]]:
        """Call a hook of one plug-in after the other: yield its name, `distribution/name`, its result, and how it failed, if it did."""
        for implementation in getattr(self.hook, hook).get_hookimpls():
            self._failures = []
            result = implementation.function()
            yield implementation.plugin_name, result, self._failures[0][1] if self._failures else None

    def has(self, hook: str) -> bool:
        """Tell whether a plug-in implements a hook."""
        return bool(getattr(self.hook, hook).get_hookimpls())

    def _guarded(self, name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            try:
                result = function(*args)
                return list(result) if inspect.isgenerator(result) else result
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # an exit, too
                self._failures.append((name, error))
                return None

        return call
