"""n2kit bench."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from n2kit_cli import options
from n2kit_cli.bench_progress import watching
from n2kit_cli.output import event, say, table


def bench(
    matrix: Annotated[Path | None, typer.Argument(help="A matrix file; flags count over it.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder of the results; the same again goes on.")] = Path(
        "bench"
    ),
    llm: Annotated[str | None, typer.Option(help="Language models: a,b.")] = None,
    vision: Annotated[str | None, typer.Option(help="Vision encoders: a,b.")] = None,
    mllm: Annotated[str | None, typer.Option(help="Multimodal LLMs.")] = None,
    connector: Annotated[str | None, typer.Option(help="Connectors.")] = None,
    fusion: Annotated[str | None, typer.Option(help="Late fusions.")] = None,
    loss: Annotated[str | None, typer.Option(help="Losses.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variants: basic,micl,notellm2.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds 0 … N − 1 of every arm.")] = None,
    items: Annotated[Path | None, typer.Option(help="Items: CSV, TSV, JSONL or Parquet.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Training pairs.")] = None,
    val_pairs: Annotated[Path | None, typer.Option(help="Pairs for the recall that is watched while training.")] = None,
    test_pairs: Annotated[Path | None, typer.Option(help="Pairs that are ranked at the end.")] = None,
    pool: Annotated[Path | None, typer.Option(help="Ids that may be found; without it, all items.")] = None,
    images: options.Images = None,
    max_steps: Annotated[int | None, typer.Option(help="Steps of every training.")] = None,
    tune: options.Tuned = None,
    lr: options.Rates = None,
    sets: options.Sets = None,
    only: Annotated[str | None, typer.Option(help="Run those cells alone whose arm or key fits, as '*+micl'.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes; this machine's threads are divided among them.")] = 1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")] = False,
    keep_bundles: Annotated[
        bool, typer.Option("--keep-bundles", help="Keep every trained bundle; without it, results alone.")
    ] = False,
    item_format: Annotated[options.ItemFormat | None, typer.Option("--format", help="notellm: headerless CSV.")] = None,
    renames: options.Map = None,
    lenient: Annotated[bool | None, typer.Option("--lenient", help="Drop unusable rows.")] = None,
    on_bad_image: Annotated[
        options.OnBadImage | None, typer.Option("--on-bad-image", help="What to do with an image that cannot be read.")
    ] = None,
    saliency: Annotated[
        int | None, typer.Option(min=0, help="Items whose attention is followed in every arm that has it; 0 for none.")
    ] = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Train and evaluate every combination of a matrix on the same data, each cell once; the same command goes on.

    A cell is a recipe, a seed and the data. Exit 1 if a cell failed; the others are done.

    \b
    Examples:
      n2kit bench --llm qwen:tiny --vision siglip:tiny --variant basic,micl --max-steps 2 --items items.jsonl --pairs train.csv --test-pairs test.csv --images images -o bench/tiny
      n2kit bench bench/tiny/matrix.yaml -o bench/tiny --only '*+micl' --json
    """  # noqa: E501
    from n2kit.bench.cells import expand
    from n2kit.bench.context import Bench
    from n2kit.bench.data import read_data
    from n2kit.bench.matrix import run_matrix
    from n2kit.bench.spec import read_matrix
    from n2kit.bench.store import Store
    from n2kit.recipe import given, parse_sets
    from n2kit.tuning import lr_flags, tune_flags

    columns = dict(rename.partition("=")[::2] for rename in renames or [])
    flags = given(
        llm=llm, vision=vision, mllm=mllm, connector=connector, fusion=fusion, loss=loss, variant=variant, seeds=seeds,
        items=items, pairs=pairs, val_pairs=val_pairs, test_pairs=test_pairs, pool=pool, images=images,
        lenient=lenient, saliency=saliency, on_bad_image=on_bad_image and on_bad_image.value, map=columns or None,
        format=item_format and item_format.value,
    )  # fmt: skip
    steps = {"train.max_steps": max_steps} if max_steps else {}
    settings = steps | tune_flags(tune) | lr_flags(lr) | parse_sets(sets or [])
    wanted = read_matrix(matrix, flags | ({"settings": settings} if settings else {}))
    data, notes = read_data(wanted)
    for note in notes:
        say(note)
    cells = expand(wanted, data.digests)
    with watching(event if json else None) as report:
        shared = Bench(wanted, data, Store(out), device, keep_bundles, report)
        rows = run_matrix(shared, cells, only=only, retry=retry_failed, jobs=jobs)
    states = [row["state"] for row in rows]
    counts = {state: states.count(state) for state in ("done", "failed", "refused")}
    counts |= {"open": len(cells) - len(rows)}
    if json:
        event({"event": "result", "out": str(out)} | counts)
    else:
        _tables(rows)
    say(f"{', '.join(f'{count} {state}' for state, count in counts.items() if count)}: {out}")
    if "failed" in states:
        raise typer.Exit(1)


def _tables(rows: Iterable[Mapping[str, Any]]) -> None:
    """One line an arm: means over seeds, and how far these spread."""
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        arms.setdefault(row["arm"], []).append(row)
    done = [row for row in rows if row["state"] == "done"]
    shown = [name for name in (done[0]["metrics"] if done else {}) if name.startswith("recall@") or name == "mrr"]
    lines = []
    for arm, own in arms.items():
        good = [row for row in own if row["state"] == "done"]
        figures = [_mean([row["metrics"][name]["value"] for row in good]) for name in shown]
        seconds = [row["costs"]["train_s"] for row in good if row["costs"].get("train_s") is not None]
        lines.append((arm, f"{len(good)}/{len(own)}", *figures, _mean(seconds, 1)))
    table(("arm", "seeds", *shown, "train, s"), lines)
    for arm, own in arms.items():
        for state in ("failed", "refused"):
            if reasons := {row["reason"]: row["hint"] for row in own if row["state"] == state}:
                say(f"{state}: {arm}: " + "; ".join(f"{r} ({h})" if h else r for r, h in reasons.items()))


def _mean(values: list[float], digits: int = 4) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"
