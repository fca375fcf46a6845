"""n2kit train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit.errors import counted
from n2kit.utils.folders import next_run
from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.output import emit, event, say
from n2kit_cli.pages import Page, check_page
from n2kit_cli.plan import refuse
from n2kit_cli.progress import progress
from n2kit_cli.reading import Reading, reads_items

if TYPE_CHECKING:
    from n2kit.recipe.settings import Recipe
    from n2kit.train.run import RunResult

RUNS = Path("runs")
# What an event of a step holds besides the loss, its terms and the temperature.
NO_TERM = {"event", "step", "steps", "epoch", "grad_norm", "learning_rate", "eta_s", "items_per_s", "memory_gb"}


@takes_data(pairs="train", val_pairs="val")
@reads_items
def train(
    bundle: options.Bundle,
    reading: Reading,
    pairs: Annotated[
        Path,
        typer.Option(help="Positive pairs: two id columns, header optional; negative columns hold hard negatives."),
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The run folder; default runs/BUNDLE.")] = None,
    val_pairs: Annotated[Path | None, typer.Option(help="Pairs to measure recall on while training.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the pairs.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps; overrides --epochs.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pairs a step; all other items of a step are negatives.")
    ] = None,
    tune: options.Tuned = None,
    lr: options.Rates = None,
    seed: Annotated[int | None, typer.Option(help="Of the order of the pairs, and of all else that is drawn.")] = None,
    html: options.Html = None,
    log_to: Annotated[
        str | None,
        typer.Option(help="Loggers, separated by commas: tensorboard (into RUN/tensorboard), wandb, mlflow."),
    ] = None,
    sets: options.Sets = None,
    recipe: options.RecipeFile = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Train a bundle on pairs; the trained bundle is RUN/bundle.

    The run folder is the state: the same command again goes on where it stopped. With --json, events as NDJSON; the last is the result.

    \b
    Examples:
      n2kit train models/tiny --items items.jsonl --pairs train.csv --images images -o runs/tiny --max-steps 4
      n2kit train models/tiny --items items.jsonl --pairs train.csv --images images --val-pairs val.csv -o runs/val --json
      n2kit train models/tiny --items items.jsonl --pairs train.csv --images images --tune llm=lora:4 --lr 1e-4,llm=1e-3 -o runs/lora
    """
    from n2kit.bundle.io import read_manifest, read_recipe
    from n2kit.recipe.settings import drop_none, parse_sets, resolve
    from n2kit.recipe.tuning import lr_flags, tune_flags

    read_manifest(bundle)
    check_page(html, reading.items, pairs, val_pairs)
    loggers = log_to.split(",") if log_to else None
    flags = drop_none(epochs=epochs, max_steps=max_steps, batch_size=batch_size, seed=seed, loggers=loggers)
    requested = {f"train.{key}": value for key, value in flags.items()} | tune_flags(tune) | lr_flags(lr)
    resolved = resolve({**requested, **parse_sets(sets or [])}, file=recipe, base=read_recipe(bundle))
    _refuse(resolved.recipe, device)
    _check_installed(resolved.recipe)
    catalogue = reading.catalogue(resolved.recipe.variant)
    positives = reading.pairs(pairs, catalogue, graded=True, negatives=True)
    if positives.unread:
        say(f"note: {pairs}: not read: {', '.join(positives.unread)} (hard negatives stand in columns called negative)")
    validation = reading.pairs(val_pairs, catalogue) if val_pairs else None
    folder = out or RUNS / next_run(bundle)
    say(f"{counted(len(catalogue), 'item')}, {counted(len(positives), 'pair')} → {folder}")
    if json:
        event({"event": "read"} | catalogue.facts())
    from n2kit.train import train as run

    options.loading(bundle)
    with progress("train") as bar:
        result = run(
            bundle, catalogue, positives, resolved.recipe, folder, images=reading.images, val_pairs=validation,
            on_bad_image=reading.on_bad_image.value, device=device, report=event if json else _reporter(bar),
        )  # fmt: skip
    counts = reading.skipped(result.skipped, catalogue, folder)
    if html is not None and result.bundle:
        page = Page(html, catalogue, validation or positives, reading.images, reading.on_bad_image, device)
        page.write(result.bundle, resolved.recipe.train.seed, result.sentence())
    _show_result(result, counts, json, kept=resolved.recipe.train.keep_best)


