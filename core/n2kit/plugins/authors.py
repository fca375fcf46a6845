"""Where the author of a plug-in can be reached, by the metadata of its distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata

TRACKERS = ("issues", "issue tracker", "bug tracker", "bugs", "tracker", "repository", "source", "homepage")


def author_of(distribution: str) -> str | None:
    """Return where a distribution's author can be reached: its issues, an address, or a name."""
    try:
        facts = metadata(distribution)
    except PackageNotFoundError:
        return None
    urls = (text.partition(",") for text in facts.get_all("Project-URL") or [])
    places = {label.strip().lower(): url.strip() for label, _, url in urls}
    tracker = next((places[label] for label in TRACKERS if label in places), None)
    named = (facts[field] for field in ("Author-email", "Author", "Home-page") if field in facts)
    return tracker or next(named, None)


def advice(distribution: str) -> str:
    """Write what to do about a distribution's fault."""
    author = author_of(distribution)
    return f"n2kit plugins check {distribution}" + (f"; its author: {author}" if author else "")


def failure(plugin: str, error: BaseException) -> str:
    """Write in a line what a hook of `distribution/name` raised, and who can be told."""
    author = author_of(plugin.partition("/")[0])
    reason = f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")
    return reason + (f"; its author: {author}" if author else "")
