"""The arms of the demo: each learns from the same pairs, embeds the same catalogue, and is measured on the same queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from n2kit.bench.baselines.baselines import BaselineOut, run_baseline
from n2kit.bench.baselines.frozen import FrozenFeatures
from n2kit.bench.matrix.baseline_names import worded_settings_of
from n2kit.builder import build
from n2kit.bundle.io import save
from n2kit.data.items import Items
from n2kit.demo.data import DemoData
from n2kit.demo.result import KS, DemoArm
from n2kit.embed import embed, encode
from n2kit.errors import counted
from n2kit.evaluate import evaluate
from n2kit.index import build_index
from n2kit.inputs.feature_cache import feature_cache
from n2kit.inputs.state_cache import state_cache
from n2kit.modeling.model import Model
from n2kit.train import train_model
from n2kit.utils.device import pick_precision
from n2kit.whitening import fit as fit_whitening

BATCH = 32  # pairs a step
BACKBONES: dict[str, Any] = {"llm.tune": "frozen", "llm.attention": "eager", "prompt.template": "compact"}
HEAD: dict[str, Any] = {"head.width": 256}
TRAINING: dict[str, Any] = {
    "train.batch_size": BATCH,
    "train.new_lr": 2e-3,
    "train.save_steps": 10**6,
    "train.log_steps": 1,
}
Progress = Callable[..., None]


@dataclass(frozen=True)
class Setup:
    """Inputs that all arms share. `features` computes each text and each picture once, for every arm that reads it frozen."""

    llm: str
    vision: str
    data: DemoData
    seed: int
    steps: int
    folder: Path
    features: FrozenFeatures
    progress: Progress | None

    @cached_property
    def learnt(self) -> Items:
        """Select the items of the training and validation pairs."""
        return self._select({i for pair in [*self.data.train, *self.data.val] for i in pair})

    @cached_property
    def catalogue(self) -> Items:
        """Select the items that are embedded, in the order of the catalogue."""
        return Items([self.data.items[i] for i in self.data.needed()])

    @cached_property
    def items(self) -> Items:
        """Select the items of both, whose features are computed."""
        return self._select({item.id for some in (self.learnt, self.catalogue) for item in some})

    @cached_property
    def ms_item(self) -> float:
        """Return the milliseconds that an item's features take, text and picture."""
        recipe, _ = worded_settings_of(BACKBONES, {"llm": self.llm, "vision": self.vision})
        text = self.features.text(recipe, self.items)
        image = self.features.image(recipe, self.items, self.data.images, "error")
        return text.ms_item + image.ms_item

    def show(self, done: int, total: int, note: str) -> None:
        """Report progress, where anybody listens."""
        if self.progress:
            self.progress(done, total, note)

    def _select(self, ids: set[str]) -> Items:
        return Items([item for item in self.data.items if item.id in ids])


def text_alone(setup: Setup) -> DemoArm:
    """Rank by the text's half alone, standardised by the items of the training pairs: nothing else is learnt."""
    return _baseline("text", "text-std", setup)[0]


def image_alone(setup: Setup) -> DemoArm:
    """Rank by the picture's half alone, likewise."""
    return _baseline("image", "vision-std", setup)[0]


def train_linear(setup: Setup) -> DemoArm:
    """Train the simplest baseline, a linear layer on both halves, with validation pairs to choose its steps by.

    Its time is that of the training and of all features that the training reads, though arms before it have computed them.
    """
    arm, out = _baseline("linear", "concat", setup)
    arm.train_s = out.costs["train_s"] + setup.ms_item * len(setup.learnt) / 1000
    arm.note = "; ".join(out.notes)
    return arm


def _baseline(name: str, baseline: str, setup: Setup) -> tuple[DemoArm, BaselineOut]:
    """Measure a baseline on the frozen features that all of them share."""
    data, wanted = setup.data, setup.data.needed()
    out = run_baseline(
        baseline, items=setup.items, pairs=data.train, val_pairs=data.val, llm=setup.llm, vision=setup.vision,
        images=data.images, seed=setup.seed, settings=BACKBONES | HEAD, frozen=setup.features,
    )  # fmt: skip
    kept = dict(zip(out.ids, out.vectors, strict=True))
    return _measured(name, wanted, np.stack([kept[i] for i in wanted]), data), out


