"""Pairs → training batches: all left items, then all right items, and which rows are no negatives of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from n2kit.data.batch import Reader
from n2kit.data.items import Item, Items
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput

FEWEST = 2  # pairs a step: with one there is no negative


@dataclass
class PairCollator:
    """Called with pairs of ids; gives `batch` (2B items), `exclude` [2B, 2B] bool, `ids`."""

    items: Items
    pairs: Pairs
    reader: Reader
    graph: dict[str, set[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.graph = self.pairs.graph()

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Pairs whose pictures cannot be read are left out; so that there is a negative, two pairs always remain.

        Raises:
            BadInput: policy `error` and an item that cannot be read, or no two readable pairs in all of the training set.
        """
        wanted, spare = list(pairs), iter(self.pairs)
        while True:
            items = [self.items[a] for a, _ in wanted] + [self.items[b] for _, b in wanted]
            batch, kept = self.reader(items)
            if batch is not None and len(kept) == len(items) and len(wanted) >= FEWEST:
                return {"batch": batch, "exclude": self.exclude(items), "ids": [i.id for i in items]}
            there = {items[n].id for n in kept}
            wanted = [p for p in wanted if there.issuperset(p)]
            while len(wanted) < FEWEST:
                extra = next(spare, None)
                if extra is None:
                    raise BadInput("no two pairs can be read", "; ".join(list(self.reader.bad.values())[:3]))
                if extra not in wanted:
                    wanted.append(extra)

    def exclude(self, items: Sequence[Item]) -> Tensor:
        """[n, n] bool: the same item, and known positives in either direction."""
        ids = [i.id for i in items]
        rows = [[a == b or b in self.graph.get(a, ()) for b in ids] for a in ids]
        return torch.tensor(rows, dtype=torch.bool)
