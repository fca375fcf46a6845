"""Open registries: names that plug-ins register by a hook, each standing for a `module:Attr` that is imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from n2kit.errors import BadInput, Unavailable
from n2kit.plugins.manager import load_target, manager


@dataclass(frozen=True)
class Entry:
    """The target of a registered name, and the distribution that registered it."""

    target: str
    distribution: str

    def load(self) -> Any:
        """Import the target.

        Raises:
            Unavailable: it cannot be imported.
        """
        return load_target(self.target, owner=self.distribution)


def registered(hook: str) -> dict[str, list[Entry]]:
    """Collect what plug-ins register by a hook: name → its entries, several where several packages have the name.

    Raises:
        Unavailable: a hook fails, or returns something else.
    """
    found: dict[str, list[Entry]] = {}
    for plugin, result in manager().hooks.each(hook):
        distribution = plugin.partition("/")[0]
        texts = isinstance(result, Mapping) and all(isinstance(t, str) for pair in result.items() for t in pair)
        if not texts:
            what = f"{hook} of {plugin} gives {result!r:.40}, no mapping of names to module:Attr"
            raise Unavailable(what, f"n2kit plugins check {distribution}")
        for name, target in result.items():
            found.setdefault(name, []).append(Entry(target, distribution))
    return found


def one(entries: list[Entry], what: str) -> Entry:
    """Return the only entry of a name.

    Raises:
        BadInput: several packages have it.
    """
    owners = sorted({entry.distribution for entry in entries})
    if len(owners) > 1:
        hint = f"--disable-plugin {owners[1]}"
        raise BadInput(f"{what} is provided by two installed packages: {' and '.join(owners)}", hint)
    return entries[0]
