"""Blame: the plug-in that an exception came out of, found by the modules that its traceback goes through.

Whatever of a plug-in runs, creation, card, transform, forward, loss, index, tokenizer, hook or command, its frames are in the traceback.
So nothing is wrapped, and nothing is paid while all goes well.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import Any

from n2kit.contract.cards import ComponentSpec
from n2kit.errors import N2kitError, Unavailable
from n2kit.plugins.authors import advice
from n2kit.plugins.manager import COMMANDS, GROUP, OWN, Manager, manager, owner_of


@dataclass(frozen=True)
class Owner:
    """The distribution that a top-level module belongs to, and the components that it registered."""

    plugin: str
    distribution: str
    version: str
    specs: tuple[ComponentSpec, ...] = ()


def blame(error: BaseException, component: str = "") -> Unavailable | None:
    """Return the error to report where a third party's plug-in caused `error`; None where none had a hand in it.

    Of several frames the innermost counts. What a machine lacks, memory or room on a disk, is nobody's fault.

    Args:
        component: the one that was at work, where the caller knows it.
    """
    if isinstance(error, N2kitError | KeyboardInterrupt | BrokenPipeError) or lacks_memory(error):
        return None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return None
    owners = _owners()
    frames = list(_frames(error)) if owners else []
    for frame, line in reversed(frames):
        if (owner := owners.get(_top(frame.f_globals.get("__name__") or ""))) is not None:
            file = "/".join(Path(frame.f_code.co_filename).parts[-2:])
            reason = f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")
            what = component or _component(owner, *_place(frame))
            return _unavailable(owner, what, f"{reason} ({file}:{line})")
    return None


def accuse(part: object, what: str) -> Unavailable | None:
    """Return the error to report where a part of a third party's class did `what`; None where the class is n2kit's own."""
    cls = type(part)
    owner = _owners().get(_top(cls.__module__))
    return (
        None
        if owner is None
        else _unavailable(
            owner, _component(owner, cls.__module__, [f"{c.__module__}:{c.__qualname__}" for c in cls.__mro__]), what
        )
    )


def is_foreign(part: object) -> bool:
    """Tell whether a part's class comes from a third party's plug-in."""
    return _top(type(part).__module__) in _owners()


@contextlib.contextmanager
def blaming() -> Iterator[None]:
    """Report what a third party's code raises, an exit too, as an error of its plug-in.

    Raises:
        Unavailable: in its place.
    """
    try:
        yield
    except BaseException as error:
        if (found := blame(error)) is not None:
            raise found from error
        raise


def running_plugin(frame: FrameType | None, deep: int = 60) -> str | None:
    """Return the distribution of the third party whose code is running in a frame, or has called it; None where it is nobody's."""
    owners = _owners()
    for _ in range(deep if owners else 0):
        if frame is None:
            return None
        if (owner := owners.get(_top(frame.f_globals.get("__name__") or ""))) is not None:
            return owner.distribution
        frame = frame.f_back
    return None


def lacks_memory(error: BaseException) -> bool:
    """Tell whether memory was too short: Python's own error, or the one of torch, which may not be loaded here."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return "MemoryError" in names or "OutOfMemoryError" in names or "can't allocate memory" in str(error)


def _unavailable(owner: Owner, component: str, what: str) -> Unavailable:
    return Unavailable(f"{component} of {owner.distribution} {owner.version}: {what}", advice(owner.distribution))


def _place(frame: FrameType) -> tuple[str, list[str]]:
    """Return a frame's module, and the classes that its code may be of, the likeliest first, as `module:Class`."""
    module = frame.f_globals["__name__"]
    made = type(frame.f_locals.get("self")).__mro__
    return module, [
        *(f"{c.__module__}:{c.__qualname__}" for c in made),
        f"{module}:{frame.f_code.co_qualname.partition('.')[0]}",
    ]


def _component(owner: Owner, module: str, classes: list[str]) -> str:
    """Name the component that a module or one of some classes belongs to; the plug-in where several may be meant."""
    exact = next(filter(None, ([s for s in owner.specs if s.target == cls] for cls in classes)), [])
    near = [s for s in owner.specs if module in {(t or "").partition(":")[0] for t in (s.target, s.config, s.card)}]
    found = {(spec.kind, spec.name) for spec in exact or near}
    if len(found) == 1:
        return "{} {!r}".format(*found.pop())
    return f"plug-in {owner.plugin!r}"


def _owners() -> Mapping[str, Owner]:
    """Map the top-level modules of third parties' plug-ins, of the loaded ones and of commands, to their owners."""
    return _owners_of(manager() if manager.cache_info().currsize else None, tuple(sys.path))


@functools.lru_cache(maxsize=2)
def _owners_of(loaded: Manager | None, path: tuple[str, ...]) -> Mapping[str, Owner]:
    found: dict[str, Owner] = {}
    for point in entry_points(group=COMMANDS):
        if point.dist is not None and (made_by := owner_of(point))[0] != OWN:
            found[_top(point.value)] = Owner(point.name, *made_by)
    own = {"n2kit", "n2kit_cli", *(_top(p.value) for p in entry_points(group=GROUP) if owner_of(p)[0] == OWN)}
    for plugin in loaded.plugins if loaded else ():
        if plugin.distribution != OWN and not plugin.disabled:
            owner = Owner(plugin.name, plugin.distribution, plugin.version, tuple(plugin.specs))
            targets = [t for s in plugin.specs for t in (s.target, s.config, s.card, s.wildcard) if t]
            found |= dict.fromkeys(map(_top, (plugin.module, *targets)), owner)
    return {top: owner for top, owner in found.items() if top not in own}


def _top(module: str) -> str:
    return module.partition(":")[0].strip().partition(".")[0]


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of a traceback, the outermost first."""
    at: Any = error.__traceback__
    while at is not None:
        yield at.tb_frame, at.tb_lineno
        at = at.tb_next
