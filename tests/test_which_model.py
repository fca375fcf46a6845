"""docs/which-model.md is what the catalogue and the plan say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from n2kit.plugins.catalogue import default_catalogue

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "which-model.md").read_text("utf8")


def test_the_tables_are_the_catalogue_s() -> None:
    """`python docs/make_which_model.py` makes them anew."""
    assert runpy.run_path(str(DOCS / "make_which_model.py"))["page"](PAGE) == PAGE


def test_every_name_on_the_page_can_be_written() -> None:
    catalogue = default_catalogue()
    for reference in set(re.findall(r"`(?:--llm |--vision )?([\w.-]+:[\w./-]+)`", PAGE)) - {"hf:org/name"}:
        name = reference.partition(":")[0]
        kinds = [kind for kind in ("llm", "vision") if name in catalogue.names(kind)]  # type: ignore[arg-type]
        assert kinds, reference
        if name not in ("timm", "open_clip"):
            assert catalogue.resolve(kinds[0], reference).card().parameters  # type: ignore[arg-type, union-attr]
