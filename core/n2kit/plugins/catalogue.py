"""The catalogue: from a reference that a user types to one component, by registry.yaml and the plug-ins.

A reference is `NAME[:PRESET][@SOURCE]`: an alias of the catalogue, a plug-in's component, `distribution/component`, or a
bare source (`hf:org/name`, `file:folder`), whose own configuration then says which component reads it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from n2kit.contract.cards import Card, Preset
from n2kit.contract.kinds import BACKBONES, KINDS, Kind
from n2kit.errors import BadInput, Mismatch, Unavailable, suggest
from n2kit.plugins.authors import advice
from n2kit.plugins.component import Component
from n2kit.plugins.manager import OWN, Manager, RegisteredComponent, load_target, manager
from n2kit.plugins.registry_file import check_registry
from n2kit.plugins.registry_layers import FOLDER_FILES, Known, built_in, model_type_of, override_files, preset_of
from n2kit.plugins.weights import SCHEMES, WeightsUri
from n2kit.utils.yaml_files import parse_yaml, read_yaml

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SOURCE = re.compile(r"@(?=(?:hf:|file:|pkg:|random$))")


class Catalogue:
    """The catalogue over the installed plug-ins: the built-in file, then the user's, then the project's."""

    def __init__(self, plugins: Manager, layers: list[Path] | None = None) -> None:
        self.plugins = plugins
        self.aliases: dict[Kind, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.known: dict[str, Known] = {}
        self._merge(parse_yaml(built_in()), "registry.yaml")
        self.own = {
            kind: frozenset(names) for kind, names in self.aliases.items()
        }  # names of n2kit's, beside its components'
        self._warn_of_own_names()
        for path in override_files() if layers is None else layers:
            self._merge(read_yaml(path), str(path))

    def _merge(self, content: Any, where: str) -> None:
        checked = check_registry(content, where)
        self.known |= {name: Known(**entry) for name, entry in checked.get("known_plugins", {}).items()}
        for kind in KINDS:
            self.aliases[kind] |= checked.get(kind, {})

    def _warn_of_own_names(self) -> None:
        """Add a warning to each plug-in that gives a component one of the catalogue's names."""
        for plugin in self.plugins.plugins:
            taken = [
                f"{s.kind} {s.name!r}"
                for s in plugin.specs
                if plugin.distribution != OWN and s.name in self.own[s.kind]
            ]
            warning = f"{', '.join(taken)} also in {OWN}: write distribution/name"
            if taken and warning not in plugin.warnings:
                plugin.warnings.append(warning)

    def _alias(self, kind: Kind, name: str, *, requested: bool) -> dict[str, Any] | None:
        """Find the catalogue's entry for a name, with or without `n2kit/` before it.

        Raises:
            BadInput: a plug-in has a component of the same name.
        """
        alias = self.aliases[kind].get(name.removeprefix(f"{OWN}/"))
        if alias is None or name not in self.own[kind] or not requested:
            return alias
        others = [
            o.distribution for o in self.plugins.components(kind) if o.spec.name == name and o.distribution != OWN
        ]
        if others:
            choices = ", ".join(f"{owner}/{name}" for owner in (OWN, *others))
            number = "two" if len(others) == 1 else str(1 + len(others))
            raise BadInput(f"{kind} {name!r} is provided by {number} installed packages", f"write one of: {choices}")
        return alias

    def names(self, kind: Kind) -> list[str]:
        """List every name that a user can write for a kind, without presets."""
        return sorted({*self.aliases[kind], *(o.spec.name for o in self.plugins.components(kind))})

    def presets(self, kind: Kind, name: str) -> dict[str, Preset]:
        """Return the presets of a name: the catalogue's, then the plug-in's own (`tiny` among them)."""
        alias = self.aliases[kind].get(name)
        return self._presets(kind, alias, self.plugins.find(kind, alias["component"] if alias else name))

    def _presets(
        self, kind: Kind, alias: dict[str, Any] | None, registered: RegisteredComponent | None
    ) -> dict[str, Preset]:
        listed = {str(k): preset_of(kind, v) for k, v in (alias or {}).get("presets", {}).items()}
        own = dict(registered.spec.presets) if registered else {}
        if alias is not None and registered is not None and self.aliases[kind].get(registered.spec.name) is not alias:
            # Another name for a part of what the component reads: of its tiny models, the one of that part.
            tiny = alias.get("tiny", "tiny")
            own = {"tiny": own[tiny]} if tiny in own else {}
        return listed | {k: v for k, v in own.items() if k not in listed}

    def default_preset(self, kind: Kind, name: str) -> str:
        """Return the preset that a bare name stands for; empty where there is none to choose."""
        alias = self.aliases[kind].get(name) or {}
        return str(alias.get("default", "")) or _default_preset(kind, self.presets(kind, name))

    def resolve(self, kind: Kind, text: str, *, requested: bool = True) -> Component:
        """Resolve a reference to one component.

        A name that is not `requested` is a default: of several owners it is n2kit's own.

        Raises:
            BadInput: an unknown name, or one of two owners. Unavailable: a known plug-in that is not installed.
        """
        reference, source = _split_source(text.strip())
        if not reference:
            raise BadInput(f"no {kind} given", f"n2kit ls {kind}")
        name, colon, preset = reference.partition(":")
        if (
            kind in BACKBONES
            and colon
            and name in SCHEMES
            and not (name == "hf" and preset in self.presets(kind, "hf"))
        ):
            return self._by_source(kind, reference)
        alias = self._alias(kind, name, requested=requested)
        # An entry of the catalogue is n2kit's own, and means n2kit's own component.
        own_alias = alias is not None and name.removeprefix(f"{OWN}/") in self.own[kind] and alias["component"] != name
        prefer = OWN if not requested or own_alias else None
        registered = self.plugins.find(kind, alias["component"] if alias else name, prefer=prefer)
        if registered is None and self._is_hub_id(kind, reference):
            elsewhere = source is not None and source.partition(":")[0] in SCHEMES
            return self._by_source(kind, str(source) if elsewhere else f"hf:{text.strip()}")
        if registered is None and alias is not None:
            raise self._unknown(kind, str(alias["component"]))
        if registered is None:
            raise self._unknown(kind, reference)
        component = self._with_preset(kind, name, preset, alias, registered, source is not None)
        if source is None:
            return component
        weights = WeightsUri.parse(source)
        if weights.scheme == "random" and kind in BACKBONES and not (component.options or registered.spec.wildcard):
            raise BadInput(f"{kind} {text!r}: random weights of which architecture?", f"write {name}:tiny")
        declared = component.declared if weights == component.weights else None
        # Other weights under a bare family name are not known to be the default preset's, nor under its licence.
        licence = component.licence if preset or weights == component.weights else None
        reference = f"{component.reference}@{source}"
        return replace(component, reference=reference, weights=weights, declared=declared, licence=licence)

    def _is_hub_id(self, kind: Kind, reference: str) -> bool:
        """Tell whether a reference is a model of a hub by its bare id, `Qwen/Qwen3-0.6B`, and not a component of a plug-in."""
        owner = reference.partition("/")[0]
        plugins = {name for p in self.plugins.plugins for name in (p.name, p.distribution)} | set(self.known)
        return kind in BACKBONES and _HUB_ID.fullmatch(reference) is not None and owner not in plugins

    def _with_preset(
        self,
        kind: Kind,
        name: str,
        preset: str,
        alias: dict[str, Any] | None,
        registered: RegisteredComponent,
        sourced: bool,
    ) -> Component:
        known = self._presets(kind, alias, registered)
        base = dict((alias or {}).get("options", {}))
        if not preset:
            preset = str((alias or {}).get("default", "")) or _default_preset(kind, known)
        if preset in known:
            chosen = known[preset]
            reference = f"{name}:{preset}"
            options = base | dict(chosen.options)
            weights = WeightsUri.parse(chosen.weights)
            return Component(
                kind, reference, registered, options, weights, chosen.card, chosen.licence, chosen.template
            )
        spec = registered.spec
        if preset and spec.shorthand:
            # `qformer:16` and `timm:resnet18` set the one option that a component is chosen by.
            value: Any = int(preset) if preset.isdigit() else preset
            chosen = Preset()
            if spec.wildcard and not sourced:
                chosen = load_target(spec.wildcard, owner=registered.distribution)(preset)
            options = base | {spec.shorthand: value} | dict(chosen.options)
            return Component(
                kind, f"{name}:{preset}", registered, options, WeightsUri.parse(chosen.weights), chosen.card
            )
        if preset:
            hint = suggest(preset, known) or f"{name} has {', '.join(known) or 'no presets'}"
            raise BadInput(f"{kind} {name!r} has no preset {preset!r}", hint)
        return Component(kind, name, registered, base)

    def _by_source(self, kind: Kind, source: str) -> Component:
        if len(source) > 3 and source.startswith("hf:") and Path(source[3:]).expanduser().is_dir():
            source = "file:" + source[3:]
        weights = WeightsUri.parse(source)
        found = weights.locate([*FOLDER_FILES])
        assert found is not None
        model_type = model_type_of(found)
        candidates = self.plugins.components(kind)
        readers = [o for o in candidates if model_type in o.spec.model_types]
        if len({o.distribution for o in readers}) > 1:
            choices = ", ".join(f"{o.distribution}/{o.spec.name}@{source}" for o in readers)
            raise BadInput(f"{source} ({model_type}) is read by plug-ins of two packages", f"write one of: {choices}")
        registered = next(iter(readers), None)
        any_model = next((o for o in candidates if "*" in o.spec.model_types), None)
        for other in reversed(BACKBONES):
            if registered is None and any(model_type in o.spec.model_types for o in self.plugins.components(other)):
                alone = f"; --llm {any_model.spec.name}@{source} takes its language model alone" if any_model else ""
                hint = f"write --{other} {source}" + alone * ((kind, other) == ("llm", "mllm"))
                raise BadInput(f"{source} is a {other} (model_type {model_type!r}), not a {kind}", hint)
        registered = registered or any_model
        if registered is None:
            readable = ", ".join(sorted({t for o in candidates for t in o.spec.model_types}))
            raise BadInput(
                f"no installed {kind} component reads {source} (model_type {model_type!r})", f"readable: {readable}"
            )
        return Component(kind, source, registered, {}, weights)

    def _unknown(self, kind: Kind, reference: str) -> BadInput | Unavailable:
        name = reference.partition(":")[0]
        for plugin in self.plugins.plugins:
            bare = name.removeprefix(f"{plugin.distribution}/")
            if (why := plugin.left_out.get(f"{kind} {bare!r}")) is not None:
                return Unavailable(
                    f"{kind} {bare!r} of {plugin.distribution} is left out: {why}", advice(plugin.distribution)
                )
            if name in (plugin.name, plugin.qualified) and plugin.disabled:
                return Unavailable(
                    f"plug-in {plugin.qualified} is disabled", "leave out --disable-plugin or N2KIT_PLUGINS"
                )
            if name in (plugin.name, plugin.qualified) and plugin.problem:
                reason = f"plug-in {plugin.qualified} is broken: {plugin.problem}"
                return Unavailable(reason, f"n2kit plugins check {plugin.qualified}")
        if name in self.known:
            return Unavailable(f"{kind} {name!r} comes with a plug-in that is not installed", self.known[name].install)
        for other in KINDS:
            if other != kind and name in self.names(other):
                return BadInput(
                    f"{name!r} is a {other}, not a {kind}",
                    f"write --{other} {reference}; n2kit ls {kind} lists {kind} names",
                )
        hint = suggest(name, self.names(kind)) or f"n2kit ls {kind}"
        if disabled := [p.qualified for p in self.plugins.plugins if p.disabled]:
            hint += f"; disabled: {', '.join(disabled)}"
        if broken := self.plugins.broken():
            hint += f"; or does {' or '.join(p.qualified for p in broken)} bring it, which is broken?"
        return BadInput(f"unknown {kind} {name!r}", hint)


