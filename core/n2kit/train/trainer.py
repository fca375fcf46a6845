"""transformers' Trainer for pairs: losses by term, validation by recall, checkpoints that resume bit for bit, and stops that say why.

Every method of `Trainer` that n2kit overrides, private ones among them, is overridden here and nowhere else.
`tests/test_trainer_contract.py` names what is relied on, so that a version of transformers that changes it fails there.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from n2kit.errors import BadInput, Failed
from n2kit.train import distributed
from n2kit.train.best import Best
from n2kit.train.checkpoint import WEIGHTS, best_file, last, read, write, write_best
from n2kit.train.checks import trained_state
from n2kit.train.counters import RunCounters
from n2kit.train.gradient_spikes import MAX_CONSECUTIVE, GradientSpikeGuard
from n2kit.train.pairs import PairCollator, has_no_negatives
from n2kit.train.resume import (
    Resumable,
    load_optimizer,
    load_weights,
    optimizer_state,
    random_state,
    set_random_state,
)
from n2kit.train.shards import full_state_dict
from n2kit.train.validate import Validation

if TYPE_CHECKING:
    from n2kit.recipe.settings import Train
    from n2kit.train.reporter import EventReporter
    from n2kit.train.step import TrainStep

MOMENTS = "optimizer.safetensors"


class PairTrainer(Trainer):
    """A Trainer of a `TrainStep` on pairs; it saves only what is trained, with everything that is needed to resume.

    With several processes it gathers vectors and averages gradients itself: DistributedDataParallel refuses a part that one
    process has no use for (a connector where no item has an image), and gradients that come in several pieces (GradCache).

    Args:
        settings: the recipe's.
        events: the callback that reports.
        validation: measures the metrics of validation pairs; None: there are none.
        options: those of `Trainer`.

    Raises:
        Failed: the loss or its gradient is no longer finite, or the gradient has exploded.
    """

    def __init__(self, settings: Train, events: EventReporter, validation: Validation | None, **options: Any) -> None:
        super().__init__(**options)
        self.settings, self.events, self.validation = settings, events, validation
        self.step: TrainStep = options["model"]
        self.collator: PairCollator = options["data_collator"]
        self.folder = Path(str(self.args.output_dir))
        self.terms: dict[str, list[Tensor]] = {}  # of the loss, since they were logged
        self.ids: list[str] = []  # of the batch at hand
        self.best = Best(settings.best_metric, settings.patience)
        self.spikes = GradientSpikeGuard(settings.explosion)
        self.counters = RunCounters(self.collator.reader.bad)
        # By the keys that they have in checkpoints.
        self.resumables: dict[str, Resumable] = {"best": self.best, "explosion": self.spikes, "tally": self.counters}
        unwrapped = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.accelerator.prepare_model = unwrapped

    # --- a step

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        device = self.args.device
        inputs = self.collator.of_all_processes(inputs, device)
        self.ids = inputs["ids"]
        self.counters.steps_without_negatives += has_no_negatives(inputs["exclude"], len(inputs.get("negatives", ())))
        wanted = {"exclude", "item_index", "order", *self.step.model.loss.extra_inputs} & inputs.keys()
        out = model(inputs["batch"].to(device), **{name: inputs[name].to(device) for name in wanted})
        if not torch.isfinite(out["loss"]):
            raise self._failed(f"the loss is {out['loss'].item()}")
        for name, value in out["terms"].items():
            self.terms.setdefault(name, []).append(value)
        return (out["loss"], out) if return_outputs else out["loss"]

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **options)
        distributed.average_gradients(self.step.parameters())
        self.counters.last_loss = loss.item()
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm: Tensor = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if not torch.isfinite(norm):  # one such step, and a checkpoint of it, would end in weights of NaN
            raise self._failed(f"the gradient is {norm.item()}")
        if self.spikes.update(norm.item()):
            raise self._failed(
                f"the gradient, {norm.item():.3g}, was {MAX_CONSECUTIVE} steps in a row more than "
                f"{self.spikes.limit:g} times its median"
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= {name: torch.stack(values).mean().item() for name, values in self.terms.items()}
            self.terms.clear()
        items = 2 * self.args.per_device_train_batch_size * distributed.world_size()
        logs |= self.events.pace(self.state, items)
        super().log(logs, start_time)

    # --- validation

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        assert self.validation is not None
        step = self.state.global_step
        if self.best.last_step == step:
            return self.best.last  # Trainer asks again at the end
        better = self.best.update(step, *self.validation())
        self.step.train()
        self.log({f"eval_{name}": value for name, value in self.best.last.items()} | {"best_step": self.best.step or 0})
        if better and self.settings.keep_best:
            weights = full_state_dict(trained_state(self.step))
            distributed.main_process_only(lambda: write_best(self.folder, step, weights))
        if self.best.patience_exhausted:
            self.control.should_save = self.control.should_training_stop = True
        return self.best.last

    def best_file(self) -> Path | None:
        """Return the file of the best weights, if they are to be kept."""
        kept = self.settings.keep_best and self.best.step is not None
        return best_file(self.folder, self.best.step or 0) if kept else None

    # --- saving

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save, but not what may be an explosion's beginning, unless this is the last chance."""
        if self.spikes.consecutive and not self.control.should_training_stop:
            return
        weights = full_state_dict(trained_state(self.step))
        randoms = distributed.all_gather_object(random_state(self.args.device))
        moments, groups = optimizer_state(self.optimizer)
        assert self.lr_scheduler is not None
        best = self.best_file()
        state = {
            "optimizer": groups,
            "scheduler": self.lr_scheduler.state_dict(),
            "random": randoms,
            "carried": {name: one.state() for name, one in self.resumables.items()},
            "best_file": best.name if best else None,
            "precision": self.settings.precision,
        }
        tensors = {WEIGHTS: weights, MOMENTS: moments}
        texts = {TRAINER_STATE_NAME: json.dumps(asdict(self.state), indent=1)}
        distributed.main_process_only(lambda: write(self.folder, self.state.global_step, tensors, texts, state))

    @contextlib.contextmanager
    def saving_on_bad_input(self) -> Iterator[None]:
        """Save a checkpoint where an item that cannot be read ends the training.

        With several processes nothing is saved: the others wait for this one, and would have to take part.
        """
        try:
            yield
        except BadInput:
            if self.state.global_step and distributed.world_size() == 1:
                self._save_checkpoint(self.step, None)
            raise

    # --- resuming

    def is_finished(self, saved: Path) -> bool:
        """Tell whether nothing is left to train after a checkpoint: it is the last one, or patience ended there."""
        best = Best(self.best.metric, self.best.patience)
        best.restore(read(saved)["carried"]["best"])
        return best.patience_exhausted or _trainer_state(saved).global_step >= self.args.max_steps

    def restore(self, saved: Path) -> None:
        """Take over what a checkpoint holds, without training on."""
        load_weights(self.step, saved / WEIGHTS)
        self.state = _trainer_state(saved)
        self._restore_resumables(saved)

    def _init_training_state(self, max_steps: int, *rest: Any) -> tuple[int, int]:
        done: tuple[int, int] = super()._init_training_state(max_steps, *rest)
        self.state.compute_steps(
            self.args, max_steps
        )  # this run's settings say how often to log and save, not the saved ones
        return done

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.step, Path(resume_from_checkpoint) / WEIGHTS)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        saved = Path(checkpoint)
        state = read(saved)
        assert self.lr_scheduler is not None
        load_optimizer(self.optimizer, load_file(saved / MOMENTS), state["optimizer"])
        self.lr_scheduler.load_state_dict(state["scheduler"])
        self._restore_resumables(saved)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        randoms = read(Path(checkpoint))["random"] if checkpoint is not None else []
        if distributed.rank() < len(randoms):  # a run may go on with more processes
            set_random_state(randoms[distributed.rank()], self.args.device)

    def _restore_resumables(self, saved: Path) -> None:
        for name, state in read(saved)["carried"].items():
            self.resumables[name].restore(state)

    def _failed(self, what: str) -> Failed:
        shown = ", ".join(self.ids[:6])
        kept = last(self.folder)
        return Failed(
            f"{what} at step {self.state.global_step + 1}; items of the batch: {shown}, …",
            "lower train.lr and train.new_lr, with another -o" + (f"; {kept} is kept" if kept else ""),
        )


def training_arguments(
    settings: Train, folder: Path, device: torch.device, pairs: int, steps: int, validate: bool, validate_start: bool
) -> TrainingArguments:
    """Translate the settings of a training on so many pairs, which takes so many steps, to transformers' own."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        run_name=folder.parent.name,
        per_device_train_batch_size=min(settings.batch_size, pairs) // distributed.world_size(),
        max_steps=steps,
        learning_rate=settings.lr,
        warmup_steps=math.ceil(settings.warmup * steps),
        lr_scheduler_type="linear",
        logging_steps=min(settings.log_steps, steps),
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        eval_strategy="steps" if validate else "no",
        eval_steps=min(settings.eval_steps, steps),
        eval_on_start=validate and validate_start,
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=device.type == "cpu",
        dataloader_drop_last=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        max_grad_norm=1.0,
    )
    if device.type == "cuda" and distributed.world_size() == 1:
        # One process, one device: Trainer would split each batch over all GPUs, and negatives with it.
        torch.cuda.set_device(device)
        arguments._n_gpu = 1
    return arguments


def _trainer_state(saved: Path) -> TrainerState:
    state: TrainerState = TrainerState.load_from_json(str(saved / TRAINER_STATE_NAME))
    return state
