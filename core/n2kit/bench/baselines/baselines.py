"""Simple baselines without a joined model. A joined model must beat them to deserve its cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.bench.baselines.closed_form import CLOSED_FORM, ClosedForm, fit_closed_form
from n2kit.bench.baselines.frozen import Features, FrozenFeatures
from n2kit.bench.baselines.heads import TrainedHead, train_head
from n2kit.bench.baselines.plugged import plugged_vectors
from n2kit.bench.baselines.tfidf import tfidf
from n2kit.bench.matrix.baseline_names import baseline_of, worded_settings_of
from n2kit.builder import loss_of
from n2kit.contract.baseline import Baseline, BaselineInputs
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput, counted
from n2kit.planning.planner import with_options
from n2kit.plugins.catalogue import default_catalogue
from n2kit.recipe.settings import Recipe
from n2kit.whitening.whitening import unit

if TYPE_CHECKING:
    from n2kit.contract.interfaces import Loss
    from n2kit.inputs.reader import OnBadImage


@dataclass
class BaselineOut:
    """Unit vectors [n, d] float32 of `ids`. An item without the inputs of the baseline has zeros: as a query it ties with all.

    `costs` are those of a row of `results.jsonl`; `notes` are for people; `skipped`:
    item id → why its image was not read.
    """

    ids: list[str]
    vectors: np.ndarray
    costs: dict[str, float]
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def run_baseline(
    name: str,
    *,
    items: Items,
    pairs: Pairs,
    val_pairs: Pairs | None = None,
    llm: str | None = None,
    vision: str | None = None,
    mllm: str | None = None,
    images: Path | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    on_bad_image: OnBadImage = "error",
    frozen: FrozenFeatures | None = None,
) -> BaselineOut:
    """Compute unit vectors of all items by one of n2kit's or a plug-in's: [n, d]. Test pairs are no argument: nothing can use them.

    Args:
        pairs: heads are trained on them, and closed forms fitted. val_pairs: they choose a head's learning rate and last step;
            a whitening is chosen by both.
        seed: of a head's initial weights and of the order of the pairs; frozen backbones with random weights are the same for all.
        settings: dotted names. Of a recipe's, those in `SHARED` count, `head.width` for one; `baseline.` begins those of
            `HeadSettings`.
        frozen: features that were computed before, by another baseline of the same matrix.

    Raises:
        BadInput: an unknown name or setting, no backbone for it, an image that cannot be read under policy `error`.
        Mismatch, Unavailable: a backbone, or scikit-learn, cannot be had.
    """
    baseline, given = baseline_of(name), {"llm": llm, "vision": vision, "mllm": mllm}
    if missing := [kind for kind in baseline.takes if given[kind] is None]:
        raise BadInput(f"baseline {name} needs a backbone: {', '.join(missing)}", f"--{missing[0]} NAME")
    recipe, own = worded_settings_of(dict(settings or {}), {kind: given[kind] for kind in baseline.takes})
    frozen = FrozenFeatures() if frozen is None else frozen
    start = time.perf_counter()
    modalities = _modalities(name, baseline.takes, frozen, recipe, items, images, on_bad_image, device)
    unreadable = {i: why for modality in modalities for i, why in modality.unreadable.items()}
    skipped = unreadable if on_bad_image == "skip" else {}
    learnt: TrainedHead | ClosedForm | None = None
    if baseline.target is not None:
        vectors = plugged_vectors(name, baseline, _inputs(baseline, modalities, items, pairs, val_pairs, skipped, seed))
    elif name in CLOSED_FORM or baseline.trained:
        if name in CLOSED_FORM:
            learnt = fit_closed_form(name, modalities, items, pairs, val_pairs, skipped)
        else:
            learnt = train_head(
                modalities, items, _without(pairs, skipped), _without(val_pairs, skipped) if val_pairs else None,
                lambda: _loss(recipe), own, width=recipe.head.width, normalize_each=name == "sum", seed=seed,
            )  # fmt: skip
        vectors = learnt.vectors
    elif modalities:
        vectors = unit(modalities[0].values)
    else:
        vectors = tfidf(items)
    seconds = time.perf_counter() - start
    kept = [n for n, item in enumerate(items) if item.id not in skipped]
    out = BaselineOut([items.items[n].id for n in kept], vectors[kept], {}, skipped=unreadable)
    out.costs = _costs(modalities, learnt, seconds, len(items))
    out.notes = _notes(modalities, learnt, out.vectors, frozen)
    return out


def _inputs(
    baseline: Baseline, modalities: list[Features], items: Items, pairs: Pairs, val_pairs: Pairs | None,
    skipped: Mapping[str, str], seed: int,
) -> BaselineInputs:  # fmt: skip
    """Collect what a plug-in's baseline has said that it reads, and nothing else."""
    features = {kind: modality.values for kind, modality in zip(baseline.takes, modalities, strict=True)}
    both = {"pairs": pairs, "val_pairs": val_pairs or Pairs([])}
    read = {which: list(_without(both[which], skipped)) for which in baseline.learns_from}
    return BaselineInputs(items.items, features, read.get("pairs", []), read.get("val_pairs", []), seed)


