"""Recall on validation pairs while a training runs, by the code of `n2kit embed` and `n2kit eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.evaluate import evaluate, protocol_of, ranked_pairs
from n2kit.evaluate.protocol import Pair
from n2kit.inputs.feature_cache import FeatureCache
from n2kit.inputs.reader import OnBadImage
from n2kit.inputs.state_cache import StateCache
from n2kit.recipe.best_metric import check_best_metric, cutoff_of, of_plugin
from n2kit.train import distributed

if TYPE_CHECKING:
    from n2kit.modeling.model import Model
    from n2kit.recipe.settings import Train

SHOWN = (1, 10)  # recalls that are always computed


class Measured(NamedTuple):
    """Metrics of a validation, and the value [Q] that each query has of the one that chooses, in the order of their ids."""

    values: dict[str, float]
    per_query: list[float]


Validation = Callable[[], Measured]


class Found(NamedTuple):
    """The number of queries that a validation ranks, of their targets, and of the items in which each query looks for them."""

    queries: int
    targets: int
    pool: int


def found_in(pairs: Iterable[Pair]) -> Found:
    """Count what validation ranks of these pairs, under the protocol that they ask for, as `n2kit eval` does."""
    given = list(pairs)
    protocol = protocol_of(given)
    kept = ranked_pairs(given, protocol)
    queries = {query for query, _ in kept}
    pool = len(kept) if protocol == "notellm2" else len({i for pair in kept for i in pair}) - 1  # all but the query
    return Found(len(queries), len(kept), pool)


def saturation_remark(pairs: Pairs, settings: Train) -> str | None:
    """Return a remark if the metric that chooses the best step is always 1, since there are too few items to rank among."""
    cutoff, found = cutoff_of(settings.best_metric), found_in(pairs)
    if (
        not settings.best_metric.startswith("recall@")
        or not settings.keep_best
        or cutoff is None
        or cutoff < found.pool
    ):
        return None
    return (
        f"{settings.best_metric} among the {found.pool} items that a validation query may find is always 1, and chooses no step: "
        "--set train.best_metric=mrr, or more validation pairs"
    )


def validation(
    model: Model, items: Items, pairs: Pairs, images: Path | None, on_bad_image: OnBadImage, settings: Train,
    cache: FeatureCache | None,
    states: StateCache | None,
) -> Validation:  # fmt: skip
    """Make the function that measures `recall@1`, `recall@10` and `settings.best_metric`.

    Every process embeds its share of the items; or all of them, where each is needed for every row (`train.fsdp`).

    Raises:
        BadInput: no such metric.
    """
    check_best_metric(settings.best_metric)
    wanted = list(dict.fromkeys(i for pair in pairs for i in pair))
    ks = sorted({*SHOWN, *filter(None, [cutoff_of(settings.best_metric)])})
    further = of_plugin(settings.best_metric)
    shown = {f"recall@{k}" for k in SHOWN} | {settings.best_metric}

    def run() -> Measured:
        from n2kit.embed import encode

        share = slice(None) if settings.fsdp else slice(distributed.rank(), None, distributed.world_size())
        own = [items[i] for i in wanted[share]]
        ids: list[str] = []
        vectors = np.empty((0, model.width), np.float32)
        if own:
            out = encode(
                model,
                own,
                images=images,
                on_bad_image=on_bad_image,
                precision=settings.precision,
                cache=cache,
                states=states,
            )
            ids, vectors = out.ids, out.vectors
        shares = [(ids, vectors)] if settings.fsdp else distributed.all_gather_object((ids, vectors))
        return distributed.main_process_only(
            lambda: measure([i for ids, _ in shares for i in ids], np.concatenate([v for _, v in shares]))
        )

    def measure(ids: list[str], vectors: np.ndarray) -> Measured:
        have = set(ids)
        known = [p for p in pairs if have.issuperset(p)]
        report = evaluate(ids, vectors, known, ks=ks, protocol="auto", further=further)
        values, names = report.values()[0], report.names(ks)
        means = dict(zip(names, values.mean(0).tolist(), strict=True))
        chooses = values[:, names.index(settings.best_metric)]
        return Measured({name: value for name, value in means.items() if name in shown}, chooses.tolist())

    return run