@functools.cache
def default_catalogue() -> Catalogue:
    """Return the catalogue of this process, read once."""
    return Catalogue(manager())


def resolve_component(kind: Kind, reference: str) -> Component:
    """Find the component of a kind that a reference stands for (`gate`, `qformer:16`, `file:FOLDER`).

    Raises:
        BadInput, Unavailable: as `Catalogue.resolve`.
    """
    return default_catalogue().resolve(kind, reference)


def check_card(reference: str, declared: Card | None, measured: Card) -> None:
    """Check that loaded weights are what the catalogue said they are.

    Raises:
        Mismatch: with each fact that differs.
    """
    if declared is None or declared == measured:
        return
    wrong = [
        f"{k} declared {getattr(declared, k)}, measured {getattr(measured, k)}"
        for k in declared.__dataclass_fields__
        if getattr(declared, k) != getattr(measured, k)
    ]
    raise Mismatch(f"{reference}: {'; '.join(wrong)}", "correct the card in registry.yaml, or give the right weights")


def _split_source(text: str) -> tuple[str, str | None]:
    """Split `NAME@SOURCE` into both; a bare source keeps its own `@revision`."""
    pieces = _SOURCE.split(text, maxsplit=1)
    if len(pieces) == 2:
        return pieces[0], pieces[1]
    if "@" in text and text.partition(":")[0] not in SCHEMES:
        name, _, source = text.partition("@")
        return name, source
    return text, None


def _default_preset(kind: Kind, known: Mapping[str, Preset]) -> str:
    """Choose the preset of a bare name: a backbone's first one with weights; none for connectors and fusions."""
    if kind not in BACKBONES:
        return ""
    return next((name for name, v in known.items() if v.weights != "random"), next(iter(known), ""))
