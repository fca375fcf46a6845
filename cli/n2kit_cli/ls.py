"""n2kit ls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit.contract.kinds import KINDS
from n2kit_cli import options
from n2kit_cli.output import count, data, document, emit, fancy, say, table

if TYPE_CHECKING:
    from n2kit.contract.cards import Card
    from n2kit.contract.kinds import Kind
    from n2kit.plugins.catalogue import Catalogue

MISSING = "its plug-in is not installed"
RANDOM = "random"  # weights of presets that n2kit ls NAME alone has
GATED = "gated"  # how the notes of presets begin whose licence is accepted on the hub first


def ls(
    what: Annotated[
        str | None,
        typer.Argument(help=f"{', '.join(KINDS)}; or a name, for its presets and options."),
    ] = None,
    json: options.Json = False,
) -> None:
    """List what can be joined: every name that --llm, --vision and the others take.

    \b
    Examples:
      n2kit ls
      n2kit ls vision
      n2kit ls qformer
      n2kit ls llm --json
    """
    from n2kit.errors import BadInput, suggest
    from n2kit.plugins.catalogue import default_catalogue

    catalogue = default_catalogue()
    if what in KINDS or what is None:
        found = [_entry(catalogue, k, name) for k in KINDS if what in (k, None) for name in catalogue.names(k)]
        document(found) if json else _overview(found)
        return
    found = [_entry(catalogue, kind, what) for kind in KINDS if what in catalogue.names(kind)]
    if not found:
        known = [*KINDS, *(name for kind in KINDS for name in catalogue.names(kind))]
        raise BadInput(f"unknown kind or name {what!r}", suggest(what, known) or f"kinds: {', '.join(KINDS)}")
    if json:
        document(found)
        return
    for entry in found:
        _details(entry)


def _overview(entries: list[dict[str, Any]]) -> None:
    """Print a row for each component; names that stand for the same one share it."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in entries:
        rows.setdefault((entry["kind"], entry["component"]), []).append(entry)
    owned = {e["distribution"] for e in entries} != {"n2kit"}
    head = ("kind", "name", "presets", "default", "size", "licence", "weights", "what", *["from"] * owned)
    table(head, [_row(kind, some, owned) for (kind, _), some in rows.items()])
    if fancy(data()):
        say("n2kit ls NAME shows presets and options")


def _row(kind: str, entries: list[dict[str, Any]], owned: bool) -> tuple[str, ...]:
    several = len(entries) > 1
    weighted = [(e, p) for e in entries if (p := e["presets"].get(e["default"])) and p["weights"] != RANDOM]
    presets = [
        (f"{e['name']}:{name}" if several else name) + f" ({GATED})" * (p["notes"] or "").startswith(GATED)
        for e in entries
        for name, p in e["presets"].items()
        if p["weights"] != RANDOM
    ]
    defaults = [f"{e['name']}:{e['default']}" if several else e["default"] for e, _ in weighted]
    facts = (defaults, *([p[fact] for _, p in weighted] for fact in ("size", "licence", "weights")))
    cells = [", ".join(dict.fromkeys(str(fact or "?") for fact in some)) for some in facts]
    names = ", ".join(e["name"] for e in entries)
    return (kind, names, ", ".join(presets), *cells, entries[0]["summary"], *[entries[0]["distribution"]] * owned)


def _details(entry: dict[str, Any]) -> None:
    """Print the presets and the options of one name."""
    others = f"; also called {', '.join(entry['aliases'])}" if entry["aliases"] else ""
    rows = [
        (
            f"{entry['name']}:{name}",
            "default" if name == entry["default"] else "",
            p["size"],
            p["licence"],
            p["weights"],
            p["notes"],
        )
        for name, p in entry["presets"].items()
    ]
    emit(f"{entry['kind']} {entry['name']}: {entry['summary']}{others}\n")
    if rows:
        table(("preset", "", "size", "licence", "weights", "notes"), rows)
        emit()
    if entry["options"]:
        shown = [(f"{entry['kind']}.{name}", o["default"], o["description"]) for name, o in entry["options"].items()]
        table(("option (--set)", "default", "meaning"), shown)
        emit()


def _entry(catalogue: Catalogue, kind: Kind, name: str) -> dict[str, Any]:
    """Describe a name: its presets with their facts, its options, and the other names of the same component."""
    alias = catalogue.aliases[kind].get(name)
    component = str(alias["component"]) if alias else name
    owners = [o for o in catalogue.plugins.components(kind) if o.spec.name == component]
    entry: dict[str, Any] = {"kind": kind, "name": name, "component": component, "default": "", "aliases": []}
    entry |= {"presets": {}, "options": {}, "summary": MISSING, "distribution": "?"}
    if not owners:
        return entry
    spec = owners[0].spec
    entry["summary"] = spec.summary + (f" ({name}:ANY)" if spec.wildcard else "")
    entry["distribution"] = ", ".join(o.distribution for o in owners)
    if len(owners) > 1:
        return entry
    named = [n for n, a in catalogue.aliases[kind].items() if a["component"] == component]
    entry["aliases"] = sorted({component, *named} - {name})
    entry["default"] = catalogue.default_preset(kind, name)
    entry["options"] = options.of_component(owners[0])
    entry["presets"] = {
        key: {"size": _size(p.card), "licence": p.licence, "weights": p.weights, "notes": p.notes}
        for key, p in catalogue.presets(kind, name).items()
    }
    return entry


def _size(card: Card | None) -> str | None:
    """Write the number of parameters that a card declares."""
    from n2kit.contract.cards import MLLMCard

    if isinstance(card, MLLMCard):
        return count(card.llm.parameters + card.vision.parameters + card.connector_parameters)
    return None if card is None else count(card.parameters)
