"""Pairs → training batches: all left items, then all right items, and which rows are no negatives of each other."""

from __future__ import annotations

import math
from collections import Counter
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
    """Called with pairs of ids; gives `batch` (2B items), `exclude` [2B, 2B] bool, `ids`, and what a loss may want.

    That is `grades` [B], how alike the two items of a pair are, and `log_q` [2B], the log of an item's share of all ends of pairs.
    """

    items: Items
    pairs: Pairs
    reader: Reader
    graph: dict[str, set[str]] = field(init=False)
    log_q: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.graph = self.pairs.graph()
        ends = Counter(i for pair in self.pairs for i in pair)
        self.log_q = {i: math.log(count / ends.total()) for i, count in ends.items()}

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
                ids = [i.id for i in items]
                return {"batch": batch, "exclude": self.exclude(items), "ids": ids} | self.facts(wanted, ids)
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

    def facts(self, pairs: Sequence[tuple[str, str]], ids: Sequence[str]) -> dict[str, Tensor]:
        """What `n2kit.parts.Loss.wants` can name, for the pairs of a batch and the ids of its items."""
        grades = torch.tensor([self.pairs.grade(pair) for pair in pairs])
        return {"grades": grades, "log_q": torch.tensor([self.log_q[i] for i in ids])}
