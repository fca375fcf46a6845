"""n2kit plugins."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from n2kit_cli import options
from n2kit_cli.output import document, say, table

app = typer.Typer(
    help="Installed plug-ins: what they bring, and which are broken.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_(json: options.Json = False) -> None:
    """Every installed plug-in; a broken one with its reason.

    \b
    Examples:
      n2kit plugins list
      n2kit plugins list --json
    """
    from n2kit.manager import manager

    found = manager().plugins
    if json:
        document([_facts(p) for p in found])
        return
    rows = [
        (p.name, f"{p.distribution} {p.version}", ", ".join(f"{s.kind}:{s.name}" for s in p.specs), p.problem or "ok")
        for p in found
    ]
    table(("plug-in", "distribution", "brings", "state"), rows)


@app.command()
def info(name: Annotated[str, typer.Argument(help="A plug-in's name.")], json: options.Json = False) -> None:
    """One plug-in: its components, their variants and options.

    \b
    Examples:
      n2kit plugins info connectors
    """
    plugin = _find(name)
    if json:
        document(_facts(plugin) | {"components": [_component(s) for s in plugin.specs]})
        return
    say(f"{plugin.name}: {plugin.distribution} {plugin.version}, module {plugin.module}, {plugin.problem or 'ok'}")
    rows = [(s.kind, s.name, ", ".join(s.variants), s.summary, s.target) for s in plugin.specs]
    table(("kind", "name", "variants", "what", "class"), rows)


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Plug-ins or distributions; default: all.")] = None,
    json: options.Json = False,
) -> None:
    """Load each plug-in and all that its components name, in an interpreter of its own. Exit 1 if one fails.

    \b
    Examples:
      n2kit plugins check
      n2kit plugins check fusion --json
    """
    from n2kit.manager import manager
    from n2kit.testing.probe import probe

    chosen = [_find(n) for n in names] if names else manager().plugins
    results = [probe(p) for p in chosen]
    if json:
        document([vars(r) for r in results])
    else:
        rows = [(r.plugin, r.distribution, "failed" if r.problems else "ok", "; ".join(r.problems)) for r in results]
        table(("plug-in", "distribution", "state", "problems"), rows)
    if any(r.problems for r in results):
        raise typer.Exit(1)


def _find(name: str) -> Any:
    from n2kit.errors import BadInput
    from n2kit.manager import manager, nearest

    found = [p for p in manager().plugins if name in (p.name, p.distribution, f"{p.distribution}/{p.name}")]
    if not found:
        names = [p.name for p in manager().plugins]
        raise BadInput(f"no plug-in {name!r} is installed", nearest(name, names) or f"installed: {', '.join(names)}")
    return found[0]


def _facts(plugin: Any) -> dict[str, Any]:
    facts = {k: getattr(plugin, k) for k in ("name", "distribution", "version", "module", "problem")}
    return facts | {"components": [f"{s.kind}:{s.name}" for s in plugin.specs]}


def _component(spec: Any) -> dict[str, Any]:
    return {
        k: getattr(spec, k)
        for k in ("kind", "name", "summary", "target", "config", "card", "model_types", "requires", "extra")
    } | {
        "variants": {
            k: {"weights": v.weights, "licence": v.licence, "notes": v.notes} for k, v in spec.variants.items()
        }
    }
