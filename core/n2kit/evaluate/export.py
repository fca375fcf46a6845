"""Results for other programs: ranks as Parquet, scores in the shape of an MTEB result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2kit.errors import BadInput
from n2kit.evaluate.protocol import Figure, RankingReport
from n2kit.utils.files import atomic_write, write_json
from n2kit.utils.locks import output_lock

MTEB_MAIN = "ndcg_at_10"  # what MTEB ranks retrieval by


def write_ranks(report: RankingReport, out: Path) -> None:
    """Write query, target, rank and rank_optimistic, one row a pair."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "query": [a for a, _ in report.pairs],
        "target": [b for _, b in report.pairs],
        "rank": report.ranks,
        "rank_optimistic": report.optimistic,
    }
    table = pa.table(columns).replace_schema_metadata({"protocol": report.protocol, "pool": str(report.pool)})
    with output_lock(out), atomic_write(out) as temporary:
        pq.write_table(table, temporary)


def check_mteb(ks: Sequence[int]) -> None:
    """Check that the cut-offs have MTEB's main score of retrieval.

    Raises:
        BadInput: they have no 10.
    """
    if MTEB_MAIN.rpartition("_")[2] not in map(str, ks):
        raise BadInput(f"MTEB ranks retrieval by {MTEB_MAIN}, and --k has no 10", "--k 1,10,100")


def write_mteb(
    report: RankingReport, figures: dict[str, Figure], out: Path, *, task: str, revision: str, seconds: float
) -> None:
    """Write scores as MTEB's `TaskResult` has them; a consumer decides whether the task is one of its own.

    Raises:
        BadInput: as `check_mteb`.
    """
    check_mteb(report.ks)
    scores = {name.replace("@", "_at_"): figure.value for name, figure in figures.items()}
    entry = {"main_score": scores[MTEB_MAIN], "hf_subset": "default", "languages": ["und-Zyyy"]}
    content = {
        "task_name": task,
        "dataset_revision": revision,
        "mteb_version": None,
        "scores": {"test": [scores | entry | report.facts()]},
        "evaluation_time": round(seconds, 3),
        "kg_co2_emissions": None,
    }
    with output_lock(out):
        write_json(out, content)
