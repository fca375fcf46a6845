"""Open registries: names that plug-ins register by a hook, each standing for a `module:Attr` that is imported when it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from n2kit.errors import BadInput, N2kitError, Unavailable, suggest
from n2kit.plugins.authors import advice
from n2kit.plugins.blame import lacks_memory
from n2kit.plugins.manager import Plugin, load_target, manager

REGISTRIES = {  # what is registered → the hook
    "logger": "n2kit_register_loggers",
    "item reader": "n2kit_register_item_readers",
    "baseline": "n2kit_register_baselines",
    "metric": "n2kit_register_metrics",
    "prompt template": "n2kit_register_prompt_templates",
    "report section": "n2kit_register_report_sections",
}


@dataclass(frozen=True)
class Entry:
    """The target of a registered name, and the plug-in, `distribution/name`, that registered it."""

    what: str
    target: str
    plugin: str

    @property
    def distribution(self) -> str:
        return self.plugin.partition("/")[0]

    def load(self) -> Any:
        """Import the target.

        Raises:
            Unavailable: it cannot be imported.
        """
        return load_target(self.target, owner=self.distribution)

    def fault(self, reason: str) -> Unavailable:
        """Make the error that says a fault of the target's code."""
        return Unavailable(f"{self.what} {self.target} of {self.distribution}: {reason}", advice(self.distribution))

    @contextlib.contextmanager
    def attribute_errors(self, *but: type[BaseException]) -> Iterator[None]:
        """Report what the target's code raises, an exit too, as an error of its plug-in.

        Args:
            but: exceptions that are left as they are.

        Raises:
            Unavailable: in its place.
        """
        try:
            yield
        except (N2kitError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, but) or lacks_memory(error):
                raise
            raise self.fault(f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")) from error


def registered(what: str) -> dict[str, list[Entry]]:
    """Collect what plug-ins register in one of `REGISTRIES`: name → its entries, several where several packages have the name.

    Raises:
        Unavailable: a hook fails, or returns something else.
    """
    found: dict[str, list[Entry]] = {}
    for plugin, names in _each(what):
        if isinstance(names, Unavailable):
            raise names
        for name, target in names.items():
            found.setdefault(name, []).append(Entry(what, target, plugin))
    return found


def note_registered(plugins: Iterable[Plugin]) -> None:
    """Note in each plug-in what it registers; a hook that fails is a warning."""
    named = {plugin.qualified: plugin for plugin in plugins}
    for what in REGISTRIES:
        for owner, names in _each(what):
            plugin = named[owner]
            if not isinstance(names, Unavailable):
                plugin.registers[what] = sorted(names)
            elif names.message not in plugin.warnings:
                plugin.warnings.append(names.message)


def _each(what: str) -> Iterator[tuple[str, Mapping[str, str] | Unavailable]]:
    """Yield each plug-in that has a hook of a registry, with what it registers, or why that is nothing."""
    hook = REGISTRIES[what]
    for plugin, result, failure in manager().hooks.each(hook):
        hint = advice(plugin.partition("/")[0])
        texts = isinstance(result, Mapping) and all(isinstance(t, str) for pair in result.items() for t in pair)
        if failure is not None:
            reason = f"{type(failure).__name__}: {failure}".partition("\n")[0]
            yield plugin, Unavailable(f"{hook} of {plugin}: {reason}", hint)
        elif texts:
            yield plugin, result
        else:
            yield (
                plugin,
                Unavailable(f"{hook} of {plugin} gives {result!r:.40}, no mapping of names to module:Attr", hint),
            )


def find(what: str, name: str, own: Iterable[str] = (), where: str = "") -> Entry:
    """Find the entry of a name.

    Args:
        own: names of n2kit's, for the hint. where: the setting that names it, for the message.

    Raises:
        BadInput: nobody, or several packages, registered it.
    """
    there = registered(what)
    if name not in there:
        known = [*own, *there]
        listed = f"there are: {', '.join(known)}" if known else "no plug-in brings one: n2kit plugins list"
        raise BadInput(f"{f'{where}: ' if where else ''}unknown {what} {name!r}", suggest(name, known) or listed)
    return one(there[name], f"{what} {name!r}")


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
