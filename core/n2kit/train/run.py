"""A training with a run folder that holds its state: the same command again resumes it, or says that it is finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from n2kit.bundle import io as bundles
from n2kit.bundle.manifest import KIND, verify
from n2kit.data.image_digests import OF_SIZES, images_digest, is_of_sizes
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput, counted
from n2kit.evaluate.sentences import decisive_cutoff, found_sentence, wilson
from n2kit.inputs.reader import OnBadImage
from n2kit.modeling.model import Model
from n2kit.plugins.authors import author_of
from n2kit.plugins.manager import manager
from n2kit.recipe.best_metric import check_best_metric
from n2kit.recipe.choices import Choice
from n2kit.recipe.settings import Recipe, changed_settings
from n2kit.recipe.variants import SPECS, WHITENED
from n2kit.train import checkpoint, distributed
from n2kit.train.engine import TrainingResult, steps_of, train_model
from n2kit.train.events import EventHandler, WarningEvent
from n2kit.train.shards import requested_by_launcher
from n2kit.train.validate import Found, found_in
from n2kit.utils.device import pick_device
from n2kit.utils.files import disk_full_guard, read_json, sync_tree, temporaries_of, write_json, write_text
from n2kit.utils.folders import ensure_outside_bundles, ensure_writable, go_on_hint
from n2kit.utils.locks import file_lock

STATE, RESULT, EVENTS, LOCK = "run.json", "result.json", "events.jsonl", "run.lock"
CHECKPOINTS, BUNDLE = "checkpoints", "bundle"
SHOWN = 5  # settings that differ from an older run
METHOD = ("llm", "vision", "connector", "fusion", "loss", "variant", "head", "prompt")
RENAMED = {"barren": "steps_without_negatives"}  # keys of a result.json that an earlier version wrote
# Figures of a training that its bundle describes it by.
DESCRIBED = ("steps", "best_step", "seconds", "loss", "recall", "steps_without_negatives")
# Settings that change no weight: a run may go on with others.
FREE = {"train": {"log_steps", "save_steps", "loggers", "feature_cache_gb", "checkpointing"}}


@dataclass
class RunResult:
    """The trained bundle and the figures of its training, as in result.json and under `--json`."""

    bundle: str
    fingerprint: str
    steps: int
    seconds: float
    loss: float
    recall: dict[str, float]
    resumed_from: int | None
    done_before: bool
    interrupted: bool
    skipped: dict[str, str]
    earlier_s: float = 0.0  # seconds of a resumed run before its last stop, as far as they were saved
    frozen: str = ""  # a fingerprint of all that was not trained
    steps_without_negatives: int = 0  # steps without a single negative
    best_step: int | None = None  # of the best validation, whose weights the bundle has unless train.keep_best is false
    stopped_early: bool = False  # train.patience was at its end
    val_queries: int = 0  # of the recall
    val_targets: int = 0  # their right items
    val_pool: int = 0  # the items among which each query's are looked for
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 % bounds of `recall`

    def sentence(self) -> str:
        """Say how good the trained model is, as far as anything says it."""
        pool = self.val_pool or self.val_queries  # of a run that an earlier version made: one to one
        k = decisive_cutoff([int(k) for k in self.recall], pool)
        if k is None:
            few = f" ({counted(self.val_queries, 'validation query')} are too few)" if self.val_queries else ""
            return f"Nothing says how good the model is{few}: --val-pairs FILE measures it."
        queries = f"{counted(self.val_queries, 'query')} of the validation pairs"
        low, high = self.intervals[str(k)]
        several = self.val_targets > self.val_queries
        return found_sentence(self.recall[str(k)], (low, high), queries, k, pool, several) + "."


def train(
    bundle: Path,
    items: Items,
    pairs: Pairs,
    recipe: Recipe,
    folder: Path,
    *,
    images: Path | None = None,
    val_pairs: Pairs | None = None,
    on_bad_image: OnBadImage = "error",
    device: str | None = None,
    report: EventHandler | None = None,
) -> RunResult:
    """Train a bundle into `folder/bundle`; resume from `folder` if it holds a part of the same run.

    Args:
        recipe: the bundle's own; its `train` settings and which parts are tuned may differ.

    Raises:
        BadInput: the folder belongs to another run, or the recipe changes what the bundle is; what `train_model` raises.
    """
    if requested_by_launcher():
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"fsdp": True})})
    check_best_metric(recipe.train.best_metric)
    manifest = bundles.read_manifest(bundle)
    own = bundles.read_recipe(bundle)
    if changed := [k for k in METHOD if _method(recipe, k) != _method(own, k)]:
        raise BadInput(f"{', '.join(changed)} cannot be changed in a bundle that is built", "build another bundle")
    run = {
        "recipe": recipe.digest(without=FREE),
        "bundle": manifest.fingerprint,
        "items": items.digest(),
        "images": images_digest(items, images) if SPECS[recipe.variant].image else None,
        "pairs": pairs.digest(),
        "val_pairs": val_pairs.digest() if val_pairs else None,
        "on_bad_image": on_bad_image,
    }
    run["run"] = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]
    distributed.init_process_group(pick_device(device))
    with contextlib.ExitStack() as held:
        distributed.main_process_only(lambda: _claim(folder, run, recipe, held))
        if distributed.main_process_only((folder / RESULT).is_file):
            return _finished(folder)
        last = distributed.main_process_only(lambda: checkpoint.last(folder / CHECKPOINTS))
        model = bundles.load(bundle, recipe=recipe)
        about = {"folder": folder, "recipe": recipe, "steps": steps_of(recipe.train, len(pairs))}
        if distributed.is_main():
            _call_hooks("n2kit_run_started", report, run=about)
        with _recorded(folder, report, about) as record:
            trained = train_model(
                model, items, pairs, recipe.train, folder / CHECKPOINTS, images=images, val_pairs=val_pairs,
                on_bad_image=on_bad_image, device=device, resume=last, report=record,
                validate_start=bool(manifest.trained) or recipe.fusion.name == WHITENED["fusion.name"],
            )  # fmt: skip
        left_out = trained.skipped if on_bad_image == "skip" else {}
        result = _result(trained, folder, last, _validated(val_pairs, left_out))
        if not trained.interrupted and distributed.is_main():
            counts = {"items": len(items), "pairs": len(pairs), "val_pairs": len(val_pairs or ())}
            if trained.full_state is not None:  # this one is in shares
                model = bundles.load(bundle, recipe=recipe)
                model.load_state_dict(trained.full_state, strict=False)
            result.fingerprint = _save(model, folder, run, counts, result)
            _call_hooks("n2kit_run_finished", report, run=about, result=asdict(result))
    return result


@contextlib.contextmanager
def _recorded(folder: Path, report: EventHandler | None, about: dict[str, Any]) -> Iterator[EventHandler]:
    """Make a handler that appends events to the run's file, in the first process, reports them, and calls their hooks."""
    hooks = {kind: hook for kind, hook in EVENT_HOOKS.items() if distributed.is_main() and manager().hooks.has(hook)}
    with (folder / EVENTS if distributed.is_main() else Path(os.devnull)).open("a", encoding="utf8") as log:

        def record(event: dict[str, Any]) -> None:
            log.write(json.dumps({"time": round(time.time(), 3)} | event) + "\n")
            log.flush()
            if report:
                report(event)
            if event["event"] in hooks:
                _call_hooks(hooks[event["event"]], report, run=about, event=event)

        yield record


