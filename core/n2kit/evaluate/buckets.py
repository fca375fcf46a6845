"""Subsets of the pairs on which a model may be better or worse: by text length, what an item lacks, category, history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from n2kit.errors import BadInput, counted

if TYPE_CHECKING:
    from n2kit.data.items import Item, Items

QUARTER = 0.25
Number = Callable[["Item"], int]


class PairBucket(NamedTuple):
    """A subset of the pairs. `rows`: their positions; `rule`: the condition that they fulfil, in words."""

    name: str
    rule: str
    rows: np.ndarray


@dataclass(frozen=True)
class Side:
    """The queries or the targets of the pairs, one item a pair."""

    name: str
    items: list[Item]

    def bucket(self, name: str, rule: str, keep: Callable[[Item], bool]) -> PairBucket:
        rows = np.flatnonzero([keep(item) for item in self.items])
        return PairBucket(f"{self.name} {name}", rule, rows)

    def quarters(
        self, low: str, high: str, unit: str, number: Number, keep: Callable[[Item], bool]
    ) -> list[PairBucket]:
        """Make buckets of the lowest and the highest quarter of the distinct items that `keep` takes, ties included.

        Nothing where the two are alike.
        """
        numbers = [number(item) for item in {i.id: i for i in self.items if keep(i)}.values()]
        if not numbers:
            return []
        few = int(np.quantile(numbers, QUARTER, method="lower"))
        many = int(np.quantile(numbers, 1 - QUARTER, method="higher"))
        if few == many:
            return []
        lowest, highest = (
            round(100 * float(np.mean(part))) for part in (np.array(numbers) <= few, np.array(numbers) >= many)
        )
        at_most = f"at most {few} {unit}: the lowest {lowest} % of these items"
        at_least = f"at least {many} {unit}: the highest {highest} % of these items"
        return [
            self.bucket(low, at_most, lambda i: keep(i) and number(i) <= few),
            self.bucket(high, at_least, lambda i: keep(i) and number(i) >= many),
        ]


def buckets(
    pairs: Sequence[tuple[str, str]], items: Items, train_pairs: Iterable[tuple[str, str]] | None = None
) -> list[PairBucket]:
    """Make all buckets that are not empty. Those of history (cold, popularity) need the pairs that the model was trained on.

    Raises:
        BadInput: an item of the pairs that is not in `items`.
    """
    if unknown := [i for pair in pairs for i in pair if i not in items]:
        what = f"no item for {counted(len(unknown), 'id')} of the pairs, the first is {unknown[0]!r}"
        raise BadInput(what, "give the items that were embedded")
    seen = None if train_pairs is None else Counter(i for pair in train_pairs for i in pair)
    sides = [Side(name, [items[pair[n]] for pair in pairs]) for n, name in enumerate(("query", "target"))]
    found = [bucket for side in sides for bucket in _of_content(side)]
    if seen is not None:
        found += [bucket for side in sides for bucket in _of_history(side, seen)]
    categories = Counter(item.category for item in sides[0].items if item.category)
    if len(categories) > 1:
        for name, _ in sorted(categories.items(), key=lambda c: (-c[1], c[0])):
            rule = f"the query's category is {name!r}"
            found.append(sides[0].bucket(f"category {name}", rule, lambda i, name=name: i.category == name))  # type: ignore[misc]
    return [bucket for bucket in found if len(bucket.rows)]


def text_length(item: Item) -> int:
    """Count the characters of title, topics and content."""
    return len(item.title) + len(item.content) + sum(map(len, item.topics))


def _of_content(side: Side) -> Iterator[PairBucket]:
    yield from side.quarters("text short", "text long", "characters", text_length, lambda i: True)
    yield side.bucket("without image", "no image in the items file", lambda i: not i.image)
    yield side.bucket("without text", "no title, topics or content", lambda i: not i.has_text)


def _of_history(side: Side, seen: Counter[str]) -> Iterator[PairBucket]:
    yield side.bucket("cold", "in no training pair", lambda i: not seen[i.id])
    yield side.bucket("warm", "in a training pair", lambda i: seen[i.id] > 0)
    unit = "training pairs (of warm items)"
    yield from side.quarters("rare", "popular", unit, lambda i: seen[i.id], lambda i: seen[i.id] > 0)
