"""Pairs divided by time: by a column of their own, or by when both of their items were in a log."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from n2kit.data.column_map import mapped_columns
from n2kit.data.items import Items
from n2kit.data.pair_columns import FIELDS, PairColumns
from n2kit.data.pairs import Pair, Pairs
from n2kit.datasets.split import REPEATED, Split, count_parts, repeated, write_parts
from n2kit.errors import BadInput, counted, truncate_list
from n2kit.mining.engine import engine, tables
from n2kit.mining.event_columns import find_columns, item_alone
from n2kit.mining.event_files import EventFile, column_names, find_files, open_events
from n2kit.mining.ingest import NO_TIME, dropped_rows, partition_file, units_of
from n2kit.mining.run import MEMORY, SPLITS
from n2kit.mining.settings import MineSettings
from n2kit.mining.time_formats import likely_format

SEEN, TIMELESS = "seen before", "without a time"
Times = dict[tuple[str, ...], int]  # ids → the first microsecond


def split_by_time(
    pairs: Pairs, items: Items, out: Path, *, file: Path, events: Iterable[str | Path] = (),
    shares: tuple[float, float] = (0.1, 0.1), columns: Mapping[str, str] | None = None,
    pair_columns: Mapping[str, str] | None = None, encoding: str | None = None, time_format: str | None = None,
) -> Split:  # fmt: skip
    """Divide pairs into train, val and test by time, the latest last, and write them, the pool and every item's bucket into `out`.

    A pair's time is that of its row; of a file without times, that of the later of its two items' first events in `events`. Pairs of
    one time are in one part. A pair that an earlier part has, in either direction, is dropped, as is one without a time, and one again.

    Args:
        file: of the pairs, with its own header. columns: item or time → the column (`--map time=when`); pair_columns: query or
            target → the column. time_format: of strptime, for times that are texts.

    Raises:
        BadInput: neither the pairs nor a log has times, or a part is empty.
        Unavailable: DuckDB is not installed.
    """
    how = TimeReading(encoding, time_format, columns or {})
    times = _own_times(file, pair_columns or {}, how)
    again = repeated(pairs)
    if times is None:
        firsts = _first_events(events, how, file)
        when = [_later(firsts, pair) for pair in pairs]
    else:
        when = [times.get(pair) for pair in pairs]
    when = [None if twice else time for time, twice in zip(when, again.tolist(), strict=True)]
    known = np.sort(np.array([t for t in when if t is not None], np.int64))
    found = Split("time", {}, {}, 0, notes=how.notes)
    if not len(known):
        raise _timeless(file, times is not None, how)
    if (count := len(np.unique(known))) < len(SPLITS):
        have = f"the same, {_date(known[0])}" if count == 1 else f"{count} times in all, and three parts need three"
        raise BadInput(f"{file}: {counted(len(known), 'pair')} with a time have {have}", "--by item needs no times")
    cuts = [known[min(int(len(known) * share), len(known) - 1)] for share in (1 - sum(shares), 1 - shares[1])]
    part = [-1 if t is None else int(t >= cuts[0]) + int(t >= cuts[1]) for t in when]
    lost = {
        REPEATED: int(again.sum()),
        TIMELESS: len(when) - len(known) - int(again.sum()),
        SEEN: _drop_seen(pairs.pairs, part),
    }
    found.lost = {reason: count for reason, count in lost.items() if count}
    of_pair = np.array(part)
    found.notes.append(
        f"times from {_date(known[0])}; val from {_date(cuts[0])}, test from {_date(cuts[1])} to {_date(known[-1])}"
    )
    count_parts(found, pairs, of_pair, "; --by item needs no times")
    write_parts(found, pairs, items, out, of_pair)
    return found


@dataclass
class TimeReading:
    """The way that times are read, as the flags say. notes: what was found; strange: a time that is none."""

    encoding: str | None
    time_format: str | None
    asked: Mapping[str, str]
    notes: list[str] = field(default_factory=list)
    strange: str | None = None


def _timeless(file: Path, own: bool, how: TimeReading) -> BadInput:
    """Make the error of pairs of which none has a time, `own` or by a log."""
    if how.strange is not None:
        what = f"{file if own else 'the events'}: no time is understood, for example {how.strange!r}"
        return BadInput(what, f"--time-format '{likely_format(how.strange)}', if that is how it is written")
    if own:
        return BadInput(
            f"{file}: its column of times is empty",
            "--map time=COLUMN names another, --events LOG gives the items' own",
        )
    return BadInput(f"{file}: no pair has both of its items in the events", "are these the events of these items?")


def _date(microseconds: int) -> str:
    return str(np.datetime64(int(microseconds), "us").astype("datetime64[s]")).replace("T", " ")


def _later(firsts: Times, pair: Pair) -> int | None:
    """Return the time from which both items of a pair were there."""
    seen = [firsts.get((one,)) for one in pair]
    return max(t for t in seen if t is not None) if None not in seen else None


def _drop_seen(pairs: Sequence[Pair], part: list[int]) -> int:
    """Take pairs out of a part that an earlier one has in either direction; return how many."""
    first: dict[frozenset[str], int] = {}
    for pair, n in zip(pairs, part, strict=True):
        if n >= 0:
            first[frozenset(pair)] = min(n, first.get(frozenset(pair), n))
    seen = [row for row, pair in enumerate(pairs) if part[row] > first.get(frozenset(pair), part[row])]
    for row in seen:
        part[row] = -1
    return len(seen)


def _own_times(file: Path, pair_columns: Mapping[str, str], how: TimeReading) -> Times | None:
    """Read the times of a pairs file, where it has such a column; None where it has none.

    It is read as a log is, whose user and item are the two ids: times are understood alike.
    """
    names = column_names(file, how.encoding)
    ids = PairColumns.of(names, {**mapped_columns(file, FIELDS), **pair_columns}).ids
    if len(ids) < 2:
        return None
    both = {"user": ids[0], "item": ids[1]} | {name: column for name, column in how.asked.items() if name == "time"}
    if both.get("time", names[0]) not in names or find_columns(names, both, str(file)).time is None:
        return None
    return _earliest([open_events(file, both, how.encoding)], how, '"user", item')


def _first_events(events: Iterable[str | Path], how: TimeReading, file: Path) -> Times:
    """Read when each item was in a log first.

    Raises:
        BadInput: there is no log, or it has no times.
    """
    logs = []
    for path in find_files(events):
        asked = item_alone(column_names(path, how.encoding), how.asked, str(path))
        logs.append(open_events(path, asked, how.encoding))
    if not logs:
        have = f"it has {', '.join(filter(None, column_names(file, how.encoding)))}"
        if (column := how.asked.get("time")) is not None:
            raise BadInput(
                f"{file}: no column {column}, and no log is given", f"{have}; --events LOG gives the items' own times"
            )
        hint = f"{have}; --map time=COLUMN names one, --events LOG gives the items' own; pairs of a log: n2kit data mine --split time"
        raise BadInput(f"{file} has no column of times, and no log is given", hint)
    if (bare := next((log for log in logs if "time" not in log.named), None)) is not None:
        raise BadInput(
            f"{bare.path}: no column of the time",
            f"it has {', '.join(bare.columns.unread) or 'none'}; --map time=COLUMN",
        )
    return _earliest(logs, how, "item")


def _earliest(files: Sequence[EventFile], how: TimeReading, by: str) -> Times:
    """Read the first time of each `by`, in microseconds; rows that cannot be used have none."""
    with (
        tempfile.TemporaryDirectory(prefix="n2kit-split-") as folder,
        engine(MEMORY, Path(folder) / "spill") as connection,
    ):
        raw = Path(folder) / "raw"
        for number, file in enumerate(files):
            file.columns = file.columns._replace(type=None, weight=None)  # a row of any has a time
            lost = partition_file(
                connection,
                file,
                raw / str(number),
                MineSettings(),
                1,
                encoding=how.encoding,
                time_format=how.time_format,
            )
            if lost:
                how.notes.append(f"{counted(len(lost), 'row')} could not be read: {truncate_list(lost)}")
        dropped, examples = dropped_rows(connection, raw)
        how.strange = examples.get(NO_TIME)
        if how.strange is not None:
            many = counted(dropped[NO_TIME], "time")
            how.notes.append(f"{many} not understood, such as {how.strange!r}; --time-format FORMAT reads others")
        if len(units := units_of(connection, raw)) > 1:
            how.notes.append(f"times are in {' and '.join(f'{unit} ({count:,})' for unit, count in units.items())}")
        parts = sorted(raw.glob("*/b=0/*.parquet"))
        if not parts:
            return {}
        rows = connection.execute(f"SELECT {by}, min(t) FROM {tables(*parts)} GROUP BY ALL").fetchall()
    return {tuple(map(str, row[:-1])): int(row[-1]) for row in rows}