def _save(model: Model, folder: Path, run: dict[str, Any], counts: dict[str, int], result: RunResult) -> str:
    """Write the bundle, and then the result as a sign that it is there; return the bundle's fingerprint."""
    facts = {name: fact for name, fact in asdict(result).items() if name in DESCRIBED} | {"run": run, "data": counts}
    facts["seconds"] = round(result.seconds + result.earlier_s, 1)
    with disk_full_guard(f"{folder / BUNDLE} cannot be written", checkpoint.HINT):
        saved = bundles.save(model.cpu(), folder / BUNDLE, trained=facts, force=True)
        sync_tree(folder / BUNDLE)
        write_json(folder / RESULT, asdict(result) | {"fingerprint": saved.fingerprint})
    return saved.fingerprint


def _finished(folder: Path) -> RunResult:
    """Read the result of a run that was finished before, wherever its folder is now."""
    try:
        saved = {RENAMED.get(name, name): value for name, value in read_json(folder / RESULT).items()}
        result = RunResult(**saved | {"done_before": True, "bundle": str(folder / BUNDLE)})
    except TypeError as error:
        raise BadInput(f"{folder / RESULT}: {error}", "remove it, and the same command finishes the run") from None
    try:
        verify(folder / BUNDLE, bundles.read_manifest(folder / BUNDLE), bundles.read_recipe(folder / BUNDLE))
    except BadInput as problem:
        raise BadInput(problem.message, f"remove {folder / RESULT}, and the same command finishes the run") from None
    return result


