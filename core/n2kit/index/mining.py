"""Hard negatives from an index: items that a model finds similar to a query, and that do not belong to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from n2kit.data.pairs import Pair, Pairs
from n2kit.errors import BadInput
from n2kit.index.folder import StoredIndex

QUERIES = 256  # searched at a time
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Window:
    """The range of ranks and scores that negatives are taken from.

    first, last: ranks, from 1, among all items but the query and its known positives: the nearest ones may belong to it unseen.
    margin: how far a negative's score (cosine) has to be below that of the pair's own second item.
    count: the most of a pair; the nearest are taken.
    """

    first: int = 10
    last: int = 100
    margin: float = 0.05
    count: int = 3

    def __post_init__(self) -> None:
        """Check ranks and margin.

        Raises:
            BadInput: the ranks are no range from 1 on, or the margin is no difference of two cosines.
        """
        if not 1 <= self.first <= self.last:
            raise BadInput(f"ranks {self.first}:{self.last} are no window", "from 1, the first no larger: 10:100")
        if not -2 <= self.margin <= 2:
            raise BadInput(f"margin {self.margin} is no difference of two cosines", "for example 0.05")


def mine(
    stored: StoredIndex, pairs: Pairs, window: Window, progress: Progress | None = None, *, known: Sequence[Pairs] = ()
) -> Pairs:
    """Find hard negatives for the first item of each pair, in place of any that the pairs had.

    The same index and pairs give the same negatives: equal scores stand in the order of the index. Pairs graded 0 or less get none.

    Args:
        pairs: of items that are in the index.
        progress: called with (queries done, queries).
        known: further positives, of validation and test for instance, none of which may become a negative.

    Raises:
        BadInput: no pair has anything in the window.
    """
    graph = Pairs([pair for some in (pairs, *known) for pair in some if some.grade(pair) > 0]).graph()
    wanted: dict[str, list[Pair]] = {}
    for pair in dict.fromkeys(pairs):
        if pairs.grade(pair) > 0:
            wanted.setdefault(pair[0], []).append(pair)
    found: dict[Pair, tuple[str, ...]] = {}
    queries = list(wanted)
    for start in range(0, len(queries), QUERIES):
        some = queries[start : start + QUERIES]
        deep = window.last + 1 + max(len(graph[q]) for q in some)
        for query, vector, near in _neighbours(stored, some, deep):
            others = [(i, score) for i, score in near if i != query and i not in graph[query]]
            there = others[window.first - 1 : window.last]
            for pair in wanted[query]:
                most = float(vector @ _vector(stored, pair[1])) - window.margin
                if ids := tuple(i for i, score in there if score <= most)[: window.count]:
                    found[pair] = ids
        if progress:
            progress(min(start + QUERIES, len(queries)), len(queries))
    if not found:
        what = f"no pair has an item of ranks {window.first} to {window.last} that scores {window.margin:g} below its own second one"
        raise BadInput(what, "a wider --ranks, or a smaller --margin")
    return replace(pairs, negatives={pair: found[pair] for pair in dict.fromkeys(pairs) if pair in found})


def _neighbours(
    stored: StoredIndex, queries: list[str], k: int
) -> Iterator[tuple[str, np.ndarray, list[tuple[str, float]]]]:
    """Yield each query with its vector and its k nearest items, best first; of equal scores the first in the index."""
    vectors = np.stack([_vector(stored, query) for query in queries])
    scores, rows = stored.index.search(vectors, min(k, len(stored.ids)))
    for query, vector, own, places in zip(queries, vectors, scores, rows, strict=True):
        order = [n for n in np.lexsort((places, -own)) if places[n] >= 0]
        yield query, vector, [(stored.ids[places[n]], float(own[n])) for n in order]


def _vector(stored: StoredIndex, item: str) -> np.ndarray:
    return stored.index.vector(stored.position[item])
