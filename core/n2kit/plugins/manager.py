"""Discovery of plug-ins: one entry point at a time, so that a broken one does not affect the others."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from n2kit.contract import hookspecs
from n2kit.contract.cards import ComponentSpec
from n2kit.contract.kinds import Kind
from n2kit.errors import BadInput, Unavailable, suggest
from n2kit.plugins.api_version import api_problem, stated_api, versions_of
from n2kit.plugins.authors import advice
from n2kit.plugins.hooks import Hooks
from n2kit.plugins.isolation import probe_imports
from n2kit.plugins.specs import sound_specs
from n2kit.utils.collector import collector_paused

if TYPE_CHECKING:
    from packaging.requirements import Requirement

GROUP = "n2kit"
COMMANDS = "n2kit.commands"  # the group of commands of plug-ins
HOOK = "n2kit_"
SELECT = "N2KIT_PLUGINS"
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
    warnings: list[str] = field(default_factory=list)
    disabled: bool = False
    commands: list[str] = field(default_factory=list)  # `n2kit NAME`, of the group n2kit.commands
    registers: dict[str, list[str]] = field(
        default_factory=dict
    )  # as `n2kit.plugins.registries` finds them: what → names
    left_out: dict[str, str] = field(default_factory=dict)  # component, such as `vision 'x'` → the reason

    @property
    def qualified(self) -> str:
        return f"{self.distribution}/{self.name}"

    @property
    def state(self) -> str:
        """The plug-in's state in words: `ok`, `disabled`, or the problem."""
        return "disabled" if self.disabled else self.problem or "; ".join(self.warnings) or "ok"


@dataclass(frozen=True)
class RegisteredComponent:
    """A component with the distribution that registered it."""

    spec: ComponentSpec
    distribution: str
    version: str


class Manager:
    """All plug-ins of this environment. Loading never raises: `plugins` says which are broken, and why."""

    def __init__(self, found: Iterable[EntryPoint] | None = None) -> None:
        self.hooks = Hooks(hookspecs.PROJECT, hookspecs)
        points = entry_points(group=GROUP) if found is None else found
        unique = {(owner_of(p)[0], p.name, p.value): p for p in points}  # an editable install may list its points twice
        selection = Selection.read()
        pairs = [(p, Plugin(p.name, *owner_of(p), p.value)) for _, p in sorted(unique.items())]
        alone = _with_commands([plugin for _, plugin in pairs]) if found is None else []
        self.plugins = [*(plugin for _, plugin in pairs), *alone]
        for plugin in self.plugins:
            plugin.disabled = not selection.includes(plugin)
        selection.check_names(self.plugins)
        enabled = [(p, plugin) for p, plugin in pairs if not plugin.disabled]
        foreign = [p for p, plugin in enabled if plugin.distribution != OWN]
        # An import of what the contract no longer has would fail without naming the cause: the source is read first.
        outdated = {p.value: problem for p in foreign if (problem := api_problem(stated_api(p.value)))}
        unsound = outdated | probe_imports([p for p in foreign if p.value not in outdated])
        for point, plugin in enabled:
            plugin.problem = unsound.get(point.value) or self._load(point, plugin)
        _warn_of_namesakes(self.plugins)

    def _load(self, point: EntryPoint, plugin: Plugin) -> str | None:
        """Load one plug-in and register its components; return the problem if that fails."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is data
                module = point.load()
                _check_api(module)
                _register(module, plugin)
            self.hooks.add(module, plugin.qualified)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plug-in may even call sys.exit while it is imported
            if self.hooks.has_plugin(plugin.qualified):
                self.hooks.unregister(name=plugin.qualified)
            plugin.specs, plugin.warnings = [], []
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return None

    def components(self, kind: Kind) -> list[RegisteredComponent]:
        """List every component of a kind in the order of names, namesakes included."""
        registered = (
            RegisteredComponent(s, p.distribution, p.version) for p in self.plugins for s in p.specs if s.kind == kind
        )
        return sorted(registered, key=lambda o: (o.spec.name, o.distribution))

    def find(self, kind: Kind, name: str, *, prefer: str | None = None) -> RegisteredComponent | None:
        """Find the component called `name` or `distribution/name`, None if there is none; of namesakes, that of `prefer`.

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

    def named(self, name: str) -> list[Plugin]:
        """Return the plug-ins that a name, a distribution or `distribution/name` stands for."""
        return [p for p in self.plugins if name in (p.name, p.distribution, p.qualified)]


@dataclass(frozen=True)
class Selection:
    """The choice of plug-ins to load: `N2KIT_PLUGINS=a,b` only these, `N2KIT_PLUGINS=-c` all others; names or distributions."""

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @classmethod
    def read(cls) -> Selection:
        names = [n.strip() for n in os.environ.get(SELECT, "").split(",") if n.strip()]
        return cls(tuple(n for n in names if not n.startswith("-")), tuple(n[1:] for n in names if n.startswith("-")))

    def includes(self, plugin: Plugin) -> bool:
        names = {plugin.name, plugin.distribution, plugin.qualified}
        return not names.intersection(self.without) and (not self.only or bool(names.intersection(self.only)))

    def check_names(self, plugins: list[Plugin]) -> None:
        """Check that every name in the selection belongs to an installed plug-in.

        Raises:
            BadInput: for the first name that does not.
        """
        known = {n for p in plugins for n in (p.name, p.distribution, p.qualified)}
        for name in (*self.only, *self.without):
            if name not in known:
                hint = suggest(name, known) or f"there are: {', '.join(sorted({p.qualified for p in plugins}))}"
                raise BadInput(f"{SELECT} or --disable-plugin names {name!r}, and no plug-in is called so", hint)


