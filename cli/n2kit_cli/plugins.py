"""n2kit plugins."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from n2kit.contract.kinds import KINDS
from n2kit.errors import BadInput, counted
from n2kit_cli import options
from n2kit_cli.commands import COMMANDS
from n2kit_cli.output import document, emit, say, table
from n2kit_cli.progress import progress

app = typer.Typer(
    help="Installed plug-ins: what they bring, and which are broken.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_(json: options.Json = False) -> None:
    """List every installed plug-in; a broken one with its reason.

    \b
    Examples:
      n2kit plugins list
      n2kit plugins list --json
    """
    from n2kit.plugins.catalogue import default_catalogue
    from n2kit.plugins.registries import note_registered

    found = default_catalogue().plugins.plugins  # which knows of taken names
    note_registered(found)
    for plugin in found:
        if shadowed := sorted(set(plugin.commands) & set(COMMANDS)):
            plugin.warnings.append(f"command {shadowed[0]!r} is n2kit's own: the plug-in's is never called")
    if json:
        document([_facts(p) for p in found])
        return
    rows = [(p.name, f"{p.distribution} {p.version}", ", ".join(_brings(p)), p.state) for p in found]
    table(("plug-in", "distribution", "brings", "state"), rows)


@app.command()
def info(name: Annotated[str, typer.Argument(help="A plug-in's name.")], json: options.Json = False) -> None:
    """Show one plug-in: its components, their presets and options, and what else it registers.

    \b
    Examples:
      n2kit plugins info connectors
    """
    from n2kit.plugins.manager import RegisteredComponent, manager
    from n2kit.plugins.registries import note_registered

    found = _find(name)
    note_registered(manager().plugins)
    if len(found) > 1:
        raise BadInput(
            f"{name!r} stands for {len(found)} plug-ins", f"write one of: {', '.join(p.qualified for p in found)}"
        )
    plugin = found[0]
    if json:
        document(_facts(plugin) | {"components": [_component(s) for s in plugin.specs]})
        return
    say(f"{plugin.name}: {plugin.distribution} {plugin.version}, module {plugin.module}, {plugin.state}")
    if registers := _brings(plugin)[len(plugin.specs) :]:
        say(f"also: {', '.join(registers)}")
    rows = [(s.kind, s.name, ", ".join(s.presets), s.summary, s.target) for s in plugin.specs]
    table(("kind", "name", "presets", "what", "class"), rows)
    found_options = [
        (f"{s.kind} {s.name}", key, o["type"], o["default"], o["description"])
        for s in plugin.specs
        for key, o in options.of_component(RegisteredComponent(s, plugin.distribution, plugin.version)).items()
    ]
    if found_options:
        emit()
        table(("component", "option", "type", "default", "meaning"), found_options)


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Plug-ins or distributions; default: all.")] = None,
    json: options.Json = False,
) -> None:
    """Hold each plug-in to the laws of n2kit.testing, in a process of its own. Exit 1 if one fails.

    \b
    Examples:
      n2kit plugins check fusion
      n2kit plugins check faiss --json
    """
    from n2kit.plugins.isolation import forget
    from n2kit.plugins.manager import manager
    from n2kit.testing.probe import probe_all

    forget()
    manager.cache_clear()
    chosen = (
        {p.qualified: p for name in names for p in _find(name)}
        if names
        else {p.qualified: p for p in manager().plugins}
    )
    with progress("check") as bar:
        results = probe_all(list(chosen.values()), bar)
    if json:
        document([vars(r) for r in results])
    else:
        rows = [
            (r.plugin, r.distribution, "failed" if r.problems else "ok", r.laws, "\n".join(r.problems)) for r in results
        ]
        table(("plug-in", "distribution", "state", "laws kept", "problems"), rows)
        for hint in (h for r in results for h in r.hints):
            say(f"hint: {hint}")
        for waived in (w for r in results for w in r.waived):
            say(f"waived: {waived}")
    if any(r.problems for r in results):
        raise typer.Exit(1)


@app.command()
def known(json: options.Json = False) -> None:
    """List the known plug-ins, installed or not, with the line that installs them.

    \b
    Examples:
      n2kit plugins known
    """
    from n2kit.plugins.catalogue import default_catalogue
    from n2kit.plugins.manager import manager

    installed = {n for p in manager().plugins for n in (p.name, p.distribution)}
    entries = [
        {"name": name, "installed": name in installed or entry.distribution in installed} | vars(entry)
        for name, entry in default_catalogue().known.items()
    ]
    if json:
        document(entries)
        return
    rows = [(e["name"], e["brings"], e["summary"], "yes" if e["installed"] else e["install"]) for e in entries]
    table(("plug-in", "brings", "what", "installed"), rows)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The component's name: what users will write for --vision and the like.")],
    kind: Annotated[str, typer.Option(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The folder; default n2kit-NAME.")] = None,
    json: options.Json = False,
) -> None:
    """Write a complete plug-in package: module, model, tests that inherit the suite, README. It works as it is written.

    \b
    Examples:
      n2kit plugins new grid --kind vision -o n2kit-grid
      n2kit plugins new margin --kind loss --json
    """
    from n2kit.scaffold import write_package

    folder = out or Path(f"n2kit-{name}")
    files = write_package(name, kind, folder)
    if json:
        document({"folder": str(folder), "files": files})
        return
    say(f"wrote {counted(len(files), 'file')}; next:")
    where = shlex.quote(str(folder))
    say(f"  pip install -e {where} && pytest {where} && n2kit plugins check n2kit-{name}")
    emit(folder)


def _find(name: str) -> list[Any]:
    """Find the plug-ins that a name stands for: all of a distribution, namesakes included."""
    from n2kit.errors import suggest
    from n2kit.plugins.manager import manager

    found = manager().named(name)
    if not found:
        names = {n for p in manager().plugins for n in (p.name, p.distribution)}
        raise BadInput(
            f"no plug-in {name!r} is installed", suggest(name, names) or f"installed: {', '.join(sorted(names))}"
        )
    return found


def _facts(plugin: Any) -> dict[str, Any]:
    names = ("name", "distribution", "version", "module", "problem", "warnings", "disabled")
    facts = {k: getattr(plugin, k) for k in names}
    return facts | {
        "components": [f"{s.kind}:{s.name}" for s in plugin.specs],
        "commands": plugin.commands,
        "registers": plugin.registers,
    }


def _brings(plugin: Any) -> list[str]:
    registered = (f"{what}:{name}" for what, names in plugin.registers.items() for name in names)
    return [
        *(f"{s.kind}:{s.name}" for s in plugin.specs),
        *(f"command:{name}" for name in plugin.commands),
        *registered,
    ]


def _component(spec: Any) -> dict[str, Any]:
    return {
        k: getattr(spec, k)
        for k in ("kind", "name", "summary", "target", "config", "card", "model_types", "requires", "extra")
    } | {
        "capabilities": sorted(spec.capabilities),
        "presets": {k: {"weights": v.weights, "licence": v.licence, "notes": v.notes} for k, v in spec.presets.items()},
    }
