"""n2kit data split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import document, emit, say

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.data.pairs import Pairs
    from n2kit.datasets.split import Split

TIMED = ("time", "item")  # fields of --map that are of a split by time

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
    item_format: options.Format = options.AUTO,
    renames: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="Name a column: --map title=name, query=left; by time also time=when, item=sku. Repeatable."
        ),
    ] = None,
    encoding: options.Encoding = None,
    time_format: Annotated[str | None, typer.Option(help="By time, of times that are texts: %d.%m.%Y.")] = None,
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
    from n2kit.data.folder import PARTS, data_file, needed_file
    from n2kit.errors import BadInput

    shares = shares_of(val, test)
    if by is By.time and (together or allow):
        raise BadInput("--together and --allow are for items on two sides, which a split by time has", "leave them out")
    if by is not By.time and (events or time_format):
        raise BadInput("--events and --time-format are for a split by time", "--by time")
    items_file, pairs_file = needed_file(data, "items"), needed_file(data, "pairs")
    for name in (*PARTS, "pool"):
        if (there := data_file(data, name)) is not None and not force:
            own = f"--force writes {name}.parquet, which then counts over it"
            raise BadInput(f"{there} exists", "--force replaces it" if there.suffix == ".parquet" else own)
    times, others = _own_fields(renames or [])
    if times and by is not By.time:
        raise BadInput(f"--map {times[0]} is for a split by time", "--by time")
    reading = DataReading(items_file, item_format, others, encoding, lenient)
    if by is By.time:
        found = _split_times(data, pairs_file, reading, shares, events or [], times, time_format)
    else:
        items = reading.items()
        pairs = reading.pairs(pairs_file, items)
        found = split_folder(data, items, pairs, by, shares, seed, together, allow)
    for note in found.notes:
        say(f"note: {note}")
    if json:
        document(vars(found))
    else:
        emit(data / "train.parquet")
    say(found.sentence())
    tell_passed_over(data)


def tell_passed_over(data: Path) -> None:
    """Say which files of a data folder are not read, because others, such as those that were just written, count over them."""
    from n2kit.data.folder import passed_over

    for note in passed_over(data):
        say(f"note: {note}")


@dataclass
class DataReading:
    """The items and pairs of a data folder, and how the flags say that they are read."""

    items_file: Path
    item_format: str = options.AUTO
    renames: list[str] | None = None
    encoding: str | None = None
    lenient: bool = False

    def items(self) -> Items:
        return options.read(self.items_file, self.item_format, self.renames, self.lenient, self.encoding)

    def pairs(self, file: Path, items: Items) -> Pairs:
        return options.read_pairs(file, items, self.lenient, renames=self.renames, encoding=self.encoding)


def _own_fields(renames: list[str]) -> tuple[list[str], list[str]]:
    """Divide `--map` into that of times and their items, and that of items and pairs."""
    times = [one for one in renames if one.partition("=")[0] in TIMED]
    return times, [one for one in renames if one not in times]


def _split_times(
    data: Path, file: Path, reading: DataReading, shares: tuple[float, float], events: list[str], times: list[str],
    time_format: str | None,
) -> Split:  # fmt: skip
    """Divide the pairs of a data folder by time; its own log serves where no other is given."""
    from n2kit.data.folder import data_file
    from n2kit.datasets.split_time import split_by_time
    from n2kit.mining.event_columns import events_map
    from n2kit.utils.locks import output_lock

    columns = events_map(times, TIMED)
    items = reading.items()
    pairs = reading.pairs(file, items)
    log = data_file(data, "events")
    logs = events or ([] if log is None else [str(log)])
    with output_lock(data / "split"):
        return split_by_time(
            pairs, items, data, file=file, events=logs, shares=shares, columns=columns,
            pair_columns=options.columns(reading.renames)[1], encoding=reading.encoding, time_format=time_format,
        )  # fmt: skip


def split_folder(
    data: Path, items: Items, pairs: Pairs, by: By, shares: tuple[float, float], seed: int = 0, together: bool = False,
    allow: bool = False, replace: bool = True,
) -> Split:  # fmt: skip
    """Divide the pairs of a data folder by their items."""
    from n2kit.data.folder import data_file
    from n2kit.datasets.split import split as run
    from n2kit.utils.locks import output_lock

    with output_lock(data / "split"):
        return run(
            pairs, items, data, by="item" if by is By.item else "component", shares=shares, images=data_file(data, "images"), seed=seed,
            together=together, allow=allow, replace=replace,
        )  # fmt: skip


def split_mined(out: Path, items: Items, by: By, shares: tuple[float, float], *, force: bool) -> None:
    """Divide the pairs that were mined; by time they are divided already, and the pool and the buckets are written.

    Raises:
        BadInput: parts of another split are there, without force. Failed: there are none to train on.
    """
    import pyarrow.parquet as pq

    from n2kit.data.pairs import read_pairs
    from n2kit.datasets.split import Split, write_pool
    from n2kit.errors import Failed

    file = out / ("train.parquet" if by is By.time else "pairs.parquet")
    if not pq.read_metadata(file).num_rows:
        raise Failed(f"{file}: no pair was mined", "a longer log, or looser bounds: users of one item make no pair")
    pairs = read_pairs(file, items)
    if by is not By.time:
        say(split_folder(out, items, pairs, by, shares, replace=force).sentence())
        return
    found = Split("time", {}, {}, 0)
    write_pool(out, items, Counter(i for pair in pairs for i in pair), found)
    say(f"{out / 'buckets.csv'}: {', '.join(f'{count:,} {name}' for name, count in found.buckets.items())}")
