"""From a model and pairs to a fitted model: its own LLM and vision encoder, joined by the fusion `whitened`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from n2kit.builder import with_fusion
from n2kit.data.images import check_images
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput, Failed, Mismatch
from n2kit.inputs.feature_cache import FeatureCache, feature_cache
from n2kit.inputs.halves import Half, check_folder, image_half, text_half, unreadable, without
from n2kit.inputs.state_cache import StateCache, state_cache
from n2kit.recipe.variants import SPECS
from n2kit.utils.device import pick_precision
from n2kit.whitening.select import Selection, fitted, select
from n2kit.whitening.statistics import BLOCK, pair_rows, with_half

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.inputs.reader import OnBadImage
    from n2kit.modeling.model import Model
    from n2kit.utils.device import Precision

Progress = Callable[[int, int, str], None]
FittedVariant = Literal["late_whitened", "joined_whitened"]


@dataclass
class FittedModel:
    """A model whose fusion was fitted, and how it came about.

    skipped: item id → why its image was not read. items: how many the catalogue has, and of these how many with a text and an image;
        text_pairs, image_pairs: how many pairs have that half on both sides, where there are pairs.
    seconds, cpu_seconds: of choosing and fitting, beyond the features.
    """

    model: Model
    selection: Selection
    skipped: dict[str, str] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def fit(
    model: Model,
    items: Items,
    pairs: Pairs | None = None,
    *,
    val_pairs: Pairs | None = None,
    images: str | Path | None = None,
    variant: FittedVariant = "late_whitened",
    width: int | None = None,
    on_bad_image: OnBadImage = "error",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> FittedModel:
    """Join a model's LLM and vision encoder by whitening. Nothing is trained; the model that is given is used up: the parts are the same.

    Args:
        pairs: what belongs together, with grades where there are some; None: all items are whitened alike, and nothing is chosen.
        val_pairs: more pairs to choose by; nothing is fitted on them.
        variant: joined_whitened gives the same vectors, and keeps the connector: training goes on from it with image and text joined.
        width: of the vectors, by an SVD over all items; None: as wide as both halves together.
        progress: called with (done, total, what).

    Raises:
        Mismatch: the model has no vision encoder, or lacks what the variant needs.
        BadInput: a width larger than both halves, validation pairs alone, what reading images raises.
        Failed: a backbone makes numbers that are not finite.
    """
    if val_pairs and not pairs:
        raise BadInput("validation pairs choose, and there are no pairs to fit on", "--pairs FILE")
    joined = _joined(model, variant, width)
    text, image, skipped = _halves(joined, items, images, on_bad_image, precision, progress)
    start, cpu = time.perf_counter(), time.process_time()
    left_out = skipped if on_bad_image == "skip" else {}
    known, validation = (pair_rows(some, items, left_out) for some in (pairs, val_pairs))
    selection = select(text, image, known, validation, _named(progress, "folds"))
    whitening = fitted(selection.chosen, text, image, known)
    assert joined.fusion is not None
    state = {name: torch.from_numpy(value) for name, value in whitening.buffers().items()}
    joined.fusion.load_state_dict(state, strict=True)
    if width is not None:
        directions = _principal(whitening(text, image), width)
        joined.head.get_parameter("weight").data.copy_(torch.from_numpy(directions.T))
    counts = {"items": len(items), "texts": int(text.present.sum()), "images": int(image.present.sum())}
    if len(positive := known.positive()):
        counts |= {f"{name}_pairs": len(with_half(half, positive)) for name, half in (("text", text), ("image", image))}
    took = time.perf_counter() - start, time.process_time() - cpu
    return FittedModel(joined.eval(), selection, skipped, counts, *took)


def _joined(model: Model, variant: FittedVariant, width: int | None) -> Model:
    """Make the model of the same backbones with the fusion `whitened`, not fitted yet.

    Raises:
        Mismatch: there is no vision encoder, or no connector or causal LLM where the variant needs one. BadInput: the width is too large.
    """
    if model.vision is None:
        raise Mismatch(
            f"variant {model.recipe.variant} has no vision encoder, and whitening joins a text with an image",
            "build the bundle with another --variant",
        )
    if SPECS[variant].early and model.connector is None:
        what = f"variant {model.recipe.variant} has no connector, and {variant} needs one"
        raise Mismatch(what, "build the bundle with --variant notellm2, or fit late_whitened")
    if SPECS[variant].residual and not model.llm.card.causal:
        raise Mismatch(f"variant {variant} needs a causal LLM, and this one reads both ways", "fit late_whitened")
    both = model.llm.card.output_width + (model.vision.card.pooled_width or model.vision.card.token_width)
    if width is not None and not 1 <= width <= both:
        raise BadInput(f"width {width}: text and image together are {both} wide", f"--width {both} or fewer")
    recipe = model.recipe
    update = {
        "variant": variant,
        "head": recipe.head.model_copy(update={"width": width}),
        "llm": recipe.llm.model_copy(update={"tune": "frozen"}),
        "vision": recipe.vision.model_copy(update={"tune": "frozen"}),
    }
    joined = with_fusion(model, "whitened", recipe.model_copy(update=update))
    return joined.to(model.device).eval()


def _halves(
    model: Model,
    items: Items,
    images: str | Path | None,
    on_bad_image: OnBadImage,
    precision: Precision,
    progress: Progress | None,
) -> tuple[Half, Half, dict[str, str]]:
    """Compute both halves of all items, through the caches of training and bench; also why images could not be read, by item id."""
    assert model.vision is not None
    folder = check_folder(items, Path(images) if images is not None else None)
    if on_bad_image == "error":
        check_images(items, folder)
    dtype, _ = pick_precision(precision, model.device)
    model.prepare_for(dtype)
    gigabytes = model.recipe.train.feature_cache_gb
    states = state_cache(model.llm, gigabytes, dtype, memory=False) or StateCache(model.llm, 0, dtype)
    features = feature_cache(model.vision, gigabytes, folder, dtype, memory=False)
    features = features or FeatureCache(model.vision, 0, images=folder, dtype=dtype)
    text = text_half(states, model.prompt_builder, items, _named(progress, "texts"))
    image = image_half(features, items, folder, on_bad_image, _named(progress, "images"))
    reasons = unreadable(items.items, image, folder, on_bad_image)
    if on_bad_image == "skip" and reasons:
        text, image = (without(half, items, reasons) for half in (text, image))
    for half, backbone in ((text, model.recipe.llm.name), (image, model.recipe.vision.name)):
        _check_finite(half, items, backbone)
    return text, image, reasons


def _check_finite(half: Half, items: Items, backbone: str) -> None:
    """Check that every number of a half is finite.

    Raises:
        Failed: it is not; which item.
    """
    for start in range(0, len(half.values), BLOCK):
        bad = np.flatnonzero(~np.isfinite(half.values[start : start + BLOCK]).all(1))
        if len(bad):
            raise Failed(
                f"{backbone} makes numbers of item {items.items[start + bad[0]].id!r} that are not finite",
                "--precision fp32; or its weights are damaged",
            )


def _principal(vectors: np.ndarray, width: int) -> np.ndarray:
    """Compute the `width` orthogonal directions [d, width] that keep most of vectors [n, d]: their right singular vectors."""
    gram = np.zeros((vectors.shape[1],) * 2)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float64)
        gram += block.T @ block
    return np.linalg.eigh(gram)[1][:, ::-1][:, :width].astype(np.float32)


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(done, total, what)
