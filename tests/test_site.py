"""The pages of documentation: every link leads somewhere, the navigation has all of them, what is made is up to date."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])
LINK = re.compile(r"\]\(([^()\s]+)\)")


def text_of(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf8"), flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """Name a page's headings as a site does."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.M)
    return {re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(text_of(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = page if not path else (page.parent / path).resolve()
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_navigation_has_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf8")
    assert yaml.safe_load(text)["theme"]["font"] is False
    named = set(re.findall(r"([\w-]+\.md)$", text, re.M))
    assert named == {page.name for page in PAGES} - {"README.md"} | {"index.md"}


def test_the_chart_shows_the_tables() -> None:
    """`python docs/make_chart.py` draws it anew."""
    chart = runpy.run_path(str(ROOT / "docs" / "make_chart.py"))["chart"]
    assert (ROOT / "docs" / "findings.svg").read_text("utf8") == chart(
        (ROOT / "docs" / "results-tables.md").read_text("utf8")
    )


@pytest.mark.skipif(find_spec("zensical") is None, reason="n2kit[site] is not installed")
def test_the_site_is_built_and_fetches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "docs/make_site.py", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    assert (tmp_path / "site" / "search.json").is_file()
