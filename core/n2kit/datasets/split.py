"""Pairs divided into train, val and test, so that no item of a test was trained on: by item, or by connected component."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from n2kit.data.folder import data_file
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.datasets.leaks import find_leaks, same_items
from n2kit.errors import BadInput, counted, truncate_list
from n2kit.mining.run import SPLITS
from n2kit.utils.files import atomic_write, remove_temporaries, write_json

REPORT, BUCKETS, POOL = "split.json", "buckets.csv", "pool.parquet"
REPEATED = "repeated"
EDGES = ((0, "cold"), (3, "rare"), (20, "middle"))  # pairs of the training that an item has at most; beyond: popular
Way = Literal["item", "component"]


@dataclass
class Split:
    """The result of a split. pairs: of each part; dropped: those between two parts; leaks: what is the same on two sides.

    lost: rows of pairs that are in no part for another reason, by that; notes: what a reader has taken for granted.
    """

    by: str
    pairs: dict[str, int]
    items: dict[str, int]
    dropped: int
    leaks: dict[str, int] = field(default_factory=dict)
    components: int | None = None
    buckets: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """Say in one line what is where."""
        parts = [
            f"{name}: {counted(self.pairs[name], 'pair')} of {counted(self.items[name], 'item')}" for name in SPLITS
        ]
        parts += [f"{self.dropped:,} between two parts dropped"] * bool(self.dropped)
        parts += [f"{count:,} {reason} dropped" for reason, count in self.lost.items()]
        parts += [f"leaks: {', '.join(f'{n:,} {kind}' for kind, n in self.leaks.items())}"] * bool(self.leaks)
        return " · ".join(parts)


def split(
    pairs: Pairs,
    items: Items,
    out: Path,
    *,
    by: Way = "item",
    shares: tuple[float, float] = (0.1, 0.1),
    images: Path | None = None,
    seed: int = 0,
    together: bool = False,
    allow: bool = False,
    replace: bool = True,
) -> Split:
    """Divide pairs by their items, and write train, val, test, the pool and every item's bucket into `out`.

    Args:
        by: `item` draws a part for each item, and drops pairs between two parts, as the paper's data is disjoint; `component` keeps
            items that hang together by pairs in one part, and drops none.
        shares: of the items (of the pairs, by component) that validation and test get.
        together: items of the same image or text are in one part. allow: they may be in two, and are counted.
        replace: parts of another split that are there already go.

    Raises:
        BadInput: parts share items of the same image or text, or a part is empty; parts are there that may not be replaced.
    """
    place = items.position
    ends = np.array([(place[a], place[b]) for a, b in pairs], np.int64)
    groups = same_items((i for i in items), images)
    joined = (
        [(place[g[0]], place[other]) for kind in groups.values() for g in kind for other in g[1:]] if together else []
    )
    edges = np.array(joined, np.int64).reshape(-1, 2)
    label, part = _drawn(by, len(items), ends, edges, shares, seed)
    same, again = part[ends[:, 0]] == part[ends[:, 1]], repeated(pairs)
    of_pair = np.where(same & ~again, part[ends[:, 0]], -1)
    found = Split(by, {}, {}, int((~same & ~again).sum()), lost={REPEATED: int(again.sum())} if again.any() else {})
    if by == "component":
        found.components = len(np.unique(label[ends.ravel()]))
    other = "" if np.isin([0, 1, 2], of_pair).all() else _other_way(by, len(items), ends, edges, shares, seed)
    held = count_parts(found, pairs, of_pair, other)
    leaks = find_leaks(held, items, images, groups)
    found.leaks = {kind: len(ones) for kind, ones in leaks.items()}
    if leaks and not allow:
        examples = truncate_list([f"{a!r} and {b!r}: {kind}" for kind, ones in leaks.items() for a, b in ones])
        many = counted(sum(found.leaks.values()), "item")
        raise BadInput(
            f"{many} of the test or validation are in another part, too: {examples}",
            "--together puts them into one part; --allow goes on",
        )
    if not replace:
        _ensure_same(out, pairs, of_pair)
    write_parts(found, pairs, items, out, of_pair)
    return found


def repeated(pairs: Pairs) -> np.ndarray:
    """Tell of each row whether an earlier one is the same pair: [n]."""
    seen: set[tuple[str, str]] = set()
    return np.array([pair in seen or bool(seen.add(pair)) for pair in pairs], bool)  # type: ignore[func-returns-value]


def count_parts(found: Split, pairs: Pairs, of_pair: np.ndarray, other: str = "") -> dict[str, set[str]]:
    """Count the pairs and the items of each part (`of_pair`: 0 train, 1 val, 2 test, -1 none: [n]); return the items' ids.

    other: another way of a split that may do, for the hint.

    Raises:
        BadInput: a part is empty.
    """
    held: dict[str, set[str]] = {}
    for n, name in enumerate(SPLITS):
        rows = np.flatnonzero(of_pair == n).tolist()
        held[name] = {i for row in rows for i in pairs.pairs[row]}
        found.pairs[name], found.items[name] = len(rows), len(held[name])
    if empty := next((name for name, count in found.pairs.items() if not count), None):
        hint = "larger shares (--val, --test), or more pairs"
        if found.components is not None and found.components < len(SPLITS):
            hint = f"all pairs hang together in {counted(found.components, 'component')}, and three parts need three"
        raise BadInput(f"split by {found.by}: no pair is in {empty} ({found.sentence()})", f"{hint}{other}")
    return held


def components(count: int, edges: np.ndarray) -> np.ndarray:
    """Label `count` nodes by the smallest node that edges [m, 2] join them with: [count]."""
    label = np.arange(count)
    if not len(edges):
        return label
    while True:
        before = label.copy()
        low = np.minimum(label[edges[:, 0]], label[edges[:, 1]])
        np.minimum.at(label, label[edges[:, 0]], low)
        np.minimum.at(label, label[edges[:, 1]], low)
        np.minimum.at(label, edges[:, 0], low)
        np.minimum.at(label, edges[:, 1], low)
        label = label[label]
        if np.array_equal(before, label):
            return label


def _drawn(
    by: Way, count: int, ends: np.ndarray, edges: np.ndarray, shares: tuple[float, float], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Label `count` items by what has to be in one part, and draw a part for each: [count], [count].

    Args:
        ends: of the pairs, [n, 2]. edges: items that are in one part anyway, [m, 2].
    """
    if by == "component":
        label = components(count, np.concatenate([ends, edges]))
        return label, _by_component(label, ends, shares, seed)
    label = components(count, edges)
    return label, _by_item(label, shares, seed)


