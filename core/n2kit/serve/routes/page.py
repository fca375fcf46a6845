"""The page to look at a catalogue: files of the package, and nothing from elsewhere."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Response

from n2kit.pages.render import render, style
from n2kit.serve.problems import Problem
from n2kit.utils.version import VERSION

router = APIRouter(include_in_schema=False)
SCRIPTS = ("app.js", "api.js", "cards.js", "keys.js", "map.js", "picture.js")
TYPES = {**dict.fromkeys(SCRIPTS, "text/javascript"), "page.css": "text/css", "icon.svg": "image/svg+xml"}
POLICY = "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@router.get("/")
async def page() -> Response:
    """Show the page."""
    source = _file("index.html.j2").decode()
    return Response(render(source, version=VERSION), media_type="text/html", headers=HEADERS)


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Give a file of the page."""
    if name == "base.css":
        return Response(style(), media_type="text/css", headers=HEADERS)
    if name not in TYPES:
        raise Problem(404, "no such file")
    return Response(_file(name), media_type=TYPES[name], headers=HEADERS)


@router.get("/favicon.ico")
async def icon() -> Response:
    """Give the page's icon."""
    return await static("icon.svg")


def _file(name: str) -> bytes:
    return resources.files("n2kit.serve").joinpath("page", name).read_bytes()
