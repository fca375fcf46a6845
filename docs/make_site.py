"""Build the documentation site: `python docs/make_site.py OUT`. It needs `n2kit[site]`, and no network.

The pages are docs/*.md; README, CONTRIBUTING and CHANGELOG lie beside the code and are staged among them. Links to files that are no
page become plain text. The build is strict: a link that leads nowhere ends it, and so does a page that fetches anything from elsewhere.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
PICTURES = (".png", ".svg", ".webp")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
# What a browser fetches by itself; a link that a reader follows is no such thing.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
    r"|<link\b[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect)[^>]*//"
)


def main(out: Path) -> None:
    """Stage, build, check."""
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        stage(staged / "pages")
        shutil.copy(ROOT / "mkdocs.yml", staged)
        built = subprocess.run(
            [sys.executable, "-m", "zensical", "build", "--strict"], cwd=staged, check=False, stderr=subprocess.PIPE
        )
        if built.returncode:
            said = re.sub(r"\x1b\[[\d;]*m", "", built.stderr.decode()).partition("Traceback")[0]
            raise SystemExit(
                said
                + "error: the site has links that lead nowhere, or zensical is not installed: pip install -e '.[site]'"
            )
        if fetching := [
            file.name for file in (staged / "site").rglob("*.html") if FETCHED.search(file.read_text("utf8"))
        ]:
            raise SystemExit(f"error: {', '.join(fetching)}: something is fetched from elsewhere")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(staged / "site", out)
    print(out / "index.html")


def stage(pages: Path) -> None:
    """Copy all pages and pictures into one folder, with their links as they are there."""
    pages.mkdir()
    for source in [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in OUTSIDE)]:
        text = LINK.sub(lambda found, source=source: _link(found, source), source.read_text("utf8"))
        (pages / OUTSIDE.get(source.name, source.name)).write_text(text, "utf8")
    for picture in [file for file in (ROOT / "docs").iterdir() if file.suffix in PICTURES]:
        shutil.copy(picture, pages)


def _link(found: re.Match[str], source: Path) -> str:
    """Return a link as it is in the staged folder; the text alone, where it leads to a file that is no page."""
    picture, text, target = found.groups()
    path, mark, anchor = target.partition("#")
    if re.match(r"[a-z]+:", target) or not path:
        return found[0]
    file = (source.parent / path).resolve()
    if not file.exists():
        return found[0]  # the build will say so
    if file.parent == ROOT / "docs" and file.suffix in (".md", *PICTURES):
        return f"{picture}[{text}]({file.name}{mark}{anchor})"
    if file.parent == ROOT and file.name in OUTSIDE:
        return f"{picture}[{text}]({OUTSIDE[file.name]}{mark}{anchor})"
    return text


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "site").resolve())