def _other_way(by: Way, count: int, ends: np.ndarray, edges: np.ndarray, shares: tuple[float, float], seed: int) -> str:
    """Write the other way of a split for a hint, if it leaves no part empty."""
    other: Way = "item" if by == "component" else "component"
    _, part = _drawn(other, count, ends, edges, shares, seed)
    if not np.isin([0, 1, 2], part[ends[:, 0]][part[ends[:, 0]] == part[ends[:, 1]]]).all():
        return ""
    what = "drops pairs between two parts" if other == "item" else "loses no pair"
    return f"; --by {other} (data mine: --split {other}) {what}"


def _by_item(label: np.ndarray, shares: tuple[float, float], seed: int) -> np.ndarray:
    """Draw a part for each group of items: [n], 0 train, 1 val, 2 test."""
    drawn = np.random.default_rng(seed).random(len(label))[label]
    return np.where(drawn < shares[1], 2, np.where(drawn < sum(shares), 1, 0))


def _by_component(label: np.ndarray, ends: np.ndarray, shares: tuple[float, float], seed: int) -> np.ndarray:
    """Give each component, the largest first, to the part that lacks most of its share of the pairs: [n]."""
    names, sizes = np.unique(label[ends[:, 0]], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    wanted = np.array([1 - sum(shares), *shares]) * len(ends)
    held = np.zeros(3)
    chosen = dict.fromkeys(label.tolist(), 0)
    for n in order.tolist():
        part = int(np.argmax(wanted - held))
        held[part] += sizes[n]
        chosen[int(names[n])] = part
    return np.array([chosen[one] for one in label.tolist()])


def _ensure_same(out: Path, pairs: Pairs, of_pair: np.ndarray) -> None:
    """Check that the parts that are there, all of them or those before an interruption, are of this very split.

    Raises:
        BadInput: one is not.
    """
    import pyarrow.parquet as pq

    for n, name in enumerate(SPLITS):
        if (file := data_file(out, name)) is None:
            continue
        rows = [pairs.pairs[row] for row in np.flatnonzero(of_pair == n).tolist()]
        table = pq.read_table(file) if file.name == f"{name}.parquet" else None
        if table is None or list(zip(*(c.to_pylist() for c in table.columns[:2]), strict=True)) != rows:
            raise BadInput(f"{file} exists, and is of another split", "--force replaces it; or give another -o")


def write_parts(found: Split, pairs: Pairs, items: Items, out: Path, of_pair: np.ndarray) -> None:
    """Write each part, the pool, the buckets, and what was counted; nobody else writes them now."""
    remove_temporaries(out, POOL, BUCKETS, REPORT, *(f"{name}.parquet" for name in SPLITS))
    for n, name in enumerate(SPLITS):
        rows = [pair for pair, part in zip(pairs, of_pair.tolist(), strict=True) if part == n]
        write_pairs_parquet(out / f"{name}.parquet", rows, [pairs.grade(p) for p in rows] if pairs.grades else None)
    train = Counter(i for pair, part in zip(pairs, of_pair.tolist(), strict=True) if part == 0 for i in pair)
    write_pool(out, items, train, found)
    write_json(out / REPORT, vars(found))


def write_pool(out: Path, items: Items, train: Counter[str], found: Split) -> None:
    """Write the pool, which is every item, and beside it each item's number of pairs of the training and its bucket."""
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = [item.id for item in items]
    with atomic_write(out / POOL) as temporary:
        pq.write_table(pa.table({"id": pa.array(ids, pa.string())}), temporary)
    rows = [(i, train[i], bucket_of(train[i])) for i in ids]
    found.buckets = dict(Counter(bucket for *_, bucket in rows))
    with atomic_write(out / BUCKETS) as temporary, temporary.open("w", encoding="utf8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("id", "train_pairs", "bucket"), *rows])
    found.files = [*(f"{name}.parquet" for name in SPLITS), POOL, BUCKETS]


def bucket_of(pairs: int) -> str:
    """Name the bucket of an item with so many pairs of the training."""
    return next((name for most, name in EDGES if pairs <= most), "popular")


def write_pairs_parquet(file: Path, rows: Sequence[tuple[str, str]], scores: Sequence[float] | None) -> None:
    """Write pairs as Parquet: query, target, and score where there is one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"query": pa.array([a for a, _ in rows], pa.string())}
    columns["target"] = pa.array([b for _, b in rows], pa.string())
    if scores is not None:
        columns["score"] = pa.array(scores, pa.float64())
    with atomic_write(file) as temporary:
        pq.write_table(pa.table(columns), temporary)
