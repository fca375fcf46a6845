"""One training loop for everything: transformers' Trainer around the joined model and its loss."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.trainer_callback import PrinterCallback

from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput, Failed, Mismatch, counted
from n2kit.inputs.feature_cache import FeatureCache, feature_cache
from n2kit.inputs.reader import OnBadImage, Reader
from n2kit.inputs.state_cache import state_cache
from n2kit.modeling.lora import lora_config_of
from n2kit.recipe.tuning import Tune
from n2kit.train import checkpoint, distributed, fourbit, shards
from n2kit.train.answer_tasks import AnswerTasks
from n2kit.train.blocks import prepared_blocks
from n2kit.train.checks import AdapterCheck, check_trainable, frozen_fingerprint, trained_state
from n2kit.train.epoch_rng import EpochRng
from n2kit.train.events import EventHandler
from n2kit.train.images import check_images
from n2kit.train.loggers import loggers
from n2kit.train.pairs import MIN_PAIRS, PairCollator, check_pairs
from n2kit.train.param_groups import param_groups
from n2kit.train.reporter import EventReporter
from n2kit.train.resume import load_weights
from n2kit.train.step import TrainStep
from n2kit.train.trainer import PairTrainer, training_arguments
from n2kit.train.validate import Validation, saturation_remark, validation
from n2kit.utils.device import DTYPES, keep_freed_memory, pick_device, pick_precision

if TYPE_CHECKING:
    from n2kit.inputs.tensor_store import TensorStore
    from n2kit.modeling.model import Model
    from n2kit.recipe.settings import Train
    from n2kit.utils.device import Precision


@dataclass
class TrainingResult:
    """The result of a training.

    Args:
        loss: that of the last step. A logged one is the mean since the entry before it, and so depends on where a run was stopped.
        earlier: seconds before the training was stopped and resumed, as far as a checkpoint has them.
        recall: K → Recall@K of the weights that the training ended with.
        interrupted: a signal stopped it, after a checkpoint was saved.
        skipped: id → why an item could not be read.
        frozen: a fingerprint of all that was not trained, the same before and after; empty where all was trained.
        steps_without_negatives: steps whose items are all known positives of each other, which teach nothing.
        best_step: the step with the best validation.
        stopped_early: validations did not improve for as long as `train.patience` says.
        full_state: under `train.fsdp`, which leaves the model sharded: all trained tensors (in the first process).
    """

    steps: int
    seconds: float
    loss: float
    earlier: float = 0.0
    recall: dict[int, float] = field(default_factory=dict)
    interrupted: bool = False
    skipped: dict[str, str] = field(default_factory=dict)
    frozen: str = ""
    steps_without_negatives: int = 0
    best_step: int | None = None
    stopped_early: bool = False
    full_state: dict[str, Tensor] | None = None


def train_model(
    model: Model,
    items: Items,
    pairs: Pairs,
    settings: Train,
    folder: Path,
    *,
    images: Path | None = None,
    val_pairs: Pairs | None = None,
    on_bad_image: OnBadImage = "error",
    device: str | None = None,
    cache: FeatureCache | None = None,
    resume: Path | None = None,
    validate_start: bool = False,
    report: EventHandler | None = None,
) -> TrainingResult:
    """Train the parts of `model` that are not frozen, in place.

    Args:
        folder: for checkpoints; what TensorBoard reads is put beside it.
        cache: features of the frozen vision encoder to share; by default `settings.feature_cache_gb` of memory and of disk.
        resume: a checkpoint to resume from.
        validate_start: validate before the first step too, so that the weights of the start are kept where nothing beats them.
        report: called with every log event.

    Raises:
        BadInput: fewer pairs than a step takes, an image that cannot be read, or a step that cannot be divided among the
            processes. Failed: the loss or its gradient is no longer finite, frozen weights changed, or an adapter gets no
            gradient. Mismatch: layer decay, or `train.fsdp`, in a backbone without blocks; nothing to train.
    """
    check_pairs(pairs, model.loss, model.recipe.loss.name)
    check_trainable(model)
    qlora = Tune.parse(model.recipe.llm.tune).mode == "qlora"
    target_device = distributed.init_process_group(pick_device(device))
    distributed.main_process_only(lambda: _check(settings, len(pairs), val_pairs, qlora))
    if model.prompt_builder.variant.image:
        distributed.main_process_only(lambda: check_images(items, pairs, val_pairs, images, on_bad_image))
    precision, precision_reason = distributed.main_process_only(lambda: _precision(settings, target_device, resume))
    settings = settings.model_copy(update={"precision": precision})  # validations and other processes do not try again
    keep_freed_memory()
    param_groups = _place(model, settings, target_device, qlora)
    dtype = DTYPES[precision]
    if cache is None:
        cache = feature_cache(model.vision, settings.feature_cache_gb, images, dtype)
    states = None if settings.fsdp else state_cache(model.llm, settings.feature_cache_gb, dtype)
    lazy = bool(settings.grad_cache)
    reader = Reader(model.prompt_builder, model.vision, images, on_bad_image, cache, lazy_features=lazy, states=states)
    events = EventReporter(
        report, precision_reason, settings.grad_cache, saturation_remark(val_pairs, settings) if val_pairs else None
    )
    validate = validation(model, items, val_pairs, images, on_bad_image, settings, cache, states) if val_pairs else None
    trainer = _make_trainer(
        model, param_groups, items, pairs, reader, settings, folder, target_device, events, validate,
        validate_start and resume is None,
    )  # fmt: skip
    frozen = frozen_fingerprint(model)
    start = time.perf_counter()
    interrupted = _run(trainer, model, settings, resume)
    if (after := frozen_fingerprint(model)) != frozen:
        raise Failed(
            f"frozen weights changed in training: {frozen} before, {after} after",
            "a part changes its own weights: its plug-in is wrong",
        )
    if qlora:
        fourbit.dequantize(model.llm)
    model.eval()
    _note(events, trainer, [kept.store for kept in (cache, states) if kept is not None])
    return TrainingResult(
        **_found(trainer, settings),
        seconds=time.perf_counter() - start,
        interrupted=interrupted,
        skipped=distributed.gather_dict(reader.bad),
        frozen=frozen,
        full_state=shards.full_state_dict(trained_state(model)) if settings.fsdp else None,
    )


def _place(model: Model, settings: Train, where: torch.device, packed: bool) -> list[dict[str, Any]]:
    """Move the model to its device, in the types that it is trained in, and return the optimiser's parameter groups."""
    if packed:
        fourbit.quantize(model.llm, where)
    _to_precision(model, DTYPES[settings.precision])
    rates = param_groups(model, settings)
    if settings.fsdp:  # first of all: no device has to hold the whole
        rates = shards.shard(model, where, rates)
    model.to(where).train()
    return rates


