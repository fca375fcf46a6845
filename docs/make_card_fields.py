"""Write docs/card-fields.md: every field of every card, and the capabilities of every kind, out of the code.

    python docs/make_card_fields.py

A test holds the page against the code: after a change of a card, run this again.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields
from pathlib import Path

from n2kit.contract.cards import ConnectorCard, FusionCard, LLMCard, MLLMCard, VisionCard
from n2kit.contract.kinds import KIND_SPECS

PAGE = Path(__file__).with_name("card-fields.md")
HEAD = """# Fields of cards

A card has the facts of a component that a plan reads before any weight exists ([plugins.md](plugins.md)). What a card declares is
compared with the loaded weights. This page is written by `python docs/make_card_fields.py`.

| kind | its interface | its card | capabilities |
|---|---|---|---|
"""
FIELD = re.compile(r"^    (\w+): .*?  # (.*)$", re.MULTILINE)


def page() -> str:
    """Return the whole page as Markdown."""
    rows = []
    for kind, spec in KIND_SPECS.items():
        card = f"[`{spec.card.__name__}`](#{spec.card.__name__.lower()})" if spec.card else "none"
        capabilities = ", ".join(f"`{name}`" for name in spec.capabilities) or "none"
        rows.append(f"| `{kind}` | `{spec.interface.rpartition(':')[2]}` | {card} | {capabilities} |\n")
    meanings = {name: meaning for spec in KIND_SPECS.values() for name, meaning in spec.capabilities.items()}
    listed = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in meanings.items())
    table = "| capability | meaning |\n|---|---|\n"
    capabilities = f"\n## Capabilities\n\nEach that is declared is tested.\n\n{table}{listed}"
    parts = [HEAD + "".join(rows), capabilities]
    parts += [_card(card) for card in (VisionCard, LLMCard, MLLMCard, ConnectorCard, FusionCard)]
    return "".join(parts)


def _card(card: type) -> str:
    """Describe a card: a row for each field, by the comment behind it."""
    meanings = dict(FIELD.findall(inspect.getsource(card)))
    rows = []
    for one in fields(card):  # type: ignore[arg-type]
        default = "needed" if one.default is MISSING else f"`{one.default!r}`"
        kind = str(one.type).replace("|", "\\|")
        rows.append(f"| `{one.name}` | `{kind}` | {default} | {meanings[one.name]} |\n")
    table = "| field | type | default | meaning |\n|---|---|---|---|\n"
    return f"\n## {card.__name__}\n\n{inspect.getdoc(card)}\n\n{table}{''.join(rows)}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf8")
