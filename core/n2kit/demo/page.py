"""The demo's result as one self-contained HTML page."""

from __future__ import annotations

import base64
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.demo.photographs import HITS, Photographs
from n2kit.demo.result import ARMS, KS, MAIN, describe
from n2kit.pages import Example, Figure, figure_of, render
from n2kit.utils.files import write_text
from n2kit.utils.version import VERSION

if TYPE_CHECKING:
    from n2kit.demo.result import DemoResult


def write_page(result: DemoResult, facts: dict[str, dict[str, Any]], images: Path) -> None:
    """Write `result.page`, with its images inside."""

    def figure(item_id: str, *tags: str, score: float | None = None, right: bool = False) -> Figure:
        data = base64.b64encode((images / facts[item_id]["image"]).read_bytes()).decode()
        named = tuple(facts[item_id][tag] for tag in tags)
        return Figure(describe(result.items, item_id), f"data:image/webp;base64,{data}", named, score, right)

    examples = [
        {
            "query": figure(e.query, "lang", "author"),
            "target": describe(result.items, e.target),
            "found": [figure(i, "lang", score=score, right=i == e.target) for i, score in e.found],
            "ranks": [(ARMS[name], rank) for name, rank in e.ranks.items()],
            "rank": e.ranks[MAIN],
            "cross": facts[e.query]["lang"] != facts[e.target]["lang"],
        }
        for e in result.examples
    ]
    best = {g: [max(arm.recall[g][n] for arm in result.arms.values()) for n in range(len(KS))] for g in result.groups}
    arms = [
        {
            "title": arm.title,
            "main": name == MAIN,
            "groups": [
                [(100 * v, v == most) for v, most in zip(arm.recall[g], best[g], strict=True)] for g in result.groups
            ],
            "training": arm.training,
            "note": arm.note,
        }
        for name, arm in result.arms.items()
    ]
    source = resources.files("n2kit.demo").joinpath("page.html.j2").read_text("utf8")
    photographs = result.photographs and _shown(result.photographs)
    text = render(
        source, arms=arms, examples=examples, ks=KS, groups=result.groups, result=result, photographs=photographs, version=VERSION,
    )  # fmt: skip
    write_text(result.page, text)


def _shown(photographs: Photographs) -> dict[str, Any]:
    """Return what the page shows of photographs: the arms, and queries with what was found, each with its folder."""
    data = photographs.data

    def figure(item_id: str, *, score: float | None = None, right: bool = False) -> Figure:
        made = figure_of(data.items[item_id], data.images, score=score, right=right)
        return replace(made, tags=(data.category(item_id).replace("/", "/\u200b"),))  # where a line may break

    def row(example: Example) -> dict[str, Any]:
        found = [figure(i, score=score, right=i in example.right) for i, score in example.found]
        return {"query": figure(example.query), "found": found, "rank": example.rank, "right": len(example.right)}

    hits = {name: photographs.hits(arm) for name, arm in photographs.arms.items()}
    best = [max(of) for of in zip(*hits.values(), strict=True)]
    return {
        "arms": [
            {
                "title": arm.title,
                "main": name == MAIN,
                "hits": list(zip(hits[name], best, strict=True)),
                "training": arm.training,
            }
            for name, arm in photographs.arms.items()
        ],
        "hits": HITS,
        "of": photographs,
        "rows": {"drawn": list(map(row, photographs.drawn)), "farthest": list(map(row, photographs.farthest))},
    }