def _make_trainer(
    model: Model, rates: list[dict[str, Any]], items: Items, pairs: Pairs, reader: Reader, settings: Train, folder: Path,
    where: torch.device, events: EventReporter, validate: Validation | None, validate_start: bool,
) -> PairTrainer:  # fmt: skip
    """Make the trainer with its callbacks, ready to run."""
    rng = EpochRng(settings.seed)
    tasks = (
        AnswerTasks.from_settings(model.prompt_builder, rng, settings)
        if "generation" in model.loss.extra_inputs
        else None
    )
    min_pairs = 1 if distributed.world_size() > 1 else MIN_PAIRS
    trainer = PairTrainer(
        settings,
        events,
        validate,
        model=TrainStep(model, DTYPES[settings.precision], settings.grad_cache, equal_chunks=settings.fsdp),
        args=training_arguments(
            settings, folder, where, len(pairs), steps_of(settings, len(pairs)), validate is not None, validate_start
        ),
        train_dataset=list(pairs),
        eval_dataset=[0] if validate else None,
        data_collator=PairCollator(items, pairs, reader, min_pairs, tasks, settings.hard_negatives, rng),
        optimizers=(torch.optim.AdamW(rates, eps=1e-8), None),
    )
    trainer.remove_callback(PrinterCallback)
    for callback in [events, *loggers(settings.loggers, folder.parent / "tensorboard", events.note)]:
        trainer.add_callback(callback)
    trainer.add_callback(AdapterCheck(model))
    trainer.add_callback(rng)
    return trainer


