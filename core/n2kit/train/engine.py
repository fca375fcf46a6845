"""One training loop for everything: transformers' Trainer around the joined model and its loss."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from n2kit.data.batch import OnBadImage, Reader
from n2kit.data.features import FeatureCache, feature_cache
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.device import keep_freed_memory, pick_device, pick_precision
from n2kit.errors import BadInput, Failed
from n2kit.evaluate import evaluate
from n2kit.lora import adapter_of
from n2kit.train import ranks
from n2kit.train.draws import Draws, Tasks
from n2kit.train.events import Events, Report
from n2kit.train.groups import groups
from n2kit.train.pairs import FEWEST, PairCollator, barren
from n2kit.train.step import TrainStep
from n2kit.train.watch import AdapterWatch, frozen_fingerprint, trained_state

if TYPE_CHECKING:
    from n2kit.model import Model
    from n2kit.recipe import Train


@dataclass
class Fitted:
    """How a training went.

    `loss` is the last one logged; `interrupted`: stopped by Ctrl-C after saving a checkpoint; `frozen`: a fingerprint of all
    that was not trained, the same before and after, empty where all was; `barren`: steps without a single negative, all of
    whose items are known positives of each other.
    """

    steps: int
    seconds: float
    loss: float
    recall: dict[int, float] = field(default_factory=dict)
    interrupted: bool = False
    skipped: dict[str, str] = field(default_factory=dict)
    frozen: str = ""
    barren: int = 0


def fit(
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
    report: Report | None = None,
) -> Fitted:
    """Train the parts of `model` that are not frozen, in place.

    Args:
        folder: for checkpoints.
        cache: features of the frozen vision encoder to share; by default `settings.feature_cache_gb` of memory and of disk.
        resume: a checkpoint to go on from.
        report: called with every log event.

    Raises:
        BadInput: fewer pairs than a step takes, an image that cannot be read, or a step that cannot be divided among the
            processes. Failed: the loss or its gradient is no longer finite, frozen weights changed, or an adapter gets no
            gradient. Mismatch: layer decay in a backbone without blocks.
    """
    if len(pairs) < FEWEST:
        raise BadInput(f"{len(pairs)} pairs: a step needs at least {FEWEST}, for negatives", "give more pairs")
    unlike = sum(grade <= 0 for grade in pairs.grades.values())
    if unlike and "grades" not in model.loss.wants:
        raise BadInput(
            f"{unlike} pairs are graded 0 or less, and loss {model.recipe.loss.name} takes every pair for a positive",
            "remove them, or build with --loss cosent",
        )
    if pairs.negatives and "negatives" not in model.loss.wants:
        raise BadInput(
            f"{len(pairs.negatives)} pairs have hard negatives, and loss {model.recipe.loss.name} takes none",
            "leave their columns out, or build with --loss notellm2, infonce, sigmoid or triplet",
        )
    where = ranks.begin(pick_device(device))
    ranks.once(lambda: ranks.check_divides(settings.batch_size))
    dtype, why = ranks.once(lambda: pick_precision(settings.precision, where))
    keep_freed_memory()
    _to_precision(model, dtype)
    model.to(where).train()
    if cache is None:
        cache = feature_cache(model.vision, settings.feature_cache_gb, images, dtype)
    reader = Reader(model.prompter, model.vision, images, on_bad_image, cache, apart=bool(settings.grad_cache))
    step = TrainStep(model, dtype, settings.grad_cache)
    draws = Draws(settings.seed)
    tasks = Tasks.of(model.prompter, draws, settings) if "generation" in model.loss.wants else None
    trainer = PairTrainer(
        model=step,
        args=_arguments(settings, folder, where, len(pairs), val_pairs is not None),
        train_dataset=list(pairs),
        eval_dataset=[0] if val_pairs else None,
        data_collator=PairCollator(
            items, pairs, reader, 1 if ranks.count() > 1 else FEWEST, tasks, settings.hard_negatives, draws
        ),
        optimizers=(torch.optim.AdamW(groups(model, settings), eps=1e-8), None),
    )
    trainer.validation = _validation(model, items, val_pairs, images, on_bad_image, settings, cache)
    trainer.remove_callback(PrinterCallback)
    events = Events(report, why, settings.grad_cache)
    trainer.add_callback(events)
    trainer.add_callback(AdapterWatch(model))
    trainer.add_callback(draws)
    frozen = frozen_fingerprint(model)
    start = time.perf_counter()
    with events.stop_on_interrupt():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if (after := frozen_fingerprint(model)) != frozen:
        raise Failed(
            f"frozen weights changed in training: {frozen} before, {after} after",
            "a part changes its own weights: its plug-in is wrong",
        )
    interrupted = trainer.state.global_step < trainer.state.max_steps
    if trainer.validation and not interrupted:
        trainer.evaluate()  # a run that was stopped after its last checkpoint has not seen it yet
    model.eval()
    if trainer.barren:
        events.note(
            f"{trainer.barren} steps had no negatives, all their items being known positives: they taught nothing"
        )
    if cache is not None and cache.store is not None and cache.store.problem:
        events.note(f"features are not kept on disk: {cache.store.problem}")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    recall = {int(k.rpartition("@")[2]): v for k, v in (trainer.last_recall or {}).items()}
    return Fitted(
        steps=trainer.state.global_step,
        seconds=time.perf_counter() - start,
        loss=losses[-1] if losses else float("nan"),
        recall=recall,
        interrupted=interrupted,
        skipped=ranks.merged(reader.bad),
        frozen=frozen,
        barren=trainer.barren,
    )


class PairTrainer(Trainer):
    """Trainer that saves only what is trained, logs the loss by term, and validates by recall.

    With several processes it gathers vectors and averages gradients itself: DistributedDataParallel refuses a part that one
    process has no use for (a connector and no picture), and gradients that come in several pieces (GradCache).
    """

    validation: Callable[[], dict[str, float]] | None = None
    last_recall: dict[str, float] | None = None
    validated_at = -1

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.step: TrainStep = options["model"]
        self.collator: PairCollator = options["data_collator"]
        self.terms: dict[str, list[Tensor]] = {}
        self.barren = 0
        unwrapped = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.accelerator.prepare_model = unwrapped

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        device = self.args.device
        inputs = self.collator.of_all_processes(inputs, device)
        self.barren += barren(inputs["exclude"], len(inputs.get("negatives", ())))
        wanted = {"exclude", "places", "order", *self.step.model.loss.wants} & inputs.keys()
        out = model(inputs["batch"].to(device), **{name: inputs[name].to(device) for name in wanted})
        if not torch.isfinite(out["loss"]):
            shown = ", ".join(inputs["ids"][:6])
            raise Failed(
                f"the loss is {out['loss'].item()} at step {self.state.global_step + 1}; items of the batch: {shown}, …",
                "lower train.lr and train.new_lr; the last checkpoint is kept",
            )
        for name, value in out["terms"].items():
            self.terms.setdefault(name, []).append(value)
        return (out["loss"], out) if return_outputs else out["loss"]

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **options)
        ranks.average_gradients(self.step.parameters())
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm: Tensor = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if not torch.isfinite(norm):  # one such step, and a checkpoint of it, would end in weights of NaN
            raise Failed(
                f"the gradient is {norm.item()} at step {self.state.global_step + 1}",
                "lower train.lr and train.new_lr; the last checkpoint is kept",
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= {name: torch.stack(values).mean().item() for name, values in self.terms.items()}
            self.terms.clear()
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        assert self.validation is not None
        if self.last_recall is not None and self.validated_at == self.state.global_step:
            return self.last_recall  # Trainer asks again at the end
        self.last_recall, self.validated_at = self.validation(), self.state.global_step
        self.step.train()
        self.log(dict(self.last_recall))
        return self.last_recall

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, trained_state(self.step))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target = model or self.step
        saved = load_file(Path(resume_from_checkpoint) / "model.safetensors")
        expected = trained_state(target)
        if set(saved) != set(expected):
            raise BadInput(f"{resume_from_checkpoint} holds other parameters than this run trains", "give another -o")
        target.load_state_dict(saved, strict=False)


def steps_of(settings: Train, pairs: int) -> int:
    """How many steps a training takes."""
    if settings.max_steps:
        return settings.max_steps
    return max(1, math.ceil(settings.epochs * max(1, pairs // min(settings.batch_size, pairs))))


def _arguments(settings: Train, folder: Path, device: torch.device, pairs: int, validate: bool) -> TrainingArguments:
    steps = steps_of(settings, pairs)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=min(settings.batch_size, pairs) // ranks.count(),
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
    if device.type == "cuda" and ranks.count() == 1:
        # One process, one device: Trainer would split each batch over all GPUs, and negatives with it.
        torch.cuda.set_device(device)
        arguments._n_gpu = 1
    return arguments


def _to_precision(model: Model, dtype: torch.dtype) -> None:
    """Tuned parts and, without autocast, all parts are float32; widening is exact, so frozen weights stay what they are.

    An adapter is float32 from the start, and the weights under it may stay narrow.
    """
    if dtype == torch.float32:
        model.widen()
    for _, part in model.parts.items():
        if not part.frozen and adapter_of(part) is None:
            part.float()


def _validation(
    model: Model, items: Items, val_pairs: Pairs | None, images: Path | None, on_bad_image: OnBadImage, settings: Train,
    cache: FeatureCache | None,
) -> Callable[[], dict[str, float]] | None:  # fmt: skip
    if val_pairs is None:
        return None
    wanted = list(dict.fromkeys(i for pair in val_pairs for i in pair))

    def recall() -> dict[str, float]:
        from n2kit.embed import encode

        out = encode(
            model,
            [items[i] for i in wanted],
            images=images,
            on_bad_image=on_bad_image,
            precision=settings.precision,
            cache=cache,
        )
        have = set(out.ids)
        kept = [p for p in val_pairs if have.issuperset(p)]
        report = evaluate(out.ids, out.vectors, kept, ks=(1, 10))
        return {f"eval_recall@{k}": v for k, v in report.recall.items()}

    return recall
