"""Fitting, training, embedding and evaluation, each in one call."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from n2kit.api.encoding import progress_bar
from n2kit.api.in_python import in_python
from n2kit.api.reading import SomeItems, SomePairs, items_of, pairs_of
from n2kit.bundle.io import load, read_manifest, read_recipe
from n2kit.embed.encode import encode
from n2kit.embed.reading import read_vectors
from n2kit.embed.store import embed as embed_to_file
from n2kit.embed.vectors_file import Vectors
from n2kit.errors import BadInput
from n2kit.evaluate.protocol import Figure, Protocol, RankingReport
from n2kit.evaluate.protocol import evaluate as rank
from n2kit.evaluate.sentences import recall_sentence
from n2kit.inputs.reader import OnBadImage
from n2kit.modeling.model import Model
from n2kit.recipe.settings import drop_none, resolve
from n2kit.utils.device import Precision, pick_device
from n2kit.utils.folders import bundle_folder
from n2kit.whitening.fit import FittedModel, FittedVariant
from n2kit.whitening.fit import fit as fit_model

if TYPE_CHECKING:
    from n2kit.train.run import RunResult

IN_MEMORY = "in memory"  # the fingerprint of vectors whose model is in no bundle
SomeModel = Model | str | Path


@dataclass(frozen=True)
class Evaluation:
    """Figures of an evaluation: metric → value and 95 % interval; `report` has every pair's rank."""

    figures: dict[str, Figure]
    report: RankingReport

    def __getitem__(self, metric: str) -> float:
        return self.figures[metric].value

    def __repr__(self) -> str:
        return f"<Evaluation: {recall_sentence(self.report, self.figures)}>"


@in_python
def fit(
    model: SomeModel,
    items: SomeItems,
    pairs: SomePairs | None = None,
    *,
    val_pairs: SomePairs | None = None,
    images: str | Path | None = None,
    variant: FittedVariant = "late_whitened",
    width: int | None = None,
    on_bad_image: OnBadImage = "error",
    precision: Precision = "auto",
    device: str | None = None,
    show_progress: bool = False,
) -> FittedModel:
    """Join a model's LLM and vision encoder by whitening, in closed form: `.model` is the fitted one, `.selection` what was chosen.

    >>> fitted = n2kit.fit("models/tiny", "items.jsonl", "train.csv", images="images")
    >>> fitted.model.recipe.variant
    'late_whitened'

    Args:
        model: a bundle, a run, or a model; one that is given as an object is used up: the parts are the same.
        items: a file, a DataFrame, or dicts. pairs: likewise, two ids each, with grades where there are some; None: all items are
            whitened alike, and nothing is chosen. val_pairs: more pairs to choose by; nothing is fitted on them.
        images: the folder that image paths are relative to.
        variant: joined_whitened gives the same vectors, and keeps the connector: training goes on from it with image and text joined.
        width: of the vectors, by an SVD over all items; None: as wide as both halves together.

    Raises:
        Mismatch: the model has no vision encoder, or lacks what the variant needs.
        BadInput: a width larger than both halves, validation pairs alone, what reading raises.
        Failed: a backbone makes numbers that are not finite.
    """
    catalogue = items_of(items)
    known, validation = (None if some is None else pairs_of(some, catalogue) for some in (pairs, val_pairs))
    loaded = model if isinstance(model, Model) else load(model).to(pick_device(device))
    with progress_bar("fit", show_progress) as bar:
        return fit_model(
            loaded, catalogue, known, val_pairs=validation, images=images, variant=variant, width=width,
            on_bad_image=on_bad_image, precision=precision,
            progress=None if bar is None else lambda done, total, what: bar(done, total),
        )  # fmt: skip


@in_python
def train(
    model: SomeModel,
    items: SomeItems,
    pairs: SomePairs,
    *,
    out: str | Path,
    images: str | Path | None = None,
    val_pairs: SomePairs | None = None,
    epochs: float | None = None,
    max_steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    tune: Mapping[str, str] | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    on_bad_image: OnBadImage = "error",
    device: str | None = None,
    show_progress: bool = False,
) -> RunResult:
    """Train a model on pairs; the same call again goes on where an earlier one stopped.

    >>> run = n2kit.train("models/tiny", "items.jsonl", "train.csv", images="images", out="runs/mine", max_steps=1)
    >>> n2kit.load(run.bundle).width
    16

    Args:
        model: a bundle, a run, or a model; one that is given as an object is trained as it is now, and stays so itself.
        items: a file, a DataFrame, or dicts. pairs, val_pairs: likewise, two ids each; the latter are measured on while training.
        out: the run folder; the trained bundle is `out/bundle`.
        images: the folder that image paths are relative to.
        lr: of all that is trained. tune: part → how, such as `{"llm": "lora:16"}`.
        settings: any other setting by its dotted name, `{"train.warmup": 0.2}`.

    Raises:
        BadInput: what reading raises; `out` is another run's.
    """
    from n2kit.train.run import train as run_training  # seconds, which whoever embeds or recommends does without

    catalogue = items_of(items)
    flags = drop_none(epochs=epochs, max_steps=max_steps, batch_size=batch_size, seed=seed)
    rates = {} if lr is None else {"train.lr": lr, "train.new_lr": lr}
    chosen = {f"train.{k}": v for k, v in flags.items()} | rates | {f"{k}.tune": v for k, v in (tune or {}).items()}
    positives = pairs_of(pairs, catalogue)
    validation = None if val_pairs is None else pairs_of(val_pairs, catalogue)
    with _as_bundle(model) as bundle, progress_bar("train", show_progress) as bar:
        recipe = resolve(chosen | dict(settings or {}), base=read_recipe(bundle)).recipe
        return run_training(
            bundle, catalogue, positives, recipe, Path(out), images=_folder(images), val_pairs=validation,
            on_bad_image=on_bad_image, device=device, report=None if bar is None else _steps(bar),
        )  # fmt: skip