def disable(names: Iterable[str]) -> None:
    """Disable these plug-ins from now on, in this process and in its children."""
    several = [f"-{name.strip()}" for text in names for name in text.split(",") if name.strip()]
    os.environ[SELECT] = ",".join([*filter(None, [os.environ.get(SELECT)]), *several])
    manager.cache_clear()


@functools.cache
def manager() -> Manager:
    """Return the plug-ins of this process, discovered once."""
    return Manager()


def load_target(target: str, *, owner: str) -> Any:
    """Import `module:Attr` of a component.

    Raises:
        Unavailable: the plug-in's own code or one of its dependencies cannot be imported.
    """
    module, _, attribute = target.partition(":")
    try:
        with contextlib.redirect_stdout(sys.stderr), collector_paused():  # stdout is data
            return getattr(importlib.import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a library that does not fit this environment may raise anything, or exit
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Unavailable(f"{owner}: cannot import {target}: {reason}", advice(owner)) from error


def require(spec: ComponentSpec, distribution: str) -> None:
    """Check that the packages which a component needs are installed, before its import fails half-hint.

    Raises:
        Unavailable: a distribution named in `spec.requires` is not installed, or not in a version that fits.
    """
    from packaging.requirements import Requirement

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


def owner_of(point: EntryPoint) -> tuple[str, str]:
    """Return name and version of the distribution of an entry point."""
    return _named(point.dist) if point.dist else ("unknown", "0")


@functools.cache
def _named(distribution: Distribution) -> tuple[str, str]:
    """Read name and version of a distribution: each parses all of its metadata, and dozens of entry points may be of one."""
    return distribution.name, distribution.version


def _check_api(module: ModuleType) -> None:
    versions = versions_of(getattr(module, "N2KIT_PLUGIN_API", None))
    if not versions:
        raise TypeError("states no N2KIT_PLUGIN_API = (major, minor)")
    if problem := api_problem(versions):
        raise TypeError(problem)


def _register(module: ModuleType, plugin: Plugin) -> None:
    """Read the components of a plug-in's module into `plugin`; a bad one is left out with a warning.

    Raises:
        TypeError: the module has no hook that there is, or no component is any good.
    """
    hooks = {name for name in vars(hookspecs) if name.startswith(HOOK)}
    mine = {name for name in vars(module) if name.startswith(HOOK) and callable(getattr(module, name))}
    optional = {
        name
        for name in mine
        if (getattr(getattr(module, name), f"{hookspecs.PROJECT}_impl", None) or {}).get("optionalhook")
    }
    for unknown in sorted(mine - hooks - optional):
        warning = f"there is no hook {unknown}; {suggest(unknown, hooks) or 'see n2kit.contract.hookspecs'}"
        if not mine & hooks:
            raise TypeError(warning)
        plugin.warnings.append(warning)
    if not mine:
        raise TypeError("implements no hook; n2kit_register_components is the usual one")
    register = getattr(module, "n2kit_register_components", None)
    plugin.specs, plugin.left_out = sound_specs(register() if register else [])
    plugin.warnings += [f"{what} is left out: {why}" for what, why in plugin.left_out.items()]
    if plugin.left_out and not plugin.specs:
        raise TypeError(next(iter(plugin.left_out.values())))


def _with_commands(plugins: list[Plugin]) -> list[Plugin]:
    """Note each distribution's commands in the first of its plug-ins; return a plug-in for each that brings nothing else."""
    alone: dict[str, Plugin] = {}
    for point in sorted(set(entry_points(group=COMMANDS)), key=lambda p: p.name):
        name, version = owner_of(point)
        owner = next((p for p in plugins if p.distribution == name), None)
        owner = owner or alone.setdefault(name, Plugin(point.name, name, version, point.value))
        owner.commands.append(point.name)
    return list(alone.values())


def _warn_of_namesakes(plugins: list[Plugin]) -> None:
    """Add a warning to each plug-in whose names another one has too; both work under `distribution/name`."""
    for plugin in plugins:
        others = [p for p in plugins if p is not plugin and not p.problem and not p.disabled]
        for other in others:
            if other.name == plugin.name:
                plugin.warnings.append(f"plug-in name {plugin.name!r} is also that of {other.distribution}")
            taken = {(s.kind, s.name) for s in other.specs}
            shared = [f"{s.kind} {s.name!r}" for s in plugin.specs if (s.kind, s.name) in taken]
            if shared:
                plugin.warnings.append(f"{', '.join(shared)} also in {other.distribution}: write distribution/name")
