"""The check of what a plug-in registers: one bad component is left out, and the others stay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from n2kit.contract.cards import ComponentSpec, Preset
from n2kit.contract.kinds import KIND_SPECS, KINDS

NAME = re.compile(r"\w+([.-]+\w+)*")  # of components and of presets
LONGEST_NAME, LONGEST_SUMMARY, SHOWN = 64, 300, 20  # characters
REQUIREMENT = re.compile(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?((==|>=|<=|!=|~=|<|>)\d+(\.\d+)*)?")


def sound_specs(specs: Any) -> tuple[list[ComponentSpec], dict[str, str]]:
    """Split what `n2kit_register_components` returned: sound components, and those to be left out with the reason.

    Raises:
        TypeError: it is no list.
    """
    if not isinstance(specs, list | tuple):
        raise TypeError(f"n2kit_register_components returned {type(specs).__name__}, not a list of ComponentSpec")
    sound: list[ComponentSpec] = []
    left_out: dict[str, str] = {}
    for number, spec in enumerate(specs, 1):
        try:
            _check(spec)
            if any((spec.kind, spec.name) == (other.kind, other.name) for other in sound):
                left_out[f"component {number}"] = f"registers {spec.kind} {spec.name!r} twice"
            else:
                sound.append(spec)
        except Exception as error:  # a field may be an object that fails when it is looked at
            left_out[_called(spec, number)] = (
                str(error) if isinstance(error, TypeError) else f"{type(error).__name__}: {error}"
            )
    return sound, left_out


def _called(spec: Any, number: int) -> str:
    kind, name = getattr(spec, "kind", None), getattr(spec, "name", None)
    if not isinstance(kind, str) or not isinstance(name, str):
        return f"component {number}"
    return f"{kind[:SHOWN]} {name if len(name) <= SHOWN else f'{name[:SHOWN]}…'!r}"


def _check(spec: Any) -> None:
    """Check a component's fields, so that a wrong one does not break a command that lists it.

    Raises:
        TypeError: for the first wrong field.
    """
    if not isinstance(spec, ComponentSpec):
        raise TypeError(f"n2kit_register_components returned {type(spec).__name__}, not ComponentSpec")
    for field in ("kind", "name", "target", "summary", "config"):
        if not (isinstance(value := getattr(spec, field), str) and value):
            raise TypeError(f"a component's {field} is {value!r}, not a text")
    if spec.kind not in KINDS:
        raise TypeError(f"component {spec.name!r} has unknown kind {spec.kind!r}; kinds: {', '.join(KINDS)}")
    _check_name(spec.name)
    if len(spec.summary) > LONGEST_SUMMARY:
        raise TypeError(f"its summary has {len(spec.summary)} characters, and {LONGEST_SUMMARY} are the most")
    if not isinstance(spec.presets, Mapping) or not all(isinstance(v, Preset) for v in spec.presets.values()):
        raise TypeError(f"presets of {spec.kind} {spec.name!r} are no mapping of names to Preset")
    for preset in spec.presets:
        _check_name(preset)
    for field in ("partners", "waived"):
        if not (isinstance(value := getattr(spec, field), Mapping) and all(isinstance(key, str) for key in value)):
            raise TypeError(f"{field} of {spec.kind} {spec.name!r} is no mapping of texts")
    if lacking := [law for law, reason in spec.waived.items() if not (isinstance(reason, str) and reason.strip())]:
        raise TypeError(f"{spec.kind} {spec.name!r} waives {lacking[0]} without a reason")
    for field in ("requires", "model_types"):
        if not isinstance(getattr(spec, field), tuple | list):
            raise TypeError(f"{field} of {spec.kind} {spec.name!r} is no tuple")
    known = KIND_SPECS[spec.kind].capabilities
    if unknown := sorted(set(spec.capabilities) - set(known)):
        offer = ", ".join(known) or "none"
        raise TypeError(f"{spec.kind} {spec.name!r} declares capability {unknown[0]!r}; there are: {offer}")
    if not all(map(REQUIREMENT.fullmatch, spec.requires)):  # a simple one: its parser takes its time to import
        from packaging.requirements import Requirement

        for wanted in spec.requires:
            Requirement(wanted)


def _check_name(name: Any) -> None:
    """Check a component's or a preset's name: what a user can type, and a terminal show.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise TypeError(f"{name!r} is no name: letters, digits, and . _ - between them")
    if len(name) > LONGEST_NAME:
        raise TypeError(f"its name has {len(name)} characters, and {LONGEST_NAME} are the most")
