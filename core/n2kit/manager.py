"""Discovery of plug-ins: one entry point at a time, each guarded, so that a broken one harms nobody else."""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from types import ModuleType
from typing import Any

import pluggy
from packaging.requirements import Requirement

from n2kit import hookspecs
from n2kit.cards import KINDS, ComponentSpec, Kind
from n2kit.errors import BadInput, Unavailable

GROUP = "n2kit"
OWN = "n2kit"  # the distribution of the plug-ins in this repository


@dataclass
class Plugin:
    """An installed entry point of group `n2kit`; `problem` is None when it works."""

    name: str
    distribution: str
    version: str
    module: str
    specs: list[ComponentSpec] = field(default_factory=list)
    problem: str | None = None


@dataclass(frozen=True)
class Owned:
    """A component with the distribution that it came from."""

    spec: ComponentSpec
    distribution: str
    version: str


class Manager:
    """All plug-ins of this environment. Loading never raises: read `plugins` for who is broken and why."""

    def __init__(self, found: Iterable[EntryPoint] | None = None) -> None:
        self.pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self.pluggy.add_hookspecs(hookspecs)
        points = entry_points(group=GROUP) if found is None else found
        unique = {(_owner(p)[0], p.name, p.value): p for p in points}  # an editable install may list its points twice
        self.plugins = [self._load(p) for _, p in sorted(unique.items())]

    def _load(self, point: EntryPoint) -> Plugin:
        distribution, version = _owner(point)
        plugin = Plugin(point.name, distribution, version, point.value)
        try:
            module = point.load()
            _check_api(module)
            self.pluggy.register(module, name=f"{distribution}/{point.name}")
            plugin.specs = _components(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plug-in may even call sys.exit while it is imported
            if self.pluggy.has_plugin(f"{distribution}/{point.name}"):
                self.pluggy.unregister(name=f"{distribution}/{point.name}")
            plugin.problem = f"{type(error).__name__}: {error}".splitlines()[0]
        return plugin

    @property
    def hook(self) -> Any:
        return self.pluggy.hook

    def components(self, kind: Kind) -> list[Owned]:
        """Every component of a kind, namesakes included, in name order."""
        owned = (Owned(s, p.distribution, p.version) for p in self.plugins for s in p.specs if s.kind == kind)
        return sorted(owned, key=lambda o: (o.spec.name, o.distribution))

    def find(self, kind: Kind, name: str, *, prefer: str | None = None) -> Owned | None:
        """The component called `name` or `distribution/name`; None if there is none. Of namesakes, that of `prefer`.

        Raises:
            BadInput: two distributions own the name.
        """
        owners = [o for o in self.components(kind) if name in (o.spec.name, f"{o.distribution}/{o.spec.name}")]
        preferred = [o for o in owners if o.distribution == prefer]
        if len(owners) > 1 and not preferred:
            choices = ", ".join(f"{o.distribution}/{o.spec.name}" for o in owners)
            raise BadInput(f"{kind} {name!r} is provided by two installed packages", f"write one of: {choices}")
        return next(iter(preferred + owners), None)

    def broken(self) -> list[Plugin]:
        return [p for p in self.plugins if p.problem]


@functools.cache
def manager() -> Manager:
    """The plug-ins of this process, discovered once."""
    return Manager()


def load_target(target: str, *, owner: str) -> Any:
    """Import `module:Attr` of a component.

    Raises:
        Unavailable: the plug-in's own code or one of its dependencies cannot be imported.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a library that does not fit this environment may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Unavailable(f"{owner}: cannot import {target}: {reason}", f"n2kit plugins check {owner}") from error


def require(spec: ComponentSpec, distribution: str) -> None:
    """Say which pip line is missing before a component's import fails half-way.

    Raises:
        Unavailable: a distribution named in `spec.requires` is not installed, or not in a version that fits.
    """
    lacking = [(r, found) for r in map(Requirement, spec.requires) if not _fits(r, found := _installed(r.name))]
    if lacking:
        what = f'"{distribution}[{spec.extra}]"' if spec.extra else " ".join(f'"{r}"' for r, _ in lacking)
        needs = ", ".join(f"{r} ({f'{found} is installed' if found else 'not installed'})" for r, found in lacking)
        raise Unavailable(f"{spec.kind} {spec.name!r} needs {needs}", f"pip install {what}")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _fits(wanted: Requirement, found: str | None) -> bool:
    return found is not None and wanted.specifier.contains(found, prereleases=True)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """`did you mean` for a hint, or None."""
    close = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else None


def _owner(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("unknown", "0")


def _check_api(module: ModuleType) -> None:
    api = getattr(module, "N2KIT_PLUGIN_API", None)
    if not (isinstance(api, tuple) and len(api) == 2):
        raise TypeError("states no N2KIT_PLUGIN_API = (major, minor)")
    if api[0] != hookspecs.PLUGIN_API[0] or api[1] > hookspecs.PLUGIN_API[1]:
        raise TypeError(f"written for plug-in API {api[0]}.{api[1]}; this n2kit has %d.%d" % hookspecs.PLUGIN_API)


def _components(module: ModuleType) -> list[ComponentSpec]:
    register = getattr(module, "n2kit_register_components", None)
    specs = list(register()) if register else []
    for spec in specs:
        if not isinstance(spec, ComponentSpec):
            raise TypeError(f"n2kit_register_components returned {type(spec).__name__}, not ComponentSpec")
        if spec.kind not in KINDS:
            raise TypeError(f"component {spec.name!r} has unknown kind {spec.kind!r}")
    return specs
