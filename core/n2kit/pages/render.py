"""The frame of every page: its style, and the parts that pages share."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

STYLES = ("palette.css", "base.css", "parts.css")


def render(template: str, **values: Any) -> str:
    """Render a template's text, which may extend `base.html.j2` and import `parts.html.j2`."""
    return environment().from_string(template).render(**values)


def environment(package: str | None = None) -> jinja2.Environment:
    """Make what renders the templates that pages share, and those of a package's own folder `templates`."""
    loaders = [jinja2.PackageLoader(name) for name in (package, "n2kit.pages") if name is not None]
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    made.filters["soft"] = _breakable
    return made


def style() -> str:
    """Return the style that every page has."""
    folder = resources.files("n2kit.pages").joinpath("templates")
    return "".join(folder.joinpath(name).read_text("utf8") for name in STYLES)


def _breakable(text: str) -> Markup:
    """Mark a name so that it may break after an underscore."""
    return escape(text).replace("_", Markup("_<wbr>"))