def fit_whitened(setup: Setup) -> DemoArm:
    """Fit the fusion by whitening, and save it as a user would: a bundle, a vectors file, an index.

    It sees the items of the pairs and no others, as the linear layer does; its time counts their features likewise.
    """
    data, folder = setup.data, setup.folder
    model = build(setup.llm, setup.vision, variant="late_whitened", settings=BACKBONES | {"train.seed": setup.seed})
    made = fit_whitening(
        model, setup.learnt, data.train, val_pairs=data.val, images=data.images,
        progress=lambda done, total, what: setup.show(done, total, f"whitened · {what}"),
    )  # fmt: skip
    manifest = save(made.model, folder / "bundle", force=True)
    stored = embed(
        made.model, manifest.fingerprint, setup.catalogue, folder / "vectors.parquet", images=data.images, force=True,
        progress=lambda done, total: setup.show(done, total, "whitened · embedding"),
    )  # fmt: skip
    build_index(folder / "vectors.parquet", folder / "index", force=True)
    arm = _measured("whitened", stored.ids, stored.vectors, data)
    arm.train_s = made.seconds + setup.ms_item * len(setup.learnt) / 1000
    arm.note, arm.fingerprint = made.selection.sentence(), manifest.fingerprint
    return arm


def train_notellm2(setup: Setup) -> DemoArm:
    """Train the paper's model."""
    data, name = setup.data, "notellm2"
    settings = BACKBONES | HEAD | TRAINING | {"train.seed": setup.seed, "train.max_steps": setup.steps}
    model = build(setup.llm, setup.vision, connector="mlp:4", variant=name, settings=settings)

    def report(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            setup.show(event["step"], event["steps"], f"{name} · loss {event.get('loss', 0):.2f}")

    checkpoints = setup.folder / "checkpoints" / name
    trained = train_model(
        model, data.items, data.train, model.recipe.train, checkpoints, images=data.images, report=report
    )
    if trained.interrupted:
        raise KeyboardInterrupt
    arm = _measured(name, setup.data.needed(), _encoded(model, name, setup), data)
    arm.train_s = trained.seconds
    arm.note = f"{counted(setup.steps, 'step')} of {BATCH} pairs, loss {trained.loss:.2f} at the last"
    return arm


def _encoded(model: Model, name: str, setup: Setup) -> np.ndarray:
    """Embed the catalogue with a model that is not kept [n, d], with the features that are on disk."""
    dtype, _ = pick_precision("auto", model.device)
    most, images = model.recipe.train.feature_cache_gb, setup.data.images
    return encode(
        model, setup.catalogue.items, images=images,
        cache=feature_cache(model.vision, most, images, dtype, memory=False),
        states=state_cache(model.llm, most, dtype, memory=False),
        progress=lambda done, total: setup.show(done, total, f"{name} · embedding"),
    ).vectors  # fmt: skip


def _measured(name: str, ids: list[str], vectors: np.ndarray, data: DemoData) -> DemoArm:
    """Measure the recall of vectors [n, d], and the rank of each query's first target."""
    report = evaluate(ids, vectors, data.test, ks=KS, pool=data.pool, protocol=data.protocol)
    recall = {g: [report.at(k, rows) for k in KS] for g, rows in data.groups(report).items()}
    ranks: dict[str, int] = {}
    for (query, _), rank in zip(report.pairs, report.ranks.tolist(), strict=True):
        ranks[query] = min(rank, ranks.get(query, rank))
    return DemoArm(name, recall, ranks)


COMPUTE: dict[str, Callable[[Setup], DemoArm]] = {
    "text": text_alone,
    "image": image_alone,
    "linear": train_linear,
    "whitened": fit_whitened,
    "notellm2": train_notellm2,
}