@in_python
def embed(
    model: SomeModel,
    items: SomeItems,
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    batch_size: int | None = None,
    on_bad_image: OnBadImage = "error",
    precision: Precision = "auto",
    device: str | None = None,
    force: bool = False,
    show_progress: bool = False,
) -> Vectors:
    """Embed a catalogue: one unit vector an item; into the file `out` too, if it is given, resumably.

    >>> vectors = n2kit.embed("models/tiny", "items.jsonl", images="images", out="vectors.parquet")
    >>> vectors.vectors.shape
    (24, 16)

    Args:
        model: a bundle, a run, or a model. A file says which model it is of: for `out`, give a bundle.
        items: a file, a DataFrame, or dicts.
        on_bad_image: `error`; `skip` leaves an item out; `text-only` embeds its text. `Vectors.skipped` has the reasons.
        force: replace another file at `out`.

    Raises:
        BadInput: what reading raises; `out` holds something else.
    """
    catalogue = items_of(items)
    if out is not None and isinstance(model, Model):
        raise BadInput(
            "a file of vectors says which model it is of, and this one is in no bundle", "save it, and give its folder"
        )
    loaded = model if isinstance(model, Model) else load(model).to(pick_device(device))
    with progress_bar("embed", show_progress) as bar:
        if out is None:
            found = encode(
                loaded, catalogue.items, images=images, batch_size=batch_size, on_bad_image=on_bad_image,
                precision=precision, progress=bar,
            )  # fmt: skip
            name = IN_MEMORY if isinstance(model, Model) else read_manifest(bundle_folder(model)).fingerprint
            return Vectors(found.ids, found.vectors, name, found.visual, found.skipped)
        assert not isinstance(model, Model)
        return embed_to_file(
            loaded, read_manifest(bundle_folder(model)).fingerprint, catalogue, Path(out), images=_folder(images),
            batch_size=batch_size, on_bad_image=on_bad_image, precision=precision, force=force, progress=bar,
        )  # fmt: skip


@in_python
def evaluate(
    vectors: Vectors | str | Path,
    pairs: SomePairs,
    *,
    ks: Sequence[int] = (1, 10, 100),
    pool: Iterable[str] | None = None,
    protocol: Protocol | Literal["auto"] = "auto",
    metrics: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure recall@k, MRR, NDCG@k and mean rank of vectors on test pairs, with 95 % intervals.

    >>> n2kit.evaluate("vectors.parquet", "test.csv", ks=[10])
    <Evaluation: ... of the queries have their right item among the first 10 of 22 (2 queries); by chance 45 % would be; ...>

    Args:
        pool: ids that may be found; default: all that have a vector.
        protocol: `auto` is `standard` where pairs share items, else `notellm2`, the paper's, with pairs one to one.
        metrics: of plug-ins, beside those.
        resamples: samples of the queries for the intervals; 0 for none.

    Raises:
        BadInput: a pair whose item has no vector; no pairs.
    """
    from n2kit.data.items import Item, Items

    stored = vectors if isinstance(vectors, Vectors) else read_vectors(Path(vectors))
    known = pairs_of(pairs, Items([Item(i) for i in stored.ids]))
    among = None if pool is None else set(pool)
    report = rank(stored.ids, stored.vectors, known, ks=sorted(ks), pool=among, protocol=protocol, further=metrics)
    return Evaluation(report.figures(resamples=resamples, seed=seed), report)


@contextlib.contextmanager
def _as_bundle(model: SomeModel) -> Iterator[Path]:
    """Give the folder of a model's bundle; of a model in memory, one for the time being."""
    if not isinstance(model, Model):
        yield bundle_folder(model)
        return
    with tempfile.TemporaryDirectory(prefix="n2kit-") as folder:
        model.save(Path(folder) / "model")
        yield Path(folder) / "model"


def _steps(bar: Callable[[int, int], None]) -> Callable[[dict[str, Any]], None]:
    """Make a handler of training events that moves a bar."""

    def report(event: dict[str, Any]) -> None:
        if "steps" in event:
            bar(event["step"], event["steps"])

    return report


def _folder(images: str | Path | None) -> Path | None:
    return None if images is None else Path(images)
