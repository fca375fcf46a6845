"""n2kit card."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit_cli import options
from n2kit_cli.output import document, say, table

if TYPE_CHECKING:
    from n2kit.plugins.component import Component

app = typer.Typer(
    help="Facts about backbones, as a plan reads them and as they are.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(help="A backbone as in --llm, --vision or --mllm: NAME[:PRESET][@SOURCE].")]
KindName = Annotated[
    str | None, typer.Option("--kind", help="llm, vision or mllm, where the name is of several kinds.")
]


@app.command()
def show(name: Name, kind: KindName = None, json: options.Json = False) -> None:
    """Show the card that a plan reads: declared, or out of the checkpoint's own configuration.

    \b
    Examples:
      n2kit card show siglip
      n2kit card show qwen:4b --json
    """
    component = _resolve(name, kind)
    facts = asdict(component.card())
    if json:
        document({"kind": component.kind, "reference": component.reference, "card": facts})
        return
    table(("fact", component.reference), list(_flat(facts)))


@app.command()
def verify(name: Name, kind: KindName = None, json: options.Json = False) -> None:
    """Load a backbone and compare its card with what is measured. Exit 1 where they differ.

    \b
    Examples:
      n2kit card verify siglip:tiny
      n2kit card verify qwen:tiny --json
    """
    component = _resolve(name, kind)
    component.weights.locate()  # before torch is imported: a missing download should be said at once
    said = dict(_flat(asdict(component.card())))
    from n2kit.builder import measured_card

    found = dict(_flat(asdict(measured_card(component))))
    wrong = [fact for fact in found if said.get(fact) != found[fact]]
    if json:
        document(
            {"kind": component.kind, "reference": component.reference, "card": said, "measured": found, "wrong": wrong}
        )
    else:
        rows = [(fact, said.get(fact), found[fact], "differs" if fact in wrong else "") for fact in found]
        table(("fact", "card", "measured", ""), rows, title=component.reference)
    if wrong:
        say(f"error: the card of {component.kind} {component.reference} is wrong: {', '.join(wrong)}")
        say("hint: correct the card in registry.yaml or in its plug-in's spec")
        raise typer.Exit(1)


def _resolve(name: str, kind: str | None) -> Component:
    """Resolve the backbone of that name, of whichever kind has it."""
    from n2kit.contract.kinds import BACKBONES
    from n2kit.errors import BadInput, N2kitError
    from n2kit.plugins.catalogue import default_catalogue

    if kind is not None and kind not in BACKBONES:
        raise BadInput(f"no cards of kind {kind!r}", f"--kind {', '.join(BACKBONES)}")
    problems: list[N2kitError] = []
    found = []
    for each in [kind] if kind else BACKBONES:
        try:
            found.append(default_catalogue().resolve(each, name))
        except N2kitError as problem:
            problems.append(problem)
    if len(found) > 1:
        kinds = " or ".join(c.kind for c in found)
        raise BadInput(f"{name!r} is {kinds}", f"--kind {found[0].kind}")
    if not found:
        telling = [p for p in problems if not p.message.startswith("unknown ") and " is a " not in p.message]
        raise next(
            iter(telling if not kind else problems), BadInput(f"no backbone is called {name!r}", problems[0].hint)
        )
    return found[0]


def _flat(facts: dict[str, Any], prefix: str = "") -> Any:
    for key, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(value) if isinstance(value, tuple | list) else value