def _run(trainer: PairTrainer, model: Model, settings: Train, resume: Path | None) -> bool:
    """Train to the end, and load the best weights; return whether a signal stopped it before."""
    if resume and trainer.is_finished(resume):
        trainer.restore(resume)
    else:
        with prepared_blocks(model, settings), trainer.events.stop_on_signal(), trainer.saving_on_bad_input():
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    best, state = trainer.best, trainer.state
    interrupted = state.global_step < state.max_steps and not best.patience_exhausted
    if (file := trainer.best_file()) and not interrupted and best.step != state.global_step:
        load_weights(trainer.step, file)
    return interrupted


def _found(trainer: PairTrainer, settings: Train) -> dict[str, Any]:
    """Return what the trainer knows of its result, as fields of `TrainingResult`."""
    best, counters = trainer.best, trainer.counters
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    values = best.values if settings.keep_best else best.last
    return {
        "steps": trainer.state.global_step,
        "earlier": counters.earlier_seconds,
        "loss": counters.last_loss if counters.last_loss is not None else (losses or [float("nan")])[-1],
        "recall": {int(name[7:]): value for name, value in values.items() if name.startswith("recall@")},
        "steps_without_negatives": counters.steps_without_negatives,
        "best_step": best.step,
        "stopped_early": best.patience_exhausted,
    }


def _note(events: EventReporter, trainer: PairTrainer, stores: Sequence[TensorStore | None]) -> None:
    """Report steps that taught nothing, and features that could not be kept on disk."""
    if steps_without_negatives := trainer.counters.steps_without_negatives:
        events.note(
            f"{counted(steps_without_negatives, 'step')} had no negatives, all items being known positives: nothing was taught there"
        )
    for problem in dict.fromkeys(store.problem for store in stores if store is not None and store.problem):
        events.note(f"features are not kept on disk: {problem}")


def _check(settings: Train, pairs: int, val_pairs: Pairs | None, packed: bool) -> None:
    """Check that settings go with each other, with the pairs, and with the processes.

    Raises:
        BadInput, Mismatch: they do not.
    """
    if settings.patience and val_pairs is None:
        raise BadInput(
            "train.patience waits for better validations, and there are no validation pairs", "--val-pairs FILE"
        )
    if settings.fsdp and settings.compile:
        raise Mismatch("train.compile does not go with train.fsdp", "--set train.compile=false")
    if settings.fsdp and packed:
        raise Mismatch("llm.tune qlora does not go with train.fsdp", "--tune llm=lora:16")
    distributed.check_divisible(settings.batch_size, pairs)


def steps_of(settings: Train, pairs: int) -> int:
    """Return the number of steps that a training on so many pairs takes."""
    if settings.max_steps:
        return settings.max_steps
    return max(1, math.ceil(settings.epochs * max(1, pairs // min(settings.batch_size, pairs))))


def _precision(settings: Train, device: torch.device, resume: Path | None) -> tuple[Precision, str]:
    """Return the precision to compute in, and why. A resumed run keeps its own: a measurement may differ the next time, or elsewhere."""
    before = checkpoint.read(resume).get("precision") if resume else None
    if before in DTYPES:
        return before, f"{before}, as before the stop"
    dtype, why = pick_precision(settings.precision, device)
    return ("bf16" if dtype == DTYPES["bf16"] else "fp32"), why


def _to_precision(model: Model, dtype: torch.dtype) -> None:
    """Convert tuned parts and, without autocast, all parts to float32; that is exact, so frozen weights keep their values.

    An adapter is float32 from the start, and the weights under it may stay narrow.
    """
    model.prepare_for(dtype)
    for _, part in model.parts.items():
        if not part.frozen and lora_config_of(part) is None:
            part.float()
