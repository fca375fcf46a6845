"""Rules for lists of neighbours: who may stand in a list, and how many of a kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from n2kit.errors import BadInput, suggest
from n2kit.index.folder import StoredIndex


@dataclass(frozen=True)
class Rules:
    """Rules for neighbours, with values of columns that the index remembers; an empty value is nobody's.

    exclude_same: of a query's neighbours, those that have its value go. cap: a column and how many of one value a list may hold.
    """

    exclude_same: str | None = None
    cap: tuple[str, int] | None = None

    def __bool__(self) -> bool:
        return self.exclude_same is not None or self.cap is not None


class Kept:
    """The rules for an index, with the columns as numbers [n]; -1 for no value."""

    def __init__(self, stored: StoredIndex, rules: Rules) -> None:
        self.same = None if rules.exclude_same is None else codes(stored, rules.exclude_same)
        self.capped = None if rules.cap is None else codes(stored, rules.cap[0])
        self.most = rules.cap[1] if rules.cap else 0

    def __call__(self, query: int, rows: np.ndarray) -> np.ndarray:
        """Choose which of a query's neighbours [k], best first, stand in its list: true or false, [k]."""
        keep: np.ndarray = (rows >= 0) & (rows != query)
        if self.same is not None:
            keep &= (self.same[rows] != self.same[query]) | (self.same[query] < 0)
        if self.capped is not None:
            keep &= _first(np.where(keep, self.capped[rows], -1), self.most)
        return keep


def codes(stored: StoredIndex, column: str) -> np.ndarray:
    """Number the values of a column in the order of the index: [n]; -1 for no value.

    Raises:
        BadInput: the index does not remember it.
    """
    columns = {} if stored.facts is None else stored.facts.of(stored.ids)
    if column not in columns:
        hint = suggest(column, columns) or (
            f"columns: {', '.join(columns)}" if columns else "n2kit index --items remembers them"
        )
        raise BadInput(f"the index remembers no column {column}", hint)
    values = columns[column]
    missing = np.isnan(values) if values.dtype.kind == "f" else values == ""
    numbers = np.unique(values.astype(str), return_inverse=True)[1].astype(np.int64)
    return np.where(missing, -1, numbers)


def _first(values: np.ndarray, most: int) -> np.ndarray:
    """Tell of each value whether it is among the first `most` of its kind; -1 always is."""
    seen: dict[int, int] = {}
    keep = np.ones(len(values), bool)
    for n, value in enumerate(values.tolist()):
        if value >= 0:
            seen[value] = seen.get(value, 0) + 1
            keep[n] = seen[value] <= most
    return keep
