"""n2kit data split."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import document, emit, say

if TYPE_CHECKING:
    from n2kit.datasets.split import Split

Val = Annotated[float, typer.Option("--val", min=0.0, max=0.9, help="The share of validation.")]
Test = Annotated[float, typer.Option("--test", min=0.0, max=0.9, help="The share of test.")]


class By(StrEnum):
    """The way of a split."""

    time = "time"
    item = "item"
    component = "component"


def shares_of(val: float, test: float) -> tuple[float, float]:
    """Return both shares.

    Raises:
        BadInput: nothing is left to train on, or a part is to be empty.
    """
    from n2kit.errors import BadInput

    if val + test >= 1 or val <= 0 or test <= 0:
        raise BadInput(f"--val {val:g} --test {test:g}: train, val and test each need a share", "--val 0.1 --test 0.1")
    return val, test


def split(
    data: Annotated[Path, typer.Argument(help="The data folder: items, pairs, and images where there are some.")],
    by: Annotated[
        By,
        typer.Option(
            help="item: parts share no item (the paper's); component: nor is any pair lost; time: by a column of the pairs, or --events."
        ),
    ] = By.item,
    val: Val = 0.1,
    test: Test = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    together: Annotated[
        bool, typer.Option("--together", help="Items of the same image or text are in one part.")
    ] = False,
    allow: Annotated[
        bool, typer.Option("--allow", help="Items of the same image or text may be in two parts; they are counted.")
    ] = False,
    events: Annotated[
        list[str] | None,
        typer.Option(
            help="By time, of pairs without one: logs, whose first event of an item says when it was there. Repeatable."
        ),
    ] = None,
    renames: Annotated[
        list[str] | None, typer.Option("--map", help="By time: name a column, such as --map time=when. Repeatable.")
    ] = None,
    lenient: options.Lenient = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Divide pairs into train, val and test that share no item; items of the same image or text on two sides are refused.

    Writes train.parquet, val.parquet, test.parquet, pool.parquet (all items) and buckets.csv (how often each item was trained on).

    \b
    Examples:
      n2kit data split . --val 0.4 --test 0.3 --allow --force
      n2kit data split . --val 0.4 --test 0.3 --allow --force --seed 1 --json
      n2kit data split . --by time --val 0.3 --test 0.3 --force
    """
    from n2kit.data.folder import data_file, needed_file
    from n2kit.errors import BadInput

    shares = shares_of(val, test)
    if by is By.time and (together or allow):
        raise BadInput("--together and --allow are for items on two sides, which a split by time has", "leave them out")
    if by is not By.time and (events or renames):
        raise BadInput("--events and --map are for a split by time", "--by time")
    for name in ("train", "val", "test", "pool"):
        if (there := data_file(data, name)) is not None and not force:
            raise BadInput(f"{there} exists", "--force replaces it")
    items_file = needed_file(data, "items")
    if by is By.time:
        found = split_times(data, items_file, shares, events or [], renames or [], lenient)
    else:
        found = split_folder(data, items_file, by, shares, seed, together, allow, lenient)
    if json:
        document(vars(found))
    else:
        emit(data / "train.parquet")
    say(found.sentence())


def split_times(
    data: Path, items_file: Path, shares: tuple[float, float], events: list[str], renames: list[str], lenient: bool
) -> Split:
    """Divide the pairs of a data folder by time; its own log serves where no other is given."""
    from n2kit.data.folder import data_file, needed_file
    from n2kit.datasets.split_time import split_by_time
    from n2kit.mining.event_columns import events_map
    from n2kit.utils.locks import output_lock

    columns = events_map(renames)
    file = needed_file(data, "pairs")
    items = options.read(items_file, options.AUTO, None, lenient)
    pairs = options.read_pairs(file, items, lenient)
    log = data_file(data, "events")
    logs = events or ([] if log is None else [str(log)])
    with output_lock(data / "split"):
        return split_by_time(pairs, items, data, file=file, events=logs, shares=shares, columns=columns)


def split_folder(
    data: Path, items_file: Path, by: By, shares: tuple[float, float], seed: int = 0, together: bool = False,
    allow: bool = False, lenient: bool = False, item_format: str = options.AUTO,
) -> Split:  # fmt: skip
    """Divide the pairs of a data folder."""
    from n2kit.data.folder import data_file, needed_file
    from n2kit.datasets.split import split as run
    from n2kit.utils.locks import output_lock

    items = options.read(items_file, item_format, None, lenient)
    pairs = options.read_pairs(needed_file(data, "pairs"), items, lenient)
    with output_lock(data / "split"):
        return run(
            pairs, items, data, by="item" if by is By.item else "component", shares=shares, images=data_file(data, "images"), seed=seed,
            together=together, allow=allow,
        )  # fmt: skip


def after_mining(out: Path, items_file: Path, item_format: str) -> None:
    """Write the pool and the buckets of a split by time."""
    from n2kit.data.pairs import read_pairs
    from n2kit.datasets.split import Split, write_pool

    items = options.read(items_file, item_format, None, False)
    train = Counter(i for pair in read_pairs(out / "train.parquet", items) for i in pair)
    found = Split("time", {}, {}, 0)
    write_pool(out, items, train, found)
    say(f"{out / 'buckets.csv'}: {', '.join(f'{count:,} {name}' for name, count in found.buckets.items())}")