EVENT_HOOKS = {"step": "n2kit_step_logged", "recall": "n2kit_validated"}


def _method(recipe: Recipe, key: str) -> Any:
    """Return a setting of the method, without its choice of tuned parts."""
    value = getattr(recipe, key)
    return value.model_dump(exclude={"tune"}) if isinstance(value, Choice) else value


def _call_hooks(hook: str, report: EventHandler | None, **facts: Any) -> None:
    """Call a hook of all plug-ins; an exception in one is reported, and the training goes on."""
    _, failures = manager().hooks.call(hook, **facts)
    for plugin, error in failures if report else ():
        report(WarningEvent(plugin, f"{type(error).__name__}: {error}", author_of(plugin.partition("/")[0])).to_json())  # type: ignore[misc]


def _claim(folder: Path, run: dict[str, Any], recipe: Recipe, held: contextlib.ExitStack) -> None:
    """Claim the folder for this run, lock it until `held` closes, and remove what a killed process left.

    Raises:
        BadInput: it is another run's, no run folder, or in use.
    """
    state = folder / STATE
    # A process that was killed while it made the folder may leave the lock's file, and temporary ones.
    first = {folder / LOCK, *temporaries_of(state)}
    if not state.is_file() and folder.exists() and not (folder.is_dir() and {*folder.iterdir()} <= first):
        raise BadInput(f"{folder} exists and is no run folder", "give another -o")
    ensure_outside_bundles(folder)
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(file_lock(folder / LOCK, str(folder)))
    if not (folder / RESULT).exists():  # the bundle comes at the end: what is in its way is said now
        ensure_writable(folder / BUNDLE, KIND, force=True)
    saved = read_json(state) if state.is_file() else {}  # only now: whoever held it may have begun or finished
    if saved.get("on_bad_image") == "error":  # so far every image could be read
        saved |= {"on_bad_image": run["on_bad_image"]}
    begun = (folder / RESULT).exists() or checkpoint.last(folder / CHECKPOINTS) is not None
    differs = ", ".join(_difference(k, folder, recipe) for k in run if k != "run" and saved.get(k) != run[k])
    if differs == "images" and begun and is_of_sizes(saved.get("images")):
        raise BadInput(f"{folder} {OF_SIZES}", "give another -o")
    if differs and begun:
        raise BadInput(
            f"{folder} is run {saved.get('run')}, and this is run {run['run']}: another {differs}",
            go_on_hint(folder),
        )
    checkpoint.sweep(folder / CHECKPOINTS)
    write_json(state, run)  # first: it says whose the folder is
    write_text(folder / "recipe.yaml", recipe.to_yaml())
    packages = ("n2kit", "torch", "transformers", "timm", "accelerate", "peft", "safetensors", "numpy")
    env = {"python": platform.python_version(), "platform": platform.platform()} | {p: version(p) for p in packages}
    write_json(folder / "env.json", env)


def _validated(pairs: Pairs | None, left_out: Container[str]) -> Found:
    """Count what validation ranks, of items that can be read."""
    return found_in(p for p in pairs or () if p[0] not in left_out and p[1] not in left_out)


def _difference(what: str, folder: Path, recipe: Recipe) -> str:
    """Name what differs from the run of a folder; of a recipe, the settings, as far as the folder says them."""
    if what != "recipe":
        return what
    try:
        changed = changed_settings(bundles.read_recipe(folder), recipe, FREE)
    except BadInput:
        return what
    return f"{what} ({'; '.join(changed[:SHOWN])}{'; …' * (len(changed) > SHOWN)})" if changed else what


def _result(trained: TrainingResult, folder: Path, last: Path | None, validated: Found) -> RunResult:
    measured = trained.recall if validated.queries else {}
    return RunResult(
        bundle="" if trained.interrupted else str(folder / BUNDLE),
        fingerprint="",
        steps=trained.steps,
        seconds=round(trained.seconds, 1),
        earlier_s=round(trained.earlier, 1),
        loss=trained.loss,
        recall={str(k): v for k, v in trained.recall.items()},
        resumed_from=checkpoint.step_of(last) if last else None,
        done_before=False,
        interrupted=trained.interrupted,
        skipped=trained.skipped,
        frozen=trained.frozen,
        steps_without_negatives=trained.steps_without_negatives,
        best_step=trained.best_step,
        stopped_early=trained.stopped_early,
        val_queries=validated.queries,
        val_targets=validated.targets,
        val_pool=validated.pool,
        intervals={
            str(k): wilson(v, validated.queries) for k, v in measured.items()
        },  # wide, where some have several targets
    )
