"""Pairs → training batches: which distinct items they have, and which rows are no negatives of each other."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2kit.contract.interfaces import Loss
from n2kit.data.items import Items
from n2kit.data.pairs import Pair, Pairs
from n2kit.errors import BadInput, counted
from n2kit.inputs.reader import Reader
from n2kit.modeling.batch import Batch
from n2kit.train import distributed
from n2kit.train.answer_tasks import AnswerTasks
from n2kit.train.epoch_rng import EpochRng

MIN_PAIRS = 2  # pairs a step: with one there is no negative


def check_pairs(pairs: Pairs, loss: Loss, name: str) -> None:
    """Check that a loss can be trained on these pairs; its `name` is for the message.

    Raises:
        BadInput: it cannot.
    """
    if len(pairs) < MIN_PAIRS:
        raise BadInput(
            f"{counted(len(pairs), 'pair')}: a step needs at least {MIN_PAIRS}, for negatives", "give more pairs"
        )
    unlike = sum(grade <= 0 for grade in pairs.grades.values())
    if unlike and "grades" not in loss.extra_inputs:
        raise BadInput(
            f"grades of 0 or less in {counted(unlike, 'pair')}, and loss {name} takes every pair for a positive",
            "remove them, or build with --loss cosent",
        )
    if pairs.negatives and "negatives" not in loss.extra_inputs:
        raise BadInput(
            f"hard negatives of {counted(len(pairs.negatives), 'pair')}, and loss {name} takes none",
            "leave their columns out, or build with --loss notellm2, infonce, multi-positive, sigmoid or triplet",
        )


class PairExtras:
    """Extra inputs of losses, by the ids of their rows.

    `partners`: an item's known positives, with the grade of their pair, the higher one of both directions. `log_q`: the log of an
    item's frequency among the items of all pairs and negatives, for the logQ correction of in-batch sampling.
    """

    KNOWN = frozenset({"grades", "log_q", "negatives", "positives"})  # of what `Loss.extra_inputs` can name

    def __init__(self, pairs: Pairs) -> None:
        self.pairs, self.partners = pairs, defaultdict[str, dict[str, float]](dict)
        for one, other in pairs:
            grade = max(pairs.grade((one, other)), self.partners[one].get(other, 0.0))
            if grade > 0:
                self.partners[one][other] = self.partners[other][one] = grade
        found = Counter(i for pair in pairs for i in (*pair, *pairs.negatives.get(pair, ())))
        self.log_q = {i: math.log(count / found.total()) for i, count in found.items()}

    def __call__(self, ids: Sequence[str], hard: int = 0) -> dict[str, Tensor]:
        """Return `exclude`, and what `Loss.extra_inputs` can name, for ids of rows, the last `hard` of which are hard negatives."""
        rows = len(ids) - hard
        ends = zip(ids[: rows // 2], ids[rows // 2 : rows], strict=True)
        log_q = torch.tensor([self.log_q[i] for i in ids])
        exclude, positives = self.known(ids)
        facts = {
            "exclude": exclude, "grades": torch.tensor([self.pairs.grade(pair) for pair in ends]), "log_q": log_q,
            "positives": positives,
        }  # fmt: skip
        return facts | ({"negatives": torch.arange(rows, len(ids))} if hard else {})

    def known(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return `exclude` and `positives` [n, n] of every two rows.

        exclude: true for the same item, and for known positives in either direction. positives: the grade of their pair, the higher
        one of both directions; 0 of no pair.
        """
        # Each item once, and the rows from there: a loop over the rows of items that come often costs more than a step of a head.
        place = {i: n for n, i in enumerate(dict.fromkeys(ids))}
        exclude, positives = np.eye(len(place), dtype=bool), np.zeros((len(place), len(place)), np.float32)
        for i, n in place.items():
            partners = self.partners.get(i, {})
            here = list(partners.keys() & place.keys())
            columns = [place[j] for j in here]
            exclude[n, columns], positives[n, columns] = True, [partners[j] for j in here]
        rows = np.array([place[i] for i in ids])
        every = np.ix_(rows, rows)
        return torch.from_numpy(exclude[every]), torch.from_numpy(positives[every])


