"""A model's use of the image: recall without the image, without the text, with another item's image, and saliency.

(NoteLLM-2, section 3.2: trained end to end on pairs alone, a language model neglects the image.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.data.items import Item, Items, without_image, without_text
from n2kit.data.pairs import Pairs
from n2kit.embed import encode
from n2kit.errors import BadInput, Mismatch, counted
from n2kit.evaluate.bootstrap import interval
from n2kit.evaluate.compare import MetricChange, compare
from n2kit.evaluate.protocol import Figure, RankingReport, evaluate, greedy_pairs
from n2kit.evaluate.saliency import CURVES, obstacle, saliency
from n2kit.evaluate.sentences import image_sentence
from n2kit.inputs.feature_cache import FeatureCache
from n2kit.inputs.reader import OnBadImage, Reader
from n2kit.utils.device import Precision

if TYPE_CHECKING:
    from n2kit.embed.encode import Encoded
    from n2kit.modeling.model import Model

PAIRS_TOGETHER = 4  # of the saliency sample: all attention probabilities of a batch are held, with their gradients
BOTH, NO_IMAGE, NO_TEXT, SWAPPED = "both", "without image", "without text", "swapped image"
Alter = Callable[[Item], Item]
PhaseProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Curves:
    """S_v, S_t and S_o by layer [L, 3], means over `items` items, with 95 % bounds over them."""

    items: int
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Divide each layer's curves by their sum, [L, 3], as the paper plots them."""
        out: np.ndarray = self.mean / self.mean.sum(1, keepdims=True).clip(1e-30)
        return out

    def to_dict(self) -> dict[str, Any]:
        names = {"mean": self.mean, "low": self.low, "high": self.high, "share": self.shares}
        return {"items": self.items} | {
            curve: {name: values[:, n].tolist() for name, values in names.items()} for n, curve in enumerate(CURVES)
        }


@dataclass(frozen=True)
class Neglect:
    """The effect of altering the items in several ways.

    figures: way → metric → value and interval. effects: way → metric → the change from `both`, paired. altered: items that have
    both modalities; the others stay as they are, and are no end of a pair here. skipped: item id → why it was not used as it is.
    """

    figures: dict[str, dict[str, Figure]]
    effects: dict[str, dict[str, MetricChange]]
    queries: int
    pool: int
    altered: int
    saliency: Curves | None = None
    no_saliency: str | None = None
    notes: list[str] = field(default_factory=list)
    encoded: Encoded | None = None  # the items as they are
    skipped: dict[str, str] = field(default_factory=dict)

    def sentence(self) -> str:
        """Say what the model loses without the image; nothing without a bootstrap."""
        figures = self.figures[BOTH]
        ks = [int(name.partition("@")[2]) for name in figures if name.startswith("recall@")]
        return image_sentence(self.effects[NO_IMAGE], ks, self.pool, self.queries) if self.effects else ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "sentence": self.sentence(),
            "queries": self.queries,
            "pool": self.pool,
            "altered": self.altered,
            "metrics": {w: {n: asdict(f) for n, f in figures.items()} for w, figures in self.figures.items()},
            "effects": {w: {n: asdict(c) for n, c in changes.items()} for w, changes in self.effects.items()},
            "saliency": self.saliency.to_dict() if self.saliency else None,
            "no_saliency": self.no_saliency,
            "notes": self.notes,
            "skipped": self.skipped,
        }


@dataclass
class Reading:
    """Options for reading a catalogue; the same for all ways of altering it."""

    images: Path | None = None
    batch_size: int | None = None
    on_bad_image: OnBadImage = "error"
    precision: Precision = "auto"
    progress: PhaseProgress | None = None
    cache: FeatureCache | None = None

    def encode(self, model: Model, items: Sequence[Item], way: str) -> Encoded:
        say = self.progress
        return encode(
            model, items, images=self.images, batch_size=self.batch_size, on_bad_image=self.on_bad_image,
            precision=self.precision, cache=self.cache,
            progress=None if say is None else lambda done, total: say(way, done, total),
        )  # fmt: skip


