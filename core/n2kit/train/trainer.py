"""transformers' Trainer, taught pairs: losses by term, validation by recall, and stops that say why."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from n2kit.errors import BadInput, Failed
from n2kit.train import distributed
from n2kit.train.best import Best
from n2kit.train.checkpoint import best_file, last, read, write_best
from n2kit.train.checks import trained_state
from n2kit.train.gradient_spikes import MAX_CONSECUTIVE, GradientSpikeGuard
from n2kit.train.pairs import PairCollator, without_negatives
from n2kit.train.resume import ResumableTrainer
from n2kit.train.shards import full_state_dict
from n2kit.train.validate import Validation

if TYPE_CHECKING:
    from n2kit.recipe.settings import Train
    from n2kit.train.events import Events
    from n2kit.train.step import TrainStep


class RunCounters:
    """Counts of a run that a resumed run goes on with: unreadable items, steps without negatives, seconds.

    Args:
        bad: id → why it cannot be read, filled by the reader of this process.
    """

    def __init__(self, bad: dict[str, str]) -> None:
        self.bad, self.steps_without_negatives = bad, 0
        self.earlier_seconds, self.started = 0.0, time.perf_counter()  # before the last stop; when this process began

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes, as JSON."""
        seconds = self.earlier_seconds + time.perf_counter() - self.started
        # The names of these keys are those of checkpoints that exist.
        return {"bad": distributed.gather_dict(self.bad), "barren": self.steps_without_negatives, "seconds": seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.bad.update(state["bad"])
        self.steps_without_negatives, self.earlier_seconds = state["barren"], state.get("seconds", 0.0)


class PairTrainer(ResumableTrainer):
    """Trains a `TrainStep` on pairs.

    With several processes it gathers vectors and averages gradients itself: DistributedDataParallel refuses a part that one
    process has no use for (a connector and no picture), and gradients that come in several pieces (GradCache).

    Raises:
        Failed: the loss or its gradient is no longer finite, or the gradient has exploded.
    """

    step: TrainStep

    def __init__(self, settings: Train, events: Events, validation: Validation | None, **options: Any) -> None:
        super().__init__(**options)
        self.settings, self.events, self.validation = settings, events, validation
        self.collator: PairCollator = options["data_collator"]
        self.terms: dict[str, list[Tensor]] = {}
        self.ids: list[str] = []  # of the batch at hand
        self.best = Best(settings.best_metric, settings.patience)
        self.spikes = GradientSpikeGuard(settings.explosion)
        self.counters = RunCounters(self.collator.reader.bad)
        self.carried = {"best": self.best, "explosion": self.spikes, "tally": self.counters}  # keys of checkpoints
        self.facts = {"precision": settings.precision}
        unwrapped = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.accelerator.prepare_model = unwrapped

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        device = self.args.device
        inputs = self.collator.of_all_processes(inputs, device)
        self.ids = inputs["ids"]
        self.counters.steps_without_negatives += without_negatives(inputs["exclude"], len(inputs.get("negatives", ())))
        wanted = {"exclude", "places", "order", *self.step.model.loss.wants} & inputs.keys()
        out = model(inputs["batch"].to(device), **{name: inputs[name].to(device) for name in wanted})
        if not torch.isfinite(out["loss"]):
            raise self._failed(f"the loss is {out['loss'].item()}")
        for name, value in out["terms"].items():
            self.terms.setdefault(name, []).append(value)
        return (out["loss"], out) if return_outputs else out["loss"]

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **options)
        distributed.average_gradients(self.step.parameters())
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm: Tensor = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if not torch.isfinite(norm):  # one such step, and a checkpoint of it, would end in weights of NaN
            raise self._failed(f"the gradient is {norm.item()}")
        if self.spikes.update(norm.item()):
            raise self._failed(
                f"the gradient, {norm.item():.3g}, was {MAX_CONSECUTIVE} steps in a row more than {self.spikes.limit:g} times its median"
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= {name: torch.stack(values).mean().item() for name, values in self.terms.items()}
            self.terms.clear()
        logs |= self.events.pace(self.state, 2 * self.args.per_device_train_batch_size * distributed.world_size())
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        assert self.validation is not None
        step = self.state.global_step
        if self.best.looked == step:
            return self.best.last  # Trainer asks again at the end
        better = self.best.update(step, self.validation())
        self.step.train()
        self.log({f"eval_{name}": value for name, value in self.best.last.items()} | {"best_step": self.best.step or 0})
        if better and self.settings.keep_best:
            weights = full_state_dict(trained_state(self.step))
            distributed.main_process_only(lambda: write_best(self.folder, step, weights))
        if self.best.patience_exhausted:
            self.control.should_save = self.control.should_training_stop = True
        return self.best.last

    def best_file(self) -> Path | None:
        """The best weights, if they are to be kept."""
        kept = self.settings.keep_best and self.best.step is not None
        return best_file(self.folder, self.best.step or 0) if kept else None

    def has_ended(self, saved: Path) -> bool:
        """Whether nothing is left to train after a checkpoint: it is the last one, or the one at which patience ended."""
        then = Best(self.best.metric, self.best.patience, **read(saved)["carried"]["best"])
        return then.patience_exhausted or super().has_ended(saved)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save, but not what may be an explosion's beginning, unless this is the last chance."""
        if self.control.should_training_stop or not self.spikes.consecutive:
            super()._save_checkpoint(model, trial)

    @contextlib.contextmanager
    def saving_what_is_done(self) -> Iterator[None]:
        """An item that cannot be read ends a training, and costs none of its steps (with one process: others wait for each other)."""
        try:
            yield
        except BadInput:
            if self.state.global_step and distributed.world_size() == 1:
                self._save_checkpoint(self.step, None)
            raise

    def _failed(self, what: str) -> Failed:
        shown = ", ".join(self.ids[:6])
        kept = last(self.folder)
        return Failed(
            f"{what} at step {self.state.global_step + 1}; items of the batch: {shown}, …",
            "lower train.lr and train.new_lr, with another -o" + (f"; {kept} is kept" if kept else ""),
        )
