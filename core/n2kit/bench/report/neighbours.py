"""The items that the arms recommend for a few queries, with images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from n2kit.bench.cell_row import RERUN_HINT, CellRow
from n2kit.bench.report.aggregate import ArmResult, Leaderboard
from n2kit.bench.report.read import Ranking, read_ranking
from n2kit.errors import BadInput
from n2kit.pages.neighbours import label
from n2kit.pages.thumbnails import data_uri, small_copy
from n2kit.utils.files import is_complete_parquet

if TYPE_CHECKING:
    from n2kit.data.items import Items

DRAWN, DISAGREE = 4, 4  # queries: those drawn by a seed, and those the arms disagree about most
ARMS, NEIGHBOURS = 5, 5
SIDE = 88  # pixels of a thumbnail, whose number is at most (DISAGREE + DRAWN) (2 + ARMS NEIGHBOURS)
SHOWN_FIRST = ("text_only", "image_only", "basic", "notellm2", "micl", "late_early_fusion", "only_late_fusion")
RULE = (
    f"{DRAWN} queries drawn by a seed, then {DISAGREE} about which the arms shown disagree most (standard deviation of the logarithm "
    "of the right answer's rank). The number under an item is its cosine with the query. "
    f"Arms: the best one, the best baseline, and the best of "
    f"{', '.join(SHOWN_FIRST[:3])} and so on, {ARMS} in all; each with its first seed."
)


@dataclass
class ArmNeighbours:
    """The nearest items of one arm with their scores, and the rank of the right one."""

    arm: ArmResult
    rank: int
    found: list[tuple[str, float]]

    @property
    def items(self) -> list[str]:
        return [item_id for item_id, _ in self.found]


@dataclass
class QueryExample:
    """A query with its right items; `why`: the reason that it is shown."""

    query: str
    targets: list[str]
    why: str
    found: list[ArmNeighbours]


@dataclass
class Thumbnails:
    """Images of items as data URIs of small copies, each once; what cannot be read is shown by its text."""

    items: Items
    images: Path | None
    data: dict[str, str] = field(default_factory=dict)

    def add(self, item_id: str) -> None:
        if item_id in self.data or self.images is None or item_id not in self.items:
            return
        if (copy := small_copy(self.items[item_id], self.images, SIDE, quality=70)) is not None:
            self.data[item_id] = data_uri(copy)

    def category(self, item_id: str) -> str:
        return self.items[item_id].category if item_id in self.items else ""

    def text(self, item_id: str) -> str:
        """Name an item for people."""
        return label(self.items[item_id]) if item_id in self.items else item_id


def examples(board: Leaderboard, pool: Collection[str] | None = None, seed: int = 0) -> list[QueryExample]:
    """Choose queries by RULE, with the neighbours of each; none where the arms left no vectors.

    Args:
        pool: ids that may be found; default: all items with a vector that are no query.
    """
    arms = shown_arms(board)
    if not arms:
        return []
    ranks = [read_ranking(arm.rows[0]) for arm in arms]
    queries = sorted({query for query, _ in ranks[0].pairs})
    best = np.array([[by_query[q] for q in queries] for by_query in map(_by_query, ranks)])  # [arms, Q]
    chosen = choose(best, seed)
    nearest = [
        _nearest(arm.rows[0], r, [queries[n] for n, _ in chosen], pool) for arm, r in zip(arms, ranks, strict=True)
    ]
    targets: dict[str, list[str]] = {}
    for query, target in ranks[0].pairs:
        targets.setdefault(query, []).append(target)
    return [
        QueryExample(
            queries[n],
            targets[queries[n]],
            why,
            [ArmNeighbours(arm, int(best[a, n]), nearest[a][place]) for a, arm in enumerate(arms)],
        )
        for place, (n, why) in enumerate(chosen)
    ]


def shown_arms(board: Leaderboard) -> list[ArmResult]:
    """Select the arms of RULE that left vectors, in the board's order."""
    present = [
        arm
        for arm in board.comparable
        if is_complete_parquet(arm.rows[0].vectors_file) and arm.axes.inference in (None, "both")
    ]
    wanted = present[:1] + [arm for arm in present if arm.baseline][:1]
    for variant in SHOWN_FIRST:
        wanted += [arm for arm in present if arm.axes.variant == variant][:1]
    wanted += present
    labels = list(dict.fromkeys(arm.label for arm in wanted))[:ARMS]
    return [arm for arm in present if arm.label in labels]


def choose(ranks: np.ndarray, seed: int) -> list[tuple[int, str]]:
    """Choose columns of ranks [arms, Q], each with the reason: some that the seed draws, then the most disputed of the others."""
    drawn = np.random.default_rng(seed).permutation(ranks.shape[1])[:DRAWN].tolist()
    spread = np.log2(ranks).std(0)
    disputed = np.argsort(-spread, kind="stable").tolist() if len(ranks) > 1 else []
    others = [n for n in disputed if n not in drawn][:DISAGREE]
    return [(n, "drawn at random") for n in drawn] + [(n, "the arms disagree") for n in others]


def _by_query(ranking: Ranking) -> dict[str, int]:
    """Return query → the rank of its best target."""
    out: dict[str, int] = {}
    for (query, _), rank in zip(ranking.pairs, ranking.ranks.tolist(), strict=True):
        out[query] = min(rank, out.get(query, rank))
    return out


def _nearest(
    row: CellRow, ranking: Ranking, queries: Sequence[str], pool: Collection[str] | None
) -> list[list[tuple[str, float]]]:
    """Find the nearest items of each query with their dot products, as the protocol ranks them."""
    ids, vectors = read_vectors(row)
    place = {item_id: n for n, item_id in enumerate(ids)}
    if missing := [q for q in queries if q not in place]:
        raise BadInput(f"{row.vectors_file}: no vector of {missing[0]!r}", RERUN_HINT)
    allowed = np.ones(len(ids), bool)
    if pool is not None:
        inside = set(pool) | {target for _, target in ranking.pairs}
        allowed = np.array([i in inside for i in ids])
    if ranking.protocol != "standard":
        allowed[[place[q] for q, _ in ranking.pairs if q in place]] = False
    rows = [place[q] for q in queries]
    scores = np.where(allowed, vectors[rows] @ vectors.T, -np.inf)
    scores[np.arange(len(rows)), rows] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :NEIGHBOURS]
    return [[(ids[n], float(scores[q, n])) for n in line if scores[q, n] > -np.inf] for q, line in enumerate(best)]


def read_vectors(row: CellRow) -> tuple[list[str], np.ndarray]:
    """Read the ids and vectors [n, d] of a cell, without torch.

    Raises:
        BadInput: not such a file.
    """
    try:
        table = pq.read_table(row.vectors_file, columns=["id", "vector"])
        ids = table.column("id").to_pylist()
        flat = np.asarray(pc.list_flatten(table.column("vector")).to_numpy(), np.float32)
        return ids, flat.reshape(len(ids), -1)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise BadInput(f"{row.vectors_file}: no readable vectors: {error}".splitlines()[0], RERUN_HINT) from None
