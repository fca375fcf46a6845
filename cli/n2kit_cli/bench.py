"""n2kit bench."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from n2kit.recipe.limits import MOST_RESAMPLES
from n2kit_cli import options
from n2kit_cli.bench_output import preview_document, show_preview, show_result
from n2kit_cli.bench_progress import watching
from n2kit_cli.data_folder import takes_data
from n2kit_cli.evaluate import Protocol, cutoffs
from n2kit_cli.output import document, event, say, table
from n2kit_cli.progress import progress

if TYPE_CHECKING:
    from n2kit.bench import PreparedBench


class _RunFirst(TyperGroup):
    """`n2kit bench MATRIX.yaml …` runs; a first word that is another command is that command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        chosen = args if args and args[0] in self.commands else ["run", *args]
        return super().parse_args(ctx, chosen)


app = typer.Typer(
    cls=_RunFirst, help="Run a matrix of combinations, or compare two that were run.", rich_markup_mode=None
)


@app.command()
@takes_data(pairs="train", val_pairs="val", test_pairs="test", pool="pool")
def run(
    matrix: Annotated[Path | None, typer.Argument(help="A matrix file; flags count over it.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder of the results; the same again goes on.")] = Path(
        "bench"
    ),
    llm: Annotated[str | None, typer.Option(help="Language models: a,b; n2kit ls llm.")] = None,
    vision: Annotated[str | None, typer.Option(help="Vision encoders: a,b; n2kit ls vision.")] = None,
    mllm: Annotated[
        str | None, typer.Option(help="Multimodal LLMs, each in place of llm, vision and connector.")
    ] = None,
    connector: Annotated[str | None, typer.Option(help="Connectors: qformer:16,mlp.")] = None,
    fusion: Annotated[str | None, typer.Option(help="Late fusions: gate,concat.")] = None,
    loss: Annotated[str | None, typer.Option(help="Losses; n2kit ls loss.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variants: basic,micl,notellm2.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="paper: all the paper's arms and the first baselines; quick: a few arms, few steps."),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            help="What anybody would try first: tfidf,text,vision,text-std,vision-std,concat-std,whitened,whitened-no-pairs,"
            "text-linear,vision-linear,concat,sum; or a plug-in's."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds 0 … N − 1 of every arm.")] = None,
    items: Annotated[Path | None, typer.Option(help="Items: CSV, TSV, JSONL or Parquet.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Training pairs.")] = None,
    val_pairs: Annotated[
        Path | None, typer.Option(help="Pairs that are watched while training, and choose its best step.")
    ] = None,
    test_pairs: Annotated[Path | None, typer.Option(help="Pairs that are ranked at the end.")] = None,
    pool: Annotated[Path | None, typer.Option(help="Ids that may be found; without it, all items.")] = None,
    images: options.Images = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(help="notellm2: pairs one to one, queries in no pool; standard: every pair counts."),
    ] = None,
    k: Annotated[str | None, typer.Option("--k", help="Cut-offs, separated by commas; default 1,10,100.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="A plug-in's metric beside these; n2kit plugins list names them. Repeatable."),
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MOST_RESAMPLES,
            help="Samples of the queries for the 95 % intervals; default 1000, 0 for none.",
        ),
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Steps of every training.")] = None,
    tune: options.Tuned = None,
    lr: options.Rates = None,
    sets: options.Sets = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List cells, refusals and shared work, and estimate the time; run nothing."),
    ] = False,
    only: Annotated[str | None, typer.Option(help="Run those cells alone whose arm or key fits, as '*+micl'.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes; this machine's threads are divided among them.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each task; default: this machine's, divided among the jobs.")
    ] = None,
    engine: options.Engine = options.EngineName.local,
    ray_address: options.RayAddress = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")] = False,
    keep_bundles: Annotated[
        bool, typer.Option("--keep-bundles", help="Keep every trained bundle; without it, results alone.")
    ] = False,
    item_format: Annotated[str | None, typer.Option("--format", help=options.FORMATS)] = None,
    renames: options.Map = None,
    encoding: options.Encoding = None,
    allow_no_images: Annotated[
        bool | None,
        typer.Option("--allow-no-images", help="Go on where no item has a picture, and a variant reads them."),
    ] = None,
    allow_no_texts: Annotated[
        bool | None, typer.Option("--allow-no-texts", help="Go on where no item has a text, and a variant reads them.")
    ] = None,
    fetch_images: options.FetchImages = None,
    fetch_private: Annotated[
        bool | None, typer.Option("--fetch-private", help="Download from private addresses, too.")
    ] = None,
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
    from n2kit import bench
    from n2kit.bench.matrix.spec import read_matrix
    from n2kit.recipe.settings import drop_none, parse_sets
    from n2kit.recipe.tuning import lr_flags, tune_flags

    axes = drop_none(
        preset=preset, llm=llm, vision=vision, mllm=mllm, connector=connector, fusion=fusion, loss=loss, variant=variant,
        seeds=seeds, baselines=baselines, saliency=saliency, protocol=protocol and protocol.value,
        ks=None if k is None else cutoffs(k), bootstrap=bootstrap, metrics=metric,
    )  # fmt: skip
    files = drop_none(items=items, pairs=pairs, val_pairs=val_pairs, test_pairs=test_pairs, pool=pool, images=images)
    items_map, pairs_map = options.columns(renames)
    reading = drop_none(
        lenient=lenient, on_bad_image=on_bad_image and on_bad_image.value, format=item_format,
        map=items_map | pairs_map or None, encoding=encoding, allow_no_images=allow_no_images,
        allow_no_texts=allow_no_texts, fetch_images=fetch_images, fetch_private=fetch_private,
    )  # fmt: skip
    steps = {"train.max_steps": max_steps} if max_steps else {}
    settings = steps | tune_flags(tune) | lr_flags(lr) | parse_sets(sets or [])
    spec = read_matrix(matrix, axes | files | reading | ({"settings": settings} if settings else {}))
    with progress("fetch") if spec.fetch_images else nullcontext() as bar:
        prepared = bench.prepare(
            spec, out, jobs=jobs, threads=threads, engine=engine.value, ray_address=ray_address, device=device, progress=bar
        )  # fmt: skip
    for note in prepared.notes:
        say(note)
    if dry_run:
        _preview(prepared, only, retry_failed, json)
        return
    with watching((lambda e: event(e.to_json())) if json else None) as emit:
        result = prepared.run(only=only, retry_failed=retry_failed, keep_bundles=keep_bundles, on_event=emit)
    show_result(result, prepared.read if json else None)
    if result.failed:
        raise typer.Exit(1)
    if result.counts["refused"] == result.cells:
        raise typer.Exit(2)


def _preview(prepared: PreparedBench, only: str | None, retry_failed: bool, json: bool) -> None:
    """Show what would be run. The list comes before the probe, which takes its time."""
    from n2kit.utils.durations import duration

    seen = prepared.preview(only=only, retry_failed=retry_failed)
    if not json:
        show_preview(seen)
    with progress("probe") as bar:
        seen = prepared.estimate(seen, bar)
    found, jobs = seen.estimate, prepared.engine.jobs
    seconds = None if found is None or (found.notes and not found.paces) else found.seconds / jobs
    if json:
        document(preview_document(seen, seconds) | {"read": prepared.read})
        return
    for note in found.notes if found else []:
        say(f"note: {note}")
    if seconds is not None:
        shared = f" with --jobs {jobs}" if jobs > 1 else ""
        left_out = ", and the baselines" if any(cell.baseline for cell in prepared.cells) else ""
        say(f"about {duration(seconds)}{shared}{left_out}")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="The -o of one matrix.")],
    b: Annotated[Path, typer.Argument(help="The -o of another.")],
    metric: Annotated[str | None, typer.Option(help="recall@10, mrr, …; default recall at the middle cut-off.")] = None,
    seed: options.BootstrapSeed = 0,
    json: options.Json = False,
) -> None:
    """Compare two matrices arm by arm, paired query by query where both ranked the same pairs.

    \b
    Examples:
      n2kit bench compare bench/tiny bench/tiny
      n2kit bench compare bench/tiny bench/tiny --metric mrr --json
    """
    from n2kit.bench.report import compare as run_compare

    found = run_compare(a, b, metric, seed=seed)
    if json:
        document(found.to_dict())
        return
    columns, rows = found.table()
    table(columns, rows)
    for remark in found.remarks():
        say(remark)
