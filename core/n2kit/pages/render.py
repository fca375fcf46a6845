"""The frame of every page: its style, and the parts that pages share."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Render a template's text, which may extend `base.html.j2` and import `parts.html.j2`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("n2kit.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.from_string(template).render(**values)


def style() -> str:
    """Return the style that every page has."""
    return "".join(template(name) for name in ("palette.css", "base.css", "parts.css"))


def template(name: str) -> str:
    """Return the text of a template that pages share.

    Raises:
        FileNotFoundError: there is none of this name.
    """
    return resources.files("n2kit.pages").joinpath("templates", name).read_text("utf8")
