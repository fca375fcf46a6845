"""Embedding of a catalogue of any size into a folder of vectors."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from n2kit.embed.dataset.finish import finish
from n2kit.embed.dataset.format import LOCK, WORK, DType, Run
from n2kit.embed.dataset.plan import (
    Order,
    Plan,
    base_of,
    check_folder,
    check_run,
    clear,
    compared,
    ensure_nobody_works,
    make_plan,
    read_plan,
)
from n2kit.embed.dataset.reading import Dataset
from n2kit.embed.dataset.work import Encodes, Shards, at_work, work
from n2kit.embed.encode import Encoded, Progress, encode
from n2kit.errors import BadInput
from n2kit.inputs.feature_cache import feature_cache
from n2kit.inputs.reader import OnBadImage
from n2kit.inputs.state_cache import state_cache
from n2kit.utils.device import DTYPES, Precision, pick_precision
from n2kit.utils.folders import ensure_outside_bundles
from n2kit.utils.locks import waited_lock

if TYPE_CHECKING:
    from n2kit.data.item import Item
    from n2kit.modeling.model import Model

LOG = logging.getLogger("n2kit")
SHARD = 1024  # items; what a process that is killed loses at most


@dataclass(frozen=True)
class Settings:
    """The way of items to vectors, and of vectors to the disk.

    dim: the first numbers of each vector that are kept, for models trained with the loss `matryoshka`; None: all.
    """

    images: Path | None = None
    visual: bool = False
    dim: int | None = None
    dtype: DType = "float32"
    batch_size: int | None = None
    on_bad_image: OnBadImage = "error"
    precision: Precision = "auto"


@dataclass(frozen=True)
class Embedded:
    """A finished folder; new: items that were embedded, kept: those that stood there before, removed: rows that went."""

    dataset: Dataset
    new: int
    kept: int = 0
    removed: int = 0

    @property
    def done_before(self) -> bool:
        return not self.new and not self.removed


class Engine(Protocol):
    """A way to compute the shards of a plan, other than in this process."""

    def __call__(self, shards: Shards, progress: Progress | None) -> None: ...


def embed_folder(
    model: Model,
    fingerprint: str,
    items: Iterable[Item],
    out: Path,
    settings: Settings,
    *,
    source: str,
    append: bool = False,
    shard_size: int = SHARD,
    place: tuple[int, int] = (0, 1),
    engine: Engine | None = None,
    force: bool = False,
    progress: Progress | None = None,
    notify: Callable[[str], None] = LOG.warning,
) -> Embedded:
    """Embed a catalogue into a folder. The same call after an interruption, or beside this one, computes what is missing.

    Args:
        items: gone through once, and not held. source: identifies them without that.
        append: to a finished folder, add new and changed items, and remove those that are gone; otherwise begin one.
        shard_size: items a shard. place: this process is number i of n; each begins elsewhere.
        notify: called with a line for people; by default they are logged.

    Raises:
        BadInput: `out` holds something else, vectors of another model or other items; what `encode` raises.
    """
    order = _order(model, fingerprint, settings, out, source, append, shard_size)
    check_folder(out)
    ensure_outside_bundles(out)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with waited_lock(out / LOCK, str(out), notify):
            if append and not base_of(out):
                notify(f"{out} holds no finished vectors yet: all items are embedded")
                order = replace(order, append=False)
            plan, order = _planned(out, items, order, force=force, auto=settings.precision == "auto")
            if plan is None:
                return Embedded(Dataset.open(out), 0)
            held.enter_context(at_work(out))
        shards = Shards(out, plan, order, notify)
        if progress:
            progress(0, plan.items)
        if engine is not None:
            engine(shards, progress)
        else:
            work(shards, encoder(model, settings, order.run), place, progress)
    with waited_lock(out / LOCK, str(out), notify):
        if read_plan(out) == plan:
            dataset = finish(out, plan, order)
        else:  # another process has finished it
            shutil.rmtree(out / WORK, ignore_errors=True)
            dataset = Dataset.open(out)
    return Embedded(dataset, plan.items, plan.kept, plan.removed)


def _order(
    model: Model, fingerprint: str, settings: Settings, out: Path, source: str, append: bool, shard_size: int
) -> Order:
    if settings.visual and not model.variant.micl:
        raise BadInput(
            f"variant {model.recipe.variant} has no visual vector", "leave out --visual, or use micl or notellm2"
        )
    dim = settings.dim or model.width
    if not 1 <= dim <= model.width:
        raise BadInput(f"--dim {dim}: the model's vectors have {model.width} numbers", f"1 to {model.width}")
    template = json.dumps(asdict(model.prompt_builder.template), ensure_ascii=False, sort_keys=True)
    run = Run(
        fingerprint=fingerprint,
        prompt=hashlib.sha256(template.encode()).hexdigest()[:16],
        transform=model.vision.transform_id if model.vision is not None else "",
        dim=dim,
        dtype=settings.dtype,
        visual=settings.visual,
        computed_in=str(pick_precision(settings.precision, model.device)[0]),
    )
    images = model.variant.image
    return Order(run, source, settings.images, images, settings.on_bad_image, append, shard_size)


def _planned(out: Path, items: Iterable[Item], order: Order, *, force: bool, auto: bool) -> tuple[Plan | None, Order]:
    """Take up the plan that is there, or make one; None where nothing is to be done. The caller has the folder's lock.

    Args:
        auto: whether the type of the computation may be that of the folder, whatever is fastest here.
    """
    if force:
        ensure_nobody_works(out, "and would lose its work")
        clear(out)
    base, plan = base_of(out), read_plan(out)
    there = Dataset.open(out).manifest.run.model_dump() if base else plan.key["run"] if plan else None
    if there is not None:
        if auto:
            order = _with_type(order, there["computed_in"])
        check_run(out, there, order.run)
    if plan is not None and plan.key == order.key(base):
        return plan, order
    if plan is not None:
        ensure_nobody_works(out, "with other items or settings")
    if base and not order.append:
        if compared(out, items, order):
            return None, order
        raise BadInput(
            f"{out} holds vectors of other items or other images",
            "--append adds what is new, --force begins anew, or give another -o",
        )
    plan = make_plan(out, items, order)
    if not plan.items and not plan.removed:
        shutil.rmtree(out / WORK)
        return None, order
    return plan, order


def _with_type(order: Order, computed_in: str) -> Order:
    return replace(order, run=order.run.model_copy(update={"computed_in": computed_in}))


def encoder(model: Model, settings: Settings, run: Run) -> Encodes:
    """Make the function that embeds a shard's items, with the caches that training uses."""
    precision: Precision = "bf16" if run.computed_in == str(DTYPES["bf16"]) else "fp32"
    gigabytes, dtype = model.recipe.train.feature_cache_gb, DTYPES[precision]
    states = state_cache(model.llm, gigabytes, dtype, memory=False)
    cache = feature_cache(model.vision, gigabytes, settings.images, dtype, memory=False)

    def call(items: list[Item], progress: Progress | None) -> Encoded:
        return encode(
            model, items, images=settings.images, batch_size=settings.batch_size, on_bad_image=settings.on_bad_image,
            precision=precision, cache=cache, states=states, progress=progress,
        )  # fmt: skip

    return call
