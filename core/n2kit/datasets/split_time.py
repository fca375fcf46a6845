"""Pairs divided by time: by a column of their own, or by when both of their items were in a log."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from n2kit.data.column_map import mapped_columns
from n2kit.data.items import Items
from n2kit.data.pair_columns import FIELDS, PairColumns
from n2kit.data.pairs import Pair, Pairs
from n2kit.datasets.split import Split, count_parts, write_parts
from n2kit.errors import BadInput
from n2kit.mining.engine import engine, tables
from n2kit.mining.event_columns import find_columns
from n2kit.mining.event_files import EventFile, column_names, find_files, open_events
from n2kit.mining.ingest import partition_file
from n2kit.mining.run import MEMORY
from n2kit.mining.settings import MineSettings

SEEN, TIMELESS = "seen before", "without a time"
Times = dict[tuple[str, ...], int]  # ids → the first microsecond


def split_by_time(
    pairs: Pairs, items: Items, out: Path, *, file: Path, events: Iterable[str | Path] = (),
    shares: tuple[float, float] = (0.1, 0.1), columns: Mapping[str, str] | None = None, encoding: str | None = None,
) -> Split:  # fmt: skip
    """Divide pairs into train, val and test by time, the latest last, and write them, the pool and every item's bucket into `out`.

    A pair's time is that of its row; of a file without times, that of the later of its two items' first events in `events`. Pairs of
    one time are in one part. A pair that an earlier part has, in either direction, is dropped, as is one without a time.

    Args:
        file: of the pairs, with its own header. columns: user, item or time → the column (`--map time=when`).

    Raises:
        BadInput: neither the pairs nor a log has times, or a part is empty.
        Unavailable: DuckDB is not installed.
    """
    asked = dict(columns or {})
    times = _own_times(file, asked, encoding)
    if times is None:
        firsts = _first_events(events, asked, encoding, file)
        when = [_later(firsts, pair) for pair in pairs]
    else:
        when = [times.get(pair) for pair in pairs]
    known = np.sort(np.array([t for t in when if t is not None], np.int64))
    found = Split("time", {}, {}, 0)
    found.lost[TIMELESS] = len(when) - len(known)
    if not len(known):
        raise BadInput(f"{file}: no pair has a time", "are these the events of these items?")
    cuts = [known[min(int(len(known) * share), len(known) - 1)] for share in (1 - sum(shares), 1 - shares[1])]
    part = [-1 if t is None else int(t >= cuts[0]) + int(t >= cuts[1]) for t in when]
    found.lost[SEEN] = _drop_seen(pairs.pairs, part)
    found.lost = {reason: count for reason, count in found.lost.items() if count}
    of_pair = np.array(part)
    count_parts(found, pairs, of_pair)
    write_parts(found, pairs, items, out, of_pair)
    return found


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


def _own_times(file: Path, asked: Mapping[str, str], encoding: str | None) -> Times | None:
    """Read the times of a pairs file, where it has such a column; None where it has none.

    It is read as a log is, whose user and item are the two ids: times are understood alike.
    """
    names = column_names(file, encoding)
    ids = PairColumns.of(names, mapped_columns(file, FIELDS)).ids
    if len(ids) < 2:
        return None
    both = {"user": ids[0], "item": ids[1]} | {name: column for name, column in asked.items() if name == "time"}
    if both.get("time", names[0]) not in names or find_columns(names, both, str(file)).time is None:
        return None
    return _earliest([open_events(file, both, encoding)], encoding, '"user", item')


def _first_events(events: Iterable[str | Path], asked: Mapping[str, str], encoding: str | None, file: Path) -> Times:
    """Read when each item was in a log first.

    Raises:
        BadInput: there is no log, or it has no times.
    """
    logs = [open_events(path, asked, encoding) for path in find_files(events)]
    if not logs:
        hint = "--map time=COLUMN names one, --events LOG gives the items' own; pairs of a log: n2kit data mine --split time"
        raise BadInput(f"{file} has no column of times, and no log is given", hint)
    if (bare := next((log.path for log in logs if "time" not in log.named), None)) is not None:
        raise BadInput(f"{bare}: no column of the time", "--map time=COLUMN")
    return _earliest(logs, encoding, "item")


def _earliest(files: Sequence[EventFile], encoding: str | None, by: str) -> Times:
    """Read the first time of each `by`, in microseconds; rows that cannot be used have none."""
    with (
        tempfile.TemporaryDirectory(prefix="n2kit-split-") as folder,
        engine(MEMORY, Path(folder) / "spill") as connection,
    ):
        for number, file in enumerate(files):
            out = Path(folder) / "raw" / str(number)
            partition_file(connection, file, out, MineSettings(), 1, encoding=encoding)
        parts = sorted(Path(folder).glob("raw/*/b=0/*.parquet"))
        if not parts:
            return {}
        rows = connection.execute(f"SELECT {by}, min(t) FROM {tables(*parts)} GROUP BY ALL").fetchall()
    return {tuple(map(str, row[:-1])): int(row[-1]) for row in rows}
