"""Pairs → training batches: which distinct items they have, and which rows are no negatives of each other."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from n2kit.data.batch import Reader
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput
from n2kit.train import ranks
from n2kit.train.draws import Tasks

FEWEST = 2  # pairs a step: with one there is no negative


@dataclass
class PairCollator:
    """Called with B pairs of ids; gives the rows of a loss, all left items and then all right items, in five values.

    `batch`: the distinct items of the pairs, U ≤ 2B, each to be encoded once. `places` [2B]: the item of each row. `ids`: its id.
    `exclude` [2B, 2B] bool, and what a loss may want: `grades` [B], how alike the two items of a pair are, and `log_q` [2B],
    the log of an item's share of all ends of pairs.

    Args:
        fewest: pairs that a batch must have.
        tasks: what items are asked for behind their vector, for a loss that generates.
    """

    items: Items
    pairs: Pairs
    reader: Reader
    fewest: int = FEWEST
    tasks: Tasks | None = None
    graph: dict[str, set[str]] = field(init=False)
    log_q: dict[str, float] = field(init=False)
    number: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.graph = self.pairs.graph()
        ends = Counter(i for pair in self.pairs for i in pair)
        self.number = {item.id: n for n, item in enumerate(self.items.items)}
        self.log_q = {i: math.log(count / ends.total()) for i, count in ends.items()}

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Pairs whose pictures cannot be read are left out; so that there is a negative, two pairs always remain.

        Raises:
            BadInput: policy `error` and an item that cannot be read, or no two readable pairs in all of the training set.
        """
        wanted, spare = list(pairs), iter(self.pairs)
        while True:
            ids = [a for a, _ in wanted] + [b for _, b in wanted]
            place = {item: n for n, item in enumerate(dict.fromkeys(ids))}
            read = [self.items[i] for i in place]
            batch, kept = self.reader(read, None if self.tasks is None else list(map(self.tasks, read)))
            if batch is not None and len(kept) == len(place) and len(wanted) >= self.fewest:
                places = torch.tensor([place[i] for i in ids])
                return {"batch": batch, "places": places, "ids": ids} | self.facts(ids)
            names = list(place)
            there = {names[n] for n in kept}
            wanted = [p for p in wanted if there.issuperset(p)]
            while len(wanted) < self.fewest:
                extra = next(spare, None)
                if extra is None:
                    raise BadInput("no two pairs can be read", "; ".join(list(self.reader.bad.values())[:3]))
                if extra not in wanted:
                    wanted.append(extra)

    def of_all_processes(self, batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        """`batch` with `ids`, `exclude` and facts of the rows of all processes, and their `order` (see `TrainStep`)."""
        if ranks.count() == 1:
            return batch
        own = torch.tensor([self.number[i] for i in batch["ids"]], device=device)
        parts = ranks.rows_of_all(own)
        order = ranks.lefts_first([len(part) for part in parts])
        ids = [self.items.items[n].id for n in torch.cat(parts).cpu()[order].tolist()]
        return batch | {"ids": ids, "order": order} | self.facts(ids)

    def facts(self, ids: Sequence[str]) -> dict[str, Tensor]:
        """`exclude`, and what `n2kit.parts.Loss.wants` can name, for the ids of a loss's rows."""
        half = len(ids) // 2
        grades = [self.pairs.grade(pair) for pair in zip(ids[:half], ids[half:], strict=True)]
        log_q = torch.tensor([self.log_q[i] for i in ids])
        return {"exclude": self.exclude(ids), "grades": torch.tensor(grades), "log_q": log_q}

    def exclude(self, ids: Sequence[str]) -> Tensor:
        """[n, n] bool: the same item, and known positives in either direction."""
        rows: dict[str, list[int]] = defaultdict(list)
        for n, i in enumerate(ids):
            rows[i].append(n)
        out = torch.zeros(len(ids), len(ids), dtype=torch.bool)
        for i, own in rows.items():
            near = [m for j in self.graph.get(i, set()) & rows.keys() for m in rows[j]]
            out[torch.tensor(own)[:, None], torch.tensor(own + near)] = True
        return out


def barren(exclude: Tensor) -> bool:
    """Whether no row [2B, 2B] has a negative: all others are its partner, itself, or excluded."""
    every = torch.arange(len(exclude), device=exclude.device)
    negative = ~exclude
    negative[every, every] = False
    negative[every, every.roll(len(every) // 2)] = False
    return not bool(negative.any())
