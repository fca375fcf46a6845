"""The README.md of a bundle: use, parts, training, and warnings."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import yaml

from n2kit.bundle.manifest import Manifest
from n2kit.recipe.settings import Recipe
from n2kit.recipe.variants import SPECS
from n2kit.utils.version import VERSION

TEMPLATE = "readme.md.j2"
TAGS = ["n2kit", "item-embeddings", "multimodal", "item-to-item", "recommendation", "sentence-similarity"]
SPECIAL = re.compile(r"[\\`*_{}\[\]<>()#!|~&$]")  # what Markdown reads as its own
BACKBONES = ("llm", "vision")


def readme(manifest: Manifest, recipe: Recipe, sizes: dict[str, int]) -> str:
    """Render the text, with the front matter that model hubs read.

    Args:
        sizes: part → its number of parameters.
    """
    import jinja2  # to read a bundle it is not needed

    parts = {kind: _part(kind, manifest, recipe, sizes) for kind in manifest.parts}
    source = resources.files("n2kit.bundle").joinpath(TEMPLATE).read_text("utf8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"text": _text, "code": _code}
    return environment.from_string(source).render(
        front=yaml.safe_dump(_front(manifest), sort_keys=False, allow_unicode=True).strip(),
        title=" + ".join(parts[k]["reference"] for k in ("llm", "vision", "connector", "fusion") if k in parts),
        manifest=manifest,
        recipe=recipe,
        variant=SPECS[recipe.variant],
        parts=parts,
        trained=manifest.trained,
        warnings=_warnings(manifest),
        version=VERSION,
    )


def _text(value: object) -> str:
    """Escape a name for Markdown, in a table too: it is shown as it is, whatever characters it has."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(str(value).split()))


def _code(value: object) -> str:
    """Quote a name as code in a table: nothing is escaped there but the bar, and no backtick can be shown."""
    return f"`{' '.join(str(value).split()).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _part(kind: str, manifest: Manifest, recipe: Recipe, sizes: dict[str, int]) -> dict[str, Any]:
    facts, source = manifest.parts[kind], manifest.sources.get(kind)
    return {
        "reference": facts["reference"],
        "weights": source.weights if source else facts["weights"],
        "licence": facts.get("licence") or ("not stated" if facts["weights"] != "random" else ""),
        "parameters": sizes[kind],
        "tune": getattr(getattr(recipe, kind), "tune", "full"),
        "stored": "by reference" if source else "here",
        "package": f"{facts['distribution']} {facts['version']}",
    }


def _front(manifest: Manifest) -> dict[str, Any]:
    facts = [manifest.parts[kind] for kind in BACKBONES if kind in manifest.parts]
    licences = sorted({str(f["licence"]) for f in facts if f.get("licence")})
    bases = [f["weights"].removeprefix("hf:").partition("@")[0] for f in facts if f["weights"].startswith("hf:")]
    front: dict[str, Any] = {"library_name": "n2kit", "pipeline_tag": "sentence-similarity", "tags": TAGS}
    if licences:  # hubs know one; the strictest of several is for people to find
        front |= {"license": licences[0]} if len(licences) == 1 else {"license": "other", "license_name": "several"}
    return front | ({"base_model": list(dict.fromkeys(bases))} if bases else {})


def _warnings(manifest: Manifest) -> list[str]:
    found = []
    for kind in BACKBONES:
        facts, source = manifest.parts.get(kind), manifest.sources.get(kind)
        if facts and facts["weights"] == "random":
            found.append(f"The {kind}'s weights were random to begin with: a model for trying things, not for use.")
        elif facts and not facts.get("licence"):
            found.append(
                f"The licence of the {kind} ({_text(facts['weights'])}) is not known to n2kit: see to it yourself."
            )
        if source:
            found.append(
                f"The {kind} is not in this folder but at {_code(source.weights)}, and loading checks that it is the same still; "
                "`n2kit pack` makes a copy that needs nothing else."
            )
    if not manifest.trained:
        found.append("It has not been trained: connector and fusion are random, and its vectors mean little.")
    elif fitted := manifest.trained.get("fit"):
        if fitted.get("reason"):
            found.append(
                f"Nothing was chosen when it was fitted ({_text(fitted['reason'])}): how good it is, nobody has measured here."
            )
    elif not manifest.trained.get("recall"):
        found.append("It was trained without validation pairs: how good it is, nobody has measured here.")
    return found