@dataclass
class PairCollator:
    """Collation of B pairs of ids to the rows of a loss: all left items, and then all right items.

    `batch`: the distinct items of the pairs, U ≤ 2B, each to be encoded once. `item_index` [2B]: the item of each row. `ids`: its id.
    `exclude` [2B, 2B] bool, and what a loss may want: `grades` [B], how alike the two items of a pair are, and `log_q` [2B],
    the log of the item's frequency in the pairs (logQ correction), and all hard negatives.
    Where pairs have hard negatives, these follow as M rows more, each once, unless it is a row already; `negatives` [M] are their numbers.

    Args:
        min_pairs: pairs that a batch must have.
        tasks: the tasks of items, for a loss that generates.
        max_negatives: hard negatives of a pair in one step, drawn by `rng`; None: all.
    """

    items: Items
    pairs: Pairs
    reader: Reader
    min_pairs: int = MIN_PAIRS
    tasks: AnswerTasks | None = None
    max_negatives: int | None = None
    rng: EpochRng = field(default_factory=lambda: EpochRng(0))
    extras: PairExtras = field(init=False)
    number: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.extras = PairExtras(self.pairs)
        self.number = {item.id: n for n, item in enumerate(self.items.items)}

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Read the items of pairs, without those whose images cannot be read; two pairs always remain, for a negative.

        Raises:
            BadInput: policy `error` and an item that cannot be read, or no two readable pairs in all of the training set.
        """
        wanted, spare = list(pairs), iter(self.pairs)
        missing: set[str] = set()
        while True:
            rows = [a for a, _ in wanted] + [b for _, b in wanted]
            hard = self._hard(wanted, missing.union(rows))
            ids = [*rows, *hard]
            place = {item: n for n, item in enumerate(dict.fromkeys(ids))}
            batch, kept = self._read(list(place), len(hard))
            if batch is not None and len(kept) == len(place) and len(wanted) >= self.min_pairs:
                item_index = torch.tensor([place[i] for i in ids])
                return {"batch": batch, "item_index": item_index, "ids": ids} | self.extras(ids, len(hard))
            names = list(place)
            missing |= place.keys() - {names[n] for n in kept}
            wanted = [p for p in wanted if missing.isdisjoint(p)]
            while len(wanted) < self.min_pairs:
                extra = next(spare, None)
                if extra is None:
                    raise BadInput("no two pairs can be read", "; ".join(list(self.reader.bad.values())[:3]))
                if extra not in wanted:
                    wanted.append(extra)

    def _hard(self, pairs: Sequence[Pair], without: Container[str]) -> list[str]:
        """List the hard negatives of some pairs, each once."""
        found: dict[str, None] = {}
        for pair in pairs:
            own: Sequence[str] = self.pairs.negatives.get(pair, ())
            if self.max_negatives is not None and len(own) > self.max_negatives:
                own = self.rng.generator(f"negatives of {pair}").sample(own, self.max_negatives)
            found |= dict.fromkeys(own)
        return [i for i in found if i not in without]

    def _read(self, ids: Sequence[str], hard: int) -> tuple[Batch | None, list[int]]:
        """Read items to a batch and the numbers of those that could be read; the last `hard` ones get no task."""
        items = [self.items[i] for i in ids]
        if self.tasks is None:
            return self.reader(items)
        return self.reader(items, [*map(self.tasks, items[: len(items) - hard]), *[None] * hard])

    def of_all_processes(self, batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        """Extend a batch by `ids`, `exclude` and facts of the rows of all processes, and by their `order` (see `TrainStep`).

        A hard negative of several processes counts once, and one that is another's row not at all, as if there were one process.
        """
        if distributed.world_size() == 1:
            return batch
        own = torch.tensor([self.number[i] for i in batch["ids"]], device=device)
        parts = distributed.all_gather_rows(own)
        hard = [int(n) for n in distributed.all_gather_rows(own.new_tensor([len(batch.get("negatives", ()))]))]
        sizes = [len(part) - n for part, n in zip(parts, hard, strict=True)]
        order = distributed.left_rows_first(sizes, hard)
        every = [self.items.items[n].id for n in torch.cat(parts).cpu()[order].tolist()]
        rows = sum(sizes)
        taken = set(every[:rows])
        first = {i: n for n, i in reversed(list(enumerate(every))) if n >= rows and i not in taken}
        kept = [*range(rows), *sorted(first.values())]
        ids = [every[n] for n in kept]
        found = {name: value for name, value in batch.items() if name != "negatives"}
        return found | {"ids": ids, "order": order[kept]} | self.extras(ids, len(first))


def has_no_negatives(exclude: Tensor, hard: int = 0) -> bool:
    """Tell whether no row has a negative: all others are its partner, itself, or excluded; the last `hard` rows are no anchors."""
    every = torch.arange(len(exclude) - hard, device=exclude.device)
    negative = ~exclude[: len(every)]
    negative[every, every] = False
    negative[every, every.roll(len(every) // 2)] = False
    return not bool(negative.any())
