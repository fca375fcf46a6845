"""A page of queries and their nearest items, on a user's own data: drawn queries first, then where the right item is farthest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np

from n2kit.data.items import Item, Items
from n2kit.errors import BadInput, counted
from n2kit.pages.render import render
from n2kit.pages.thumbnails import data_uri, small_copy
from n2kit.utils.files import ensure_writable_file, write_text
from n2kit.utils.version import VERSION

MARK = '<meta name="generator" content="n2kit">'
SIDE = 144  # pixels of a picture, twice what the page shows
LABEL = 80  # characters of an item's text
DRAWN, FARTHEST, FOUND = 12, 6, 6


@dataclass(frozen=True)
class Figure:
    """An item on a page: its text, and its picture as a data URI, empty where it has none."""

    text: str
    src: str = ""
    tags: tuple[str, ...] = ()
    score: float | None = None
    right: bool = False


@dataclass(frozen=True)
class Example:
    """A query and what was found, each with its score; `right` are the items that belong to it, `rank` the place of the first."""

    query: str
    found: list[tuple[str, float]]
    right: frozenset[str] = frozenset()
    rank: int | None = None


def label(item: Item) -> str:
    """Name an item for people: its title, else its topics, its text, or its id."""
    text = item.title or ", ".join(item.topics) or item.content or item.id
    return text if len(text) <= LABEL else f"{text[: LABEL - 1]}…"


def figure_of(item: Item, images: Path | None, *, score: float | None = None, right: bool = False) -> Figure:
    """Make a figure of an item; a picture that cannot be read is left out."""
    return Figure(label(item), data_uri(small_copy(item, images, SIDE)), (item.id,), score, right)


def ensure_page(file: Path, read: Iterable[Path | None] = ()) -> None:
    """Check that a page may be written: it is not there, or a page of n2kit, which is replaced.

    Raises:
        BadInput: it is anything else, or one of the files `read`.
    """
    ensure_writable_file(file, read)
    if file.exists():
        with file.open("rb") as old:
            if MARK.encode() not in old.read(1000):
                raise BadInput(f"{file} exists, and is no page of n2kit", "give another --html, or move it away")


def nearest(
    ids: Sequence[str], vectors: np.ndarray, query: int, right: frozenset[str] = frozenset()
) -> Example:  # fmt: skip
    """Find the nearest other items of the row `query` of vectors [n, d], and the rank of the first that is right."""
    scores = vectors @ vectors[query]
    scores[query] = -np.inf
    most = min(FOUND, len(ids) - 1)
    top = np.argpartition(-scores, most - 1)[:most] if most else np.empty(0, np.int64)
    found = [(ids[n], float(scores[n])) for n in top[np.argsort(-scores[top], kind="stable")]]
    own = [scores[n] for n, item in enumerate(ids) if item in right] if right else []
    return Example(ids[query], found, right, int((scores > max(own)).sum()) + 1 if own else None)


def draw_examples(
    ids: Sequence[str], vectors: np.ndarray, pairs: Iterable[tuple[str, str]] | None, seed: int
) -> tuple[list[Example], list[Example]]:
    """Draw queries by the seed: first items of `pairs` where there are some, else of all; and those whose right item is farthest.

    vectors [n, d] are of unit length, in the order of `ids`.
    """
    place = {item: n for n, item in enumerate(ids)}
    targets: dict[str, set[str]] = {}
    for query, target in pairs or ():
        if query in place and target in place and query != target:
            targets.setdefault(query, set()).add(target)
    candidates = sorted(targets) or list(ids)
    drawn = np.random.default_rng(seed).permutation(len(candidates))[: 4 * DRAWN if targets else DRAWN]
    examples = [
        nearest(ids, vectors, place[candidates[n]], frozenset(targets.get(candidates[n], ()))) for n in drawn.tolist()
    ]
    rest = [one for one in examples[DRAWN:] if one.rank is not None and one.rank > FOUND]
    return examples[:DRAWN], sorted(rest, key=lambda one: -(one.rank or 0))[:FARTHEST]


def write_neighbours(
    file: Path,
    items: Items,
    images: Path | None,
    examples: Sequence[Example],
    farthest: Sequence[Example] = (),
    *,
    sentences: Sequence[str] = (),
    seed: int | None = None,
    new: tuple[Item, Path | None] | None = None,
) -> None:
    """Write the page of examples, with small copies of the pictures inside.

    Args:
        sentences: what stands on top, such as the result of an evaluation.
        seed: of the draw of the queries; None: they were asked for.
        new: a query that is none of `items`, and the folder of its picture.
    """

    def shown(example: Example) -> dict[str, object]:
        found = [figure(i, score=score, right=i in example.right) for i, score in example.found]
        first = next((label(item_of(i)) for i in sorted(example.right)), None)
        return {"query": figure(example.query), "found": found, "rank": example.rank, "target": first}

    def item_of(item_id: str) -> Item:
        if new and item_id == new[0].id:
            return new[0]
        return items[item_id] if item_id in items else Item(item_id)

    def figure(item_id: str, *, score: float | None = None, right: bool = False) -> Figure:
        if item_id not in made:
            made[item_id] = figure_of(item_of(item_id), new[1] if new and item_id == new[0].id else images)
        return replace(made[item_id], score=score, right=right)

    made: dict[str, Figure] = {}
    parts = {"examples": list(map(shown, examples)), "farthest": list(map(shown, farthest))}
    unread = sum(1 for i, one in made.items() if item_of(i).image and not one.src)
    notes = (
        [f"{counted(unread, 'picture')} could not be read, and {'is' if unread == 1 else 'are'} missing here."]
        if unread
        else []
    )
    source = resources.files("n2kit.pages").joinpath("templates/neighbours.html.j2").read_text("utf8")
    write_text(file, render(source, **parts, sentences=sentences, notes=notes, seed=seed, version=VERSION))