def neglect(
    model: Model,
    items: Items,
    pairs: Pairs,
    reading: Reading,
    *,
    ks: Sequence[int] = (1, 10, 100),
    resamples: int = 1000,
    seed: int = 0,
    sample: int = 0,
) -> Neglect:
    """Evaluate a model on items as they are, and altered in three ways, under the paper's protocol.

    Args:
        sample: so many items' saliency is measured; 0 for none.

    Raises:
        BadInput: a variant of one modality; no pair of two items that have both; what `encode` raises.
    """
    spec = model.variant
    if not (spec.image and spec.text):
        lacking = "text" if spec.image else "image"
        raise BadInput(f"variant {model.recipe.variant} reads no {lacking}: it can neglect none", "a variant of both")
    if reading.cache is None and model.vision is not None and model.vision.frozen:
        reading = replace(reading, cache=FeatureCache(model.vision, int(model.recipe.train.feature_cache_gb * 1e9)))
    plain = reading.encode(model, items.items, BOTH)
    whole = [items[i] for i in plain.ids if items[i].image and items[i].has_text and i not in plain.skipped]
    named = {item.id for item in whole}
    kept = [pair for pair in pairs if named.issuperset(pair)]
    if not kept:
        raise BadInput("no pair of two items that have both an image and a text", "give pairs of such items")
    shuffled, alike = swapped_images(whole, seed)
    notes = [f"{counted(alike, 'item')} got an image equal to its own: most share one"] if alike else []
    if others := len(plain.ids) - len(whole):
        notes.append(f"in the pool as they are, without an image or a text: {counted(others, 'item')}")
    if lost := len(pairs) - len(kept):
        notes.append(f"{lost:,} of {counted(len(pairs), 'pair')} left out: an item lacks an image or a text")
    reports = {BOTH: evaluate(plain.ids, plain.vectors, kept, ks=ks)}
    for way, alter in _ways(shuffled).items():
        altered = reading.encode(model, [alter(item) for item in whole], way)
        reports[way] = evaluate(plain.ids, _with(plain, altered), kept, ks=ks)
    figures = {way: report.figures(resamples=resamples, seed=seed) for way, report in reports.items()}
    curves, reason = None, None
    if sample:
        curves, reason = sample_curves(model, items, kept, pairs, reading, sample, resamples, seed)
    return Neglect(
        figures, _effects(reports, resamples, seed), reports[BOTH].queries, reports[BOTH].pool, len(whole), curves, reason, notes,
        plain, plain.skipped,
    )  # fmt: skip


def swapped_images(items: Sequence[Item], seed: int) -> tuple[dict[str, str], int]:
    """Exchange the items' images at random: id → another item's image, and the number of items that got one equal to their own.

    There are such only where more than half of the items share an image: else, whoever drew their own can always trade.
    """
    rng = np.random.default_rng(seed)
    names, own = np.unique([item.image for item in items], return_inverse=True)
    given = rng.permutation(own)
    for n in np.flatnonzero(given == own):
        partners = np.flatnonzero((given != own[n]) & (own != given[n]))
        if given[n] == own[n] and len(partners):
            m = rng.choice(partners)
            given[n], given[m] = given[m], given[n]
    return {item.id: str(names[g]) for item, g in zip(items, given, strict=True)}, int((given == own).sum())


def sample_curves(
    model: Model, items: Items, kept: Sequence[tuple[str, str]], pairs: Pairs, reading: Reading, sample: int,
    resamples: int, seed: int,
) -> tuple[Curves | None, str | None]:  # fmt: skip
    """Compute the saliency of `sample` items of disjoint pairs drawn by the seed; or None and the reason why there is none."""
    if (reason := obstacle(model)) is not None:
        return None, reason
    drawn = [kept[n] for n in np.random.default_rng(seed).permutation(len(kept))]
    chosen = greedy_pairs(drawn)[: max(2, -(-sample // 2))]
    if len(chosen) < 2:
        return None, "saliency needs two pairs that share no item: with one there is no negative"
    graph, reader = pairs.graph(), Reader(model.prompt_builder, model.vision, reading.images, cache=reading.cache)
    values = []
    for number, part in enumerate(groups := _groups(chosen)):
        ids = [a for a, _ in part] + [b for _, b in part]
        batch, _ = reader([items[i] for i in ids])
        assert batch is not None
        try:
            values.append(saliency(model, batch.to(model.device), _exclude(ids, graph)).numpy())
        except Mismatch as problem:
            return None, problem.message.removeprefix("no saliency: ")
        if reading.progress:
            reading.progress("saliency", number + 1, len(groups))
    curves = np.concatenate(values)
    mean = curves.mean(0)
    low = high = mean
    if resamples:
        bounds = interval(curves.reshape(len(curves), -1), resamples, seed)
        low, high = (bound.reshape(mean.shape) for bound in bounds)
    return Curves(len(curves), mean, low, high), None


def _ways(shuffled: dict[str, str]) -> dict[str, Alter]:
    return {
        NO_IMAGE: without_image,
        NO_TEXT: without_text,
        SWAPPED: lambda item: replace(item, image=shuffled[item.id]),
    }


def _with(plain: Encoded, altered: Encoded) -> np.ndarray:
    """Replace the altered items' rows in the plain vectors [n, D]."""
    vectors, place = plain.vectors.copy(), {item_id: n for n, item_id in enumerate(plain.ids)}
    vectors[[place[i] for i in altered.ids]] = altered.vectors
    return vectors


def _effects(reports: dict[str, RankingReport], resamples: int, seed: int) -> dict[str, dict[str, MetricChange]]:
    if not resamples:
        return {}
    others = {way: report for way, report in reports.items() if way != BOTH}
    return {w: compare(reports[BOTH], report, resamples=resamples, seed=seed) for w, report in others.items()}


def _groups(pairs: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Split pairs into groups of like size, at most PAIRS_TOGETHER and at least two pairs each."""
    count = -(-len(pairs) // PAIRS_TOGETHER)
    return [pairs[n::count] for n in range(count)]


def _exclude(ids: Sequence[str], graph: dict[str, set[str]]) -> Any:
    """Mark pairs of rows that are no negatives, [n, n] bool: the same item, and known positives."""
    import torch

    return torch.tensor([[a == b or b in graph.get(a, ()) for b in ids] for a in ids])