def _modalities(
    name: str,
    takes: Iterable[str],
    frozen: FrozenFeatures,
    recipe: Recipe,
    items: Items,
    images: Path | None,
    on_bad_image: OnBadImage,
    device: str | None,
) -> list[Features]:
    compute = {
        "llm": lambda: frozen.text(recipe, items, device),
        "vision": lambda: frozen.image(recipe, items, images, on_bad_image, device),
        "mllm": lambda: frozen.whole(recipe, items, images, on_bad_image, device),
    }
    found = {kind: compute[kind]() for kind in takes}
    if "llm" in found and name not in CLOSED_FORM:
        found["llm"] = replace(found["llm"], values=unit(found["llm"].values))  # states have a few huge dimensions
    return list(found.values())


def _loss(recipe: Recipe) -> Loss:
    """Build the loss of the recipe. A term for the image alone does not apply here, since there is one view."""
    return loss_of(with_options(default_catalogue().resolve("loss", recipe.loss.name), recipe.loss.options))


def _without(pairs: Pairs, skipped: Mapping[str, str]) -> Pairs:
    kept = [pair for pair in pairs if not skipped.keys() & set(pair)]
    return Pairs(kept, pairs.dropped, pairs.grades, pairs.negatives)


def _costs(
    modalities: list[Features], learnt: TrainedHead | ClosedForm | None, seconds: float, items: int
) -> dict[str, float]:
    """Return the costs of a row; `embed_ms_item` is the time of a new item, from text and image file, without any cache."""
    costs: dict[str, float] = {
        "parameters": sum(modality.parameters for modality in modalities) + (learnt.parameters if learnt else 0),
        "trained_parameters": learnt.parameters if learnt else 0,
        "train_s": learnt.seconds if learnt else 0.0,
        "train_cpu_s": learnt.cpu_seconds if learnt else 0.0,
        "steps": learnt.steps if learnt else 0,
        "embed_ms_item": sum(modality.ms_item for modality in modalities) if modalities else 1000 * seconds / items,
    }
    return costs


def _notes(
    modalities: list[Features], learnt: TrainedHead | ClosedForm | None, vectors: np.ndarray, frozen: FrozenFeatures
) -> list[str]:
    notes = [note for modality in modalities for note in modality.notes]
    if empty := int((~vectors.any(axis=1)).sum()):
        notes.append(f"nothing that this baseline reads in {counted(empty, 'item')}: as queries they find nothing")
    if learnt is not None and learnt.note:
        notes.append(learnt.note)
    if frozen.problem:
        notes.append(f"features are not kept on disk: {frozen.problem}")
    return notes
