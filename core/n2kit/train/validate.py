"""Recall on validation pairs while a training runs, by the code of `n2kit embed` and `n2kit eval`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.evaluate import evaluate
from n2kit.inputs.feature_cache import FeatureCache
from n2kit.inputs.reader import OnBadImage
from n2kit.inputs.state_cache import StateCache
from n2kit.recipe.best_metric import check_best_metric, cutoff_of, of_plugin
from n2kit.train import distributed

if TYPE_CHECKING:
    from n2kit.modeling.model import Model
    from n2kit.recipe.settings import Train

SHOWN = (1, 10)  # recalls that are always computed
Validation = Callable[[], dict[str, float]]


def saturation_remark(pairs: Pairs, settings: Train) -> str | None:
    """Return a remark if the metric that chooses the best step is always 1, since there are too few items to rank among."""
    cutoff, targets = cutoff_of(settings.best_metric), len({target for _, target in pairs})
    if not settings.best_metric.startswith("recall@") or not settings.keep_best or cutoff is None or cutoff < targets:
        return None
    return (
        f"{settings.best_metric} among the {targets} targets of the validation pairs is always 1, and chooses no step: "
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

    def run() -> dict[str, float]:
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

    def measure(ids: list[str], vectors: np.ndarray) -> dict[str, float]:
        have = set(ids)
        kept = [p for p in pairs if have.issuperset(p)]
        figures = evaluate(ids, vectors, kept, ks=ks, further=further).figures()
        return {name: figure.value for name, figure in figures.items() if name in shown}

    return run