def _show_result(result: RunResult, counts: dict[str, int], json: bool, *, kept: bool) -> None:
    """Print a training's result: the bundle and a line about it, or the last event of `--json`.

    kept: the bundle has the weights of the best validation, and not those of the last step.
    """
    if json:
        event({"event": "result"} | vars(result) | {"counts": counts, "sentence": result.sentence()})
    if result.interrupted:
        say(f"stopped after step {result.steps}; a checkpoint is saved, and the same command goes on from it")
        raise typer.Exit(130)
    if result.done_before:
        say(f"this run was finished before: {result.bundle}")
    elif not json:
        recall = "".join(f" · recall@{k} {v:.3f}" for k, v in result.recall.items())
        if result.best_step is not None and not kept:
            recall += f" (of the last step; step {result.best_step} was best)"
        elif result.best_step == 0:
            recall += " (the start is kept: no step was ahead of it by more than a standard error)"
        elif result.best_step is not None:
            recall += f" (step {result.best_step} was best)"
        frozen = f" · frozen weights {result.frozen} unchanged" if result.frozen else ""
        took = f"{counted(result.steps, 'step')} in {result.seconds + result.earlier_s:.0f} s"
        say(f"{took}, last loss {result.loss:.3f}{recall}{frozen}")
        say(result.sentence())
    if not json:
        emit(result.bundle)


def _refuse(recipe: Recipe, device: str | None) -> None:
    """Refuse at once, before any data is read, a tuning that the parts do not allow or a training that does not fit this machine."""
    from n2kit.planning.advice import plan_training
    from n2kit.planning.memory import device_memory

    plan = plan_training(recipe, device_memory(device)[0])
    if plan is None:
        return
    for note in plan.notes:
        say(f"note: {note}")
    refuse(plan)


def _check_installed(recipe: Recipe) -> None:
    """Check at once that the optional packages which the recipe needs are installed."""
    if recipe.train.loggers or recipe.llm.tune.startswith("qlora"):
        from n2kit.train import fourbit, loggers

        loggers.require_packages(recipe.train.loggers)
        if recipe.llm.tune.startswith("qlora"):
            fourbit.require_bitsandbytes()


def _reporter(bar: Any) -> Any:
    """Make a function that shows log events as progress: a line for every recall, a bar for the rest."""
    recall = ""

    def report(entry: dict[str, Any]) -> None:
        nonlocal recall
        kind = entry["event"]
        if kind == "start":
            resumed = f", from step {entry['step']}" if entry["step"] else ""
            chunks = f"; {counted(entry['grad_cache'], 'item')} at a time" if "grad_cache" in entry else ""
            together = f"; {entry['processes']} processes" if "processes" in entry else ""
            say(f"{counted(entry['steps'], 'step')}{resumed}; {entry['precision']}{chunks}{together}")
            bar(entry["step"], entry["steps"])
        elif kind == "interrupt":
            say("stopping after this step (again to stop at once)")
        elif kind == "note":
            say(f"note: {entry['text']}")
        elif kind == "warning":
            author = f"; its author: {entry['author']}" if "author" in entry else ""
            say(f"plug-in {entry['plugin']}: {entry['error']}{author}")
        elif kind == "recall":
            shown = " ".join(f"{k.removeprefix('eval_')} {v:.3f}" for k, v in entry.items() if k.startswith("eval_"))
            say(f"step {entry['step']}: {shown} (best: step {entry['best_step']})")
            recall = f" · {shown}"
        else:
            terms = " ".join(f"{k} {v:.3f}" for k, v in entry.items() if k not in NO_TERM)
            speed = f"{entry['items_per_s']:.1f} items/s · {entry['memory_gb']:.1f} GB"
            bar(entry["step"], entry["steps"], f"{terms}{recall} · {speed}")

    return report
