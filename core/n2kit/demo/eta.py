"""The time that the demo will take on this machine: a short probe of its two costly things, frozen features and training steps."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from n2kit.bench.baselines.frozen import FrozenFeatures
from n2kit.bench.matrix.baseline_names import worded_settings_of
from n2kit.builder import build
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.demo.arms import BACKBONES, BATCH, HEAD, TRAINING, Setup
from n2kit.train import train_model

PROBED = 8  # items whose features are timed
PAIRS = 4  # of a step that is timed
FORWARD = 1 / 3  # of a step's time, without the way back


def estimate(setup: Setup, items: int, arms: Collection[str]) -> float:
    """Estimate the seconds that these arms take here: features of so many items, and all training steps.

    What the linear layer and whitening compute beyond the features is not in it.
    """
    recipe, _ = worded_settings_of(BACKBONES, {"llm": setup.llm, "vision": setup.vision})
    setup.show(0, 2, "probe: texts and pictures")
    few, features = Items(setup.catalogue.items[:PROBED]), FrozenFeatures()
    text, image = features.text(recipe, few), features.image(recipe, few, setup.data.images, "error")
    found = items * (text.ms_item + image.ms_item) / 1000
    if "notellm2" in arms:
        setup.show(1, 2, "probe: two training steps")
        step = _step_seconds(setup)
        embedding = FORWARD * len(setup.catalogue) / (2 * PAIRS)
        found += step * (setup.steps * BATCH / PAIRS + embedding)
    setup.show(2, 2, "probe")
    return found


def _step_seconds(setup: Setup) -> float:
    """Time the second of two small steps: the first one hashes weights, too."""
    pairs = Pairs(setup.data.train.pairs[: 2 * PAIRS])
    settings = BACKBONES | HEAD | TRAINING | {"train.max_steps": 2, "train.batch_size": PAIRS}
    model = build(setup.llm, setup.vision, connector="mlp:4", variant="notellm2", settings=settings)
    ends: list[float] = []

    def report(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train_model(
            model,
            setup.data.items,
            pairs,
            model.recipe.train,
            Path(folder) / "probe",
            images=setup.data.images,
            report=report,
        )
    return ends[-1] - ends[0]
