"""n2kit ls."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from n2kit_cli import options
from n2kit_cli.output import document, table


def ls(
    kind: Annotated[str | None, typer.Argument(help="llm, vision, connector, fusion, loss or index.")] = None,
    json: options.Json = False,
) -> None:
    """List what can be joined: every name that --llm, --vision and the others take.

    \b
    Examples:
      n2kit ls
      n2kit ls vision
      n2kit ls llm --json
    """
    from n2kit.contract.cards import KINDS
    from n2kit.errors import BadInput, suggest
    from n2kit.plugins.catalogue import default_catalogue

    if kind is not None and kind not in KINDS:
        raise BadInput(f"unknown kind {kind!r}", suggest(kind, KINDS) or f"kinds: {', '.join(KINDS)}")
    catalogue = default_catalogue()
    entries: list[dict[str, Any]] = []
    for each in [kind] if kind else KINDS:
        for name in catalogue.names(each):
            entries.append(_entry(catalogue, each, name, details=json))
    if json:
        document(entries)
        return
    rows = [(e["kind"], e["name"], ", ".join(e["presets"]), e["summary"], e["distribution"]) for e in entries]
    table(("kind", "name", "presets", "what", "from"), rows)


def _entry(catalogue: Any, kind: Any, name: str, *, details: bool) -> dict[str, Any]:
    alias = catalogue.aliases[kind].get(name)
    owners = [o for o in catalogue.plugins.components(kind) if o.spec.name == (alias["component"] if alias else name)]
    if not owners:
        return {
            "kind": kind,
            "name": name,
            "presets": [],
            "summary": "its plug-in is not installed",
            "distribution": "?",
        }
    registered = owners[0]
    entry = {
        "kind": kind,
        "name": name,
        "presets": list(catalogue.presets(kind, name)) if len(owners) == 1 else [],
        "summary": registered.spec.summary + (f" ({name}:ANY)" if registered.spec.wildcard else ""),
        "distribution": ", ".join(o.distribution for o in owners),
    }
    if details and len(owners) == 1:
        from n2kit.plugins.manager import load_target

        schema = load_target(registered.spec.config, owner=registered.distribution).model_json_schema()
        entry["options"] = {
            k: {f: v.get(f) for f in ("description", "default")} for k, v in schema.get("properties", {}).items()
        }
        entry["presets"] = {
            k: {"weights": v.weights, "licence": v.licence, "notes": v.notes}
            for k, v in catalogue.presets(kind, name).items()
        }
    return entry
