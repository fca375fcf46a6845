"""One training loop for everything: transformers' Trainer around the joined model and its loss."""

from __future__ import annotations

import contextlib
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
from n2kit.data.features import FeatureCache
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.device import keep_freed_memory, pick_device, pick_precision
from n2kit.errors import BadInput, Failed
from n2kit.evaluate import evaluate
from n2kit.train.events import Events, Report
from n2kit.train.pairs import FEWEST, PairCollator

if TYPE_CHECKING:
    from n2kit.model import Model
    from n2kit.recipe import Train

NEW = ("connector", "fusion", "head", "words", "loss")  # parts that start at random


@dataclass
class Fitted:
    """How a training went. `loss` is the last one logged; `interrupted`: stopped by Ctrl-C after saving a checkpoint."""

    steps: int
    seconds: float
    loss: float
    recall: dict[int, float] = field(default_factory=dict)
    interrupted: bool = False
    skipped: dict[str, str] = field(default_factory=dict)


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
        cache: features of the frozen vision encoder to share; by default a cache of `settings.feature_cache_gb`.
        resume: a checkpoint to go on from.
        report: called with every log event.

    Raises:
        BadInput: fewer pairs than a step takes, or an image that cannot be read. Failed: the loss is no longer finite.
    """
    if len(pairs) < FEWEST:
        raise BadInput(f"{len(pairs)} pairs: a step needs at least {FEWEST}, for negatives", "give more pairs")
    where = pick_device(device)
    dtype, why = pick_precision(settings.precision, where)
    keep_freed_memory()
    _to_precision(model, dtype)
    model.to(where).train()
    if cache is None and model.vision is not None and model.vision.frozen and settings.feature_cache_gb:
        cache = FeatureCache(model.vision, int(settings.feature_cache_gb * 1e9))
    reader = Reader(model.prompter, model.vision, images, on_bad_image, cache)
    step = TrainStep(model, dtype)
    trainer = PairTrainer(
        model=step,
        args=_arguments(settings, folder, where, len(pairs), val_pairs is not None),
        train_dataset=list(pairs),
        eval_dataset=[0] if val_pairs else None,
        data_collator=PairCollator(items, pairs, reader),
        optimizers=(torch.optim.AdamW(_groups(step, settings), eps=1e-8), None),
    )
    trainer.validation = _validation(model, items, val_pairs, images, on_bad_image, settings, cache)
    trainer.remove_callback(PrinterCallback)
    events = Events(report, why)
    trainer.add_callback(events)
    start = time.perf_counter()
    with events.stop_on_interrupt():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    interrupted = trainer.state.global_step < trainer.state.max_steps
    if trainer.validation and not interrupted:
        trainer.evaluate()  # a run that was stopped after its last checkpoint has not seen it yet
    model.eval()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    recall = {int(k.rpartition("@")[2]): v for k, v in (trainer.last_recall or {}).items()}
    return Fitted(
        steps=trainer.state.global_step,
        seconds=time.perf_counter() - start,
        loss=losses[-1] if losses else float("nan"),
        recall=recall,
        interrupted=interrupted,
        skipped=reader.bad,
    )


class TrainStep(nn.Module):
    """The model and its loss as one module: a batch of pairs in, the loss and its terms out."""

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, batch: Any, exclude: Tensor, **facts: Tensor) -> dict[str, Any]:
        """`facts`: what the loss `wants` to know of the batch."""
        cast = (
            torch.autocast(batch.ids.device.type, self.dtype)
            if self.dtype != torch.float32
            else contextlib.nullcontext()
        )
        with cast:
            out = self.model(batch)
        result = self.model.loss(out.views, out.present, exclude, **facts)
        return {"loss": result.loss, "terms": result.terms}


class PairTrainer(Trainer):
    """Trainer that saves only what is trained, logs the loss by term, and validates by recall."""

    validation: Callable[[], dict[str, float]] | None = None
    last_recall: dict[str, float] | None = None
    validated_at = -1

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.step: TrainStep = options["model"]
        self.terms: dict[str, list[Tensor]] = {}

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        device = self.args.device
        facts = {name: inputs[name].to(device) for name in self.step.model.loss.wants}
        out = model(inputs["batch"].to(device), inputs["exclude"].to(device), **facts)
        if not torch.isfinite(out["loss"]):
            shown = ", ".join(inputs["ids"][:6])
            raise Failed(
                f"the loss is {out['loss'].item()} at step {self.state.global_step + 1}; items of the batch: {shown}, …",
                "lower train.lr and train.new_lr; the last checkpoint is kept",
            )
        for name, value in out["terms"].items():
            self.terms.setdefault(name, []).append(value)
        return (out["loss"], out) if return_outputs else out["loss"]

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


def trained_state(step: nn.Module) -> dict[str, Tensor]:
    """Everything that training changes: trainable parameters, and buffers outside frozen parts."""
    frozen = {n for n, p in step.named_parameters() if not p.requires_grad}
    prefixes = tuple(f"{n}." for n, m in step.named_modules() if getattr(m, "frozen", False))
    return {n: t for n, t in step.state_dict().items() if n not in frozen and not n.startswith(prefixes or ("\0",))}


def steps_of(settings: Train, pairs: int) -> int:
    """How many steps a training takes."""
    if settings.max_steps:
        return settings.max_steps
    return max(1, math.ceil(settings.epochs * max(1, pairs // min(settings.batch_size, pairs))))


def _arguments(settings: Train, folder: Path, device: torch.device, pairs: int, validate: bool) -> TrainingArguments:
    steps = steps_of(settings, pairs)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=min(settings.batch_size, pairs),
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
    if device.type == "cuda":
        # One process, one device: Trainer would split each batch over all GPUs, and negatives with it.
        torch.cuda.set_device(device)
        arguments._n_gpu = 1
    return arguments


def _groups(step: TrainStep, settings: Train) -> list[dict[str, Any]]:
    """Two learning rates (backbones, new parts), and no decay for vectors and scalars."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    trained = {kind for kind, facts in step.model.provenance.parts.items() if facts.get("kind") == "mllm"}
    for name, parameter in step.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.removeprefix("model.").partition(".")[0]
        new = part in NEW and part not in trained
        lr = settings.new_lr if new and settings.new_lr else settings.lr
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]


def _to_precision(model: Model, dtype: torch.dtype) -> None:
    """Tuned parts and, without autocast, all parts are float32; widening is exact, so frozen weights stay what they are."""
    if dtype == torch.float32:
        model.widen()
    for _, part in model.parts.items():
        if not part.frozen:
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
