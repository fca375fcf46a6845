"""Any × any is a fact: every vision encoder with every language model and every connector, at their tiny.

By default each vision encoder × LLM is joined once, so that all values of any two kinds meet; with `-m full` each connector too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from n2kit.planning.planner import make_plan
from n2kit.testing.matrix import Combination, combinations, components_of, cover, is_accepted, run, uncovered

README = (Path(__file__).parents[1] / "README.md").read_text("utf8")
# Why the plan may refuse a combination; anything else is a failure.
REASONS = (
    r"identity passes vision tokens on as they are: they are \d+ wide, and the language model reads \d+",
    r"pixel-shuffle .* grid",
    r"the connector is to average to \d+ tokens, and the vision encoder gives \d+",
    r"loss notellm has answers generated, and llm \S+ reads both ways",
    r"fusion \S+ reads a pooled image vector, and vision \S+ gives \d+ tokens and none",
)
NAMES = components_of()
Say = Callable[[str, object], None]


@functools.cache
def covering() -> list[Combination]:
    return cover(combinations(NAMES))


@pytest.mark.slow
@pytest.mark.parametrize("vision", NAMES["vision"])
def test_a_vision_encoder_works_with_every_language_model(vision: str) -> None:
    summary = run([combination for combination in covering() if combination.vision == vision])
    assert not summary.failed
    assert summary.passed == len(NAMES["llm"])


@functools.cache
def refusals() -> dict[Combination, str]:
    """Return what the plan says against every combination: nothing of those that it accepts."""
    found = {combination: make_plan(combination.recipe()).refusals for combination in combinations(NAMES)}
    return {combination: problems[0].message if problems else "" for combination, problems in found.items()}


@pytest.mark.slow
@pytest.mark.xdist_group("plans")
def test_all_values_of_any_two_kinds_meet_unless_the_plan_refuses_it() -> None:
    assert uncovered(NAMES, refusals()) == []
    held = [combination for combination, reason in refusals().items() if not reason]
    never = uncovered(NAMES, held)  # whatever stands beside them
    assert uncovered(NAMES, covering()) == never
    kinds = {tuple(value.split()[0] for value in two) for two in never}
    assert kinds <= {("vision", "connector"), ("llm", "connector"), ("llm", "loss")}
    sizes = " × ".join(str(len(NAMES[kind])) for kind in ("vision", "llm", "connector"))
    assert f"{sizes}: **{len(held):,} combinations**" in README


@pytest.mark.slow
@pytest.mark.xdist_group("plans")
def test_what_the_plan_refuses_has_one_of_these_reasons() -> None:
    refused = [reason for reason in refusals().values() if reason]
    assert refused
    assert not [reason for reason in refused if not any(re.search(r, reason) for r in REASONS)]


@pytest.mark.full
@pytest.mark.parametrize("vision", NAMES["vision"])
def test_a_vision_encoder_works_with_every_language_model_and_connector(vision: str, record_property: Say) -> None:
    tried = [combination for combination in combinations(NAMES) if combination.vision == vision]
    summary = run(tried)
    record_property("n2kit", f"{vision}: {summary}")  # printed at the end
    assert not summary.failed
    assert summary.passed == sum(is_accepted(combination) for combination in tried)
    assert summary.passed + summary.refused.total() == len(tried)
