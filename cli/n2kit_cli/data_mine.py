"""n2kit data mine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2kit.errors import counted
from n2kit_cli import options
from n2kit_cli.data_split import By, Test, Val, shares_of, split_mined, tell_passed_over
from n2kit_cli.output import document, emit, say
from n2kit_cli.progress import progress

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.mining.settings import MineSettings


class ScoreName(StrEnum):
    """The weighting of pairs."""

    paper = "paper"
    users = "count"
    jaccard = "jaccard"
    lift = "lift"
    pmi = "pmi"
    swing = "swing"


class SwingKind(StrEnum):
    """The weight of a user in swing: `falling` with his activity, or growing as Alink's published defaults have it."""

    falling = "falling"
    alink = "alink"


class Dialect(StrEnum):
    """The SQL that is printed."""

    spark = "spark"
    duckdb = "duckdb"


def mine(
    events: Annotated[
        list[str] | None,
        typer.Option(help="Logs: files, folders, patterns in quotes; CSV, TSV, JSON lines, Parquet, gzip. Repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The data folder; pairs.parquet is written there.")] = Path(
        "data"
    ),
    items: Annotated[
        Path | None,
        typer.Option(
            "--items", help="The catalogue: events of other items are dropped, and counted. --split takes that of OUT."
        ),
    ] = None,
    item_format: options.Format = options.AUTO,
    vectors: Annotated[
        Path | None,
        typer.Option("--from-vectors", help="Instead of a log: item vectors (.npy with ids beside, or Parquet)."),
    ] = None,
    score: Annotated[
        ScoreName,
        typer.Option(help="paper: the sum of 1/(a user's clicks) over who viewed one, then clicked the other."),
    ] = ScoreName.paper,
    symmetric: Annotated[bool, typer.Option("--symmetric", help="Either order of the two events counts.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Most targets of an item.")] = 20,
    lower: Annotated[float | None, typer.Option(help="Drop pairs of a lower score.")] = None,
    upper: Annotated[float | None, typer.Option(help="Drop pairs of a higher score.")] = None,
    min_users: Annotated[int, typer.Option(min=1, help="Drop pairs of fewer users.")] = 1,
    window: Annotated[str | None, typer.Option(help="Most time between the two events: 30m, 12h, 7d.")] = None,
    gap: Annotated[int | None, typer.Option(min=1, help="Most places between them in the user's history.")] = None,
    half_life: Annotated[
        str | None, typer.Option(help="Time between the two events that halves a user's weight: 1d.")
    ] = None,
    view: Annotated[list[str] | None, typer.Option(help="A type of event that is a view. Repeatable.")] = None,
    click: Annotated[list[str] | None, typer.Option(help="A type of event that is a click. Repeatable.")] = None,
    max_events: Annotated[int, typer.Option(min=2, help="Of a user with more events, the latest are used.")] = 1000,
    max_users: Annotated[
        int, typer.Option(min=2, help="Of an item with more users, so many are used by swing.")
    ] = 1000,
    power: Annotated[float, typer.Option(min=1, help="k of PMI^k.")] = 1.0,
    swing: Annotated[SwingKind, typer.Option(help="How a user's activity weighs in swing.")] = SwingKind.falling,
    split: Annotated[
        By | None, typer.Option("--split", help="Also write train, val, test and the pool: n2kit data split says how.")
    ] = None,
    val: Val = 0.1,
    test: Test = 0.1,
    renames: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Name a column of the log: --map user=visitor; user, item, time, type, weight. Or of the catalogue: --map id=sku.",
        ),
    ] = None,
    time_format: Annotated[str | None, typer.Option(help="Of times that are texts: %d.%m.%Y.")] = None,
    encoding: options.Encoding = None,
    memory: Annotated[str, typer.Option(help="Most memory that this takes: 1GB.")] = "2GB",
    print_sql: Annotated[
        Dialect | None, typer.Option(help="Print the same as one query for a cluster, and do nothing else.")
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Mine pairs from a log of any size: who viewed one item and then clicked another. Interrupted, the same command goes on.

    \b
    Examples:
      n2kit data mine --events events.csv --items items.jsonl -o .
      n2kit data mine --events events.csv --score swing --top 5 -o mined-swing --memory 1GB --json
      n2kit data mine --events events.csv --window 7d --half-life 1d --lower 0.01 -o mined-week
      n2kit data mine --print-sql spark --map user=user_id --map item=item_id --map time=ts
    """
    from n2kit.data.columns import FIELDS
    from n2kit.data.folder import data_file
    from n2kit.errors import BadInput
    from n2kit.mining.event_columns import events_map
    from n2kit.mining.settings import MineSettings, bytes_of, seconds_of
    from n2kit.utils.folders import ensure_outside_bundles

    of_items = [rename for rename in renames or [] if rename.partition("=")[0] in FIELDS]
    columns = events_map(rename for rename in renames or [] if rename not in of_items)
    settings = MineSettings(
        score.value, symmetric, tuple(view or ()), tuple(click or ()),
        None if window is None else seconds_of(window, "--window"), gap,
        None if half_life is None else seconds_of(half_life, "--half-life"),
        lower, upper, min_users, top, max_events, max_users, power, swing is SwingKind.alink,
    )  # fmt: skip
    if print_sql is not None:
        _print_sql(settings, columns, print_sql)
        return
    if (events is None) == (vectors is None):
        raise BadInput("give either --events or --from-vectors", "n2kit data mine --help")
    ensure_outside_bundles(out)
    shares = shares_of(val, test)
    listed = items or (data_file(out, "items") if out.is_dir() else None)
    if split is not None and listed is None:
        raise BadInput(f"--split needs the items, and {out} has none", "--items FILE")
    if split is By.time and vectors is not None:
        raise BadInput("--split time needs a log: vectors have no times", "--split item")
    catalogue = None
    if listed is not None and (items is not None or split is not None):
        catalogue = _catalogue(listed, item_format, of_items, encoding)
    if vectors is not None:
        _of_vectors(vectors, out, top, lower, upper, catalogue, force, json)
        if split is not None and catalogue is not None:
            split_mined(out, catalogue, split, shares, force=force)
        tell_passed_over(out)
        return
    from n2kit.mining import mine as run

    with progress("mine") as bar:
        found = run(
            events or [], out, settings, columns=columns, items=catalogue, encoding=encoding, time_format=time_format,
            memory=bytes_of(memory), split=shares if split is By.time else None, force=force,
            keep_parts=split not in (None, By.time), progress=bar, notify=say,
        )  # fmt: skip
    for note in found.notes:
        say(f"note: {note}")
    if json:
        document(vars(found))
    else:
        emit(found.pairs_file)
    say(f"{'finished before: ' if found.done_before else ''}{found.sentence()}")
    if split is not None and catalogue is not None:
        split_mined(out, catalogue, split, shares, force=force)
    tell_passed_over(out)


def _catalogue(file: Path, item_format: str, renames: list[str], encoding: str | None) -> Items:
    """Read the catalogue of a log: it may be UTF-8 where the log, whose encoding was given, is not."""
    from n2kit.errors import BadInput

    try:
        return options.read(file, item_format, renames, False)
    except BadInput:
        if encoding is None:
            raise
        return options.read(file, item_format, renames, False, encoding)


def _of_vectors(
    vectors: Path,
    out: Path,
    top: int,
    lower: float | None,
    upper: float | None,
    items: Items | None,
    force: bool,
    json: bool,
) -> None:
    from n2kit.mining.vectors import mine_vectors

    with progress("mine") as bar:
        found = mine_vectors(vectors, out, top=top, lower=lower, upper=upper, items=items, force=force, progress=bar)
    lost = "".join(f", {count:,} {reason}" for reason, count in found["dropped"].items())
    if json:
        document({"out": str(out / "pairs.parquet"), **found})
    else:
        emit(out / "pairs.parquet")
    say(f"{counted(found['used'], 'vector')} of {found['read']:,}{lost} · {counted(found['pairs'], 'pair')}")


def _print_sql(settings: MineSettings, columns: dict[str, str], dialect: Dialect) -> None:
    from n2kit.mining import sql_of

    named = {"user": "user", "item": "item", "time": "time"} | columns
    if settings.view or settings.click:
        named.setdefault("type", "type")
    emit(sql_of(settings, named, dialect=dialect.value), end="")
    say(f"reads a view `events` of {counted(len(named), 'column')}: {', '.join(named.values())}")
