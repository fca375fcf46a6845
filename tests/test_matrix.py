"""Any × any is a fact: every vision encoder with every language model and every connector, at their tiny."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from n2kit.testing.matrix import combinations, components_of, run, uncovered

README = (Path(__file__).parents[1] / "README.md").read_text("utf8")
# Why the plan may refuse a combination; anything else is a failure.
REASONS = (
    r"identity passes vision tokens on as they are: they are \d+ wide, and the language model reads \d+",
    r"pixel-shuffle .* grid",
    r"the connector is to average to \d+ tokens, and the vision encoder gives \d+",
    r"loss notellm has answers generated, and llm \S+ reads both ways",
    r"fusion \S+ reads a pooled image vector, and vision \S+ gives \d+ tokens and none",
)


@pytest.mark.slow
def test_any_by_any(record_property: Callable[[str, object], None]) -> None:
    names = components_of()
    assert uncovered(names, combinations(names)) == []  # every two values of any two kinds meet
    summary = run(names)
    record_property("n2kit", str(summary))  # printed at the end
    assert not summary.failed
    unnamed = [reason for reason in summary.refused if not any(re.search(r, reason) for r in REASONS)]
    assert not unnamed
    assert summary.passed >= 1000
    assert summary.passed + summary.refused.total() == len(list(combinations(names)))
    sizes = " × ".join(str(len(names[kind])) for kind in ("vision", "llm", "connector"))
    assert f"{sizes}: **{summary.passed:,} combinations**" in README
