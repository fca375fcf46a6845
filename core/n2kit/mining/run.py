"""A mining from files to a file of pairs: begun once, gone on with after an interruption, its counts added up."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from n2kit.data.column_map import mapped_encoding
from n2kit.data.items import Items
from n2kit.data.text_files import encoding_notes
from n2kit.errors import BadInput, Failed, counted, truncate_list
from n2kit.mining.engine import SHARE, engine
from n2kit.mining.event_files import EventFile, find_files, open_events
from n2kit.mining.ingest import UNREADABLE
from n2kit.mining.reasons import check_splits, example_notes, no_event, why_no_pair
from n2kit.mining.result import Mined
from n2kit.mining.settings import MineSettings
from n2kit.mining.stages import CAPPED, PARTS, PER_ROW, SAME, SMALL, Progress, Stages
from n2kit.utils.files import read_json, remove_temporaries, write_json
from n2kit.utils.locks import output_lock

PAIRS, REPORT, WORK = "pairs.parquet", "mine.json", ".mine"
SPLITS = ("train", "val", "test")
MEMORY = 2_000_000_000
PACKED, LINE = 5, 25  # how much smaller gzip is, and the bytes of a row of text


def mine(
    events: Iterable[str | Path],
    out: str | Path,
    settings: MineSettings | None = None,
    *,
    columns: dict[str, str] | None = None,
    items: Items | None = None,
    encoding: str | None = None,
    time_format: str | None = None,
    memory: int = MEMORY,
    buckets: int | None = None,
    split: tuple[float, float] | None = None,
    force: bool = False,
    keep_parts: bool = False,
    progress: Progress | None = None,
    notify: Callable[[str], None] | None = None,
) -> Mined:
    """Mine pairs from logs into `out`/pairs.parquet: query, target, score. The same call again goes on where it stopped.

    >>> n2kit.mining.mine(["log/*.parquet"], "data").sentence()

    Args:
        events: files, patterns and folders: CSV, TSV, JSON lines or Parquet, also gzip. Larger than memory is well.
        columns: user, item, time, type or weight → the log's own column (`--map user=visitor`).
        items: the catalogue; events of other items are dropped, and counted.
        memory: bytes that this process takes at most. buckets: parts by user; chosen by size.
        split: shares of validation and of test, the last of the log's time: then train.parquet, val.parquet and test.parquet are
            written, each mined from its own time alone. A pair of validation or test that was seen before is dropped.
        keep_parts: those of an earlier split by time stay, since a split that follows replaces them, or fails.

    Raises:
        BadInput: no such file or column, no event that can be used, or `out` has pairs of another mining.
        Unavailable: DuckDB is not installed, or the memory or the disk is too small.
    """
    settings = settings or MineSettings()
    settings.check()
    out = Path(out)
    say = notify or (lambda _: None)
    files = [open_events(path, columns or {}, encoding) for path in find_files(events)]
    settings, notes = _fitting(files, settings)
    texts = [file.path for file in files if file.kind != "parquet"]
    notes += [note for path in texts for note in encoding_notes(path, encoding)]
    encodings = encoding or {str(path): own for path in texts if (own := mapped_encoding(path))} or None
    if split is not None and any("time" not in file.named for file in files):
        raise BadInput("--split time needs a column of the time in every file", "--map time=COLUMN, or --split item")
    key = _key(files, settings, items, [encodings, time_format, split])
    targets = [out / PAIRS] if split is None else [out / f"{name}.parquet" for name in SPLITS]
    with output_lock(out / PAIRS):
        older = earlier_files(out, targets)
        if (found := _finished(targets, older, key, force)) is not None:
            check_splits(found, out)
            return found
        remove_temporaries(out, REPORT, *(target.name for target in targets))
        work = _begun(out, key, buckets or _buckets(files, memory), say)
        buckets = int(read_json(work / "plan.json")["buckets"])
        known = _known(items, work)
        with _nothing_left(work), engine(memory, work / "spill") as connection:
            stages = Stages(connection, work, settings, memory, buckets, progress or (lambda *_: None))
            stages.total = len(files) + 2 * buckets
            stages.read(files, encoding, time_format, known)
            mined = _mined(stages, settings, files, targets, notes, split, items)
            if split is not None:
                _check_parts(mined, out, say)
            for target in targets:
                (work / target.name).replace(target)
        if not keep_parts:
            remove_files(older)
        write_json(
            out / REPORT,
            {"key": key, **{k: v for k, v in vars(mined).items() if k not in ("pairs_file", "done_before")}},
        )
        shutil.rmtree(work)
    return mined


def _check_parts(mined: Mined, out: Path, say: Callable[[str], None]) -> None:
    """Check that no part is empty; what the reader took is said before that."""
    try:
        check_splits(mined, out)
    except Failed:
        for note in mined.notes:
            say(f"note: {note}")
        raise


@contextmanager
def _nothing_left(work: Path) -> Iterator[None]:
    """Remove the work on a log that cannot be used: whoever mends it begins anew."""
    try:
        yield
    except (BadInput, Failed):
        shutil.rmtree(work)
        raise


def _mined(
    stages: Stages, settings: MineSettings, files: Sequence[EventFile], targets: list[Path], notes: list[str],
    split: tuple[float, float] | None, known: Items | None,
) -> Mined:  # fmt: skip
    """Mine the events that were read, and write each target's pairs beside the work, by its name."""
    dropped, examples, unreadable = stages.dropped()
    items = stages.number_items()
    if not items:
        raise no_event(truncate_list([str(f.path) for f in files]), dropped, examples, unreadable, known)
    written = [stages.work / target.name for target in targets]
    spans: list[Stages] = [stages] if split is None else _spans(stages, split)
    users, found, splits = Counter[str](), Counter[str](), {}
    for span, target in zip(spans, written, strict=True):
        people = span.gather_users()
        scores = span.score(span.pair_users(people["pairs"]), people["users"])
        scores["seen before"] = span.write_result(target, written[: written.index(target)])
        scores["written"] -= scores["seen before"]
        users, found = users + people, found + scores
        splits[target.stem] = {
            "events": people["used"],
            "users": people["users"],
            "pairs": scores["written"],
            "from": span.span[0],
        }
    for reason in (SAME, CAPPED):
        dropped[reason] = users[reason]
    read = users["rows"] + sum(count for reason, count in dropped.items() if reason not in users)
    rows: dict[str, Any] = {
        "read": read,
        "used": users["used"],
        "dropped": {reason: n for reason, n in dropped.items() if n},
    }
    kept = {k: n for k, n in found.items() if k not in ("scored", "written") and n}
    pairs: dict[str, Any] = {"scored": found["scored"], "written": found["written"], "dropped": kept}
    assert rows["read"] == rows["used"] + sum(rows["dropped"].values()), rows
    assert pairs["scored"] == pairs["written"] + sum(kept.values()), pairs
    units = stages.units() if files[0].columns.time is not None else {}
    if len(units) > 1:
        notes.append(f"times are in {' and '.join(f'{unit} ({count:,})' for unit, count in units.items())}")
    if unreadable:
        notes.append(f"{counted(dropped[UNREADABLE], 'row')} could not be read: {truncate_list(unreadable)}")
    notes += example_notes(examples, known)
    named = {name: column for file in files for name, column in file.named.items()}
    crowd = {name: users[name] for name in ("users", "users of one item", "users capped")}
    of_parts = {} if split is None else splits
    mined = Mined(targets[0], rows, pairs, crowd, items, units, named, notes, settings.facts(), of_parts)
    if split is None and not found["written"]:
        notes.append(f"no pair was mined: {why_no_pair(mined)}")
    return mined


def _spans(stages: Stages, shares: tuple[float, float]) -> list[Stages]:
    """Make the stages of each span of the log's time."""
    first, second = stages.cuts(shares)
    bounds = ((None, first), (first, second), (second, None))
    return [
        replace(stages, work=stages.work / name, of=stages, span=span)
        for name, span in zip(SPLITS, bounds, strict=True)
    ]


def _fitting(files: Sequence[EventFile], settings: MineSettings) -> tuple[MineSettings, list[str]]:
    """Fit the settings to what the log has; say what was taken for granted.

    Raises:
        BadInput: a setting needs a column that a file lacks.
    """
    notes = []
    for file in files:
        for name, flags in (("time", ("window", "gap", "half_life")), ("type", ("view", "click"))):
            wanted = [flag for flag in flags if getattr(settings, flag)]
            if wanted and name not in file.named:
                flag = wanted[0].replace("_", "-")
                raise BadInput(f"{file.path}: no column of the {name}, which --{flag} needs", f"--map {name}=COLUMN")
    if any("time" not in file.named for file in files) and not settings.undirected:
        settings = replace(settings, symmetric=True)
        notes.append(
            "the log has no times (--map time=COLUMN names them): either order of two items counts (as with --symmetric)"
        )
    if unread := dict.fromkeys(name for file in files for name in file.columns.unread):
        notes.append(f"not read: {', '.join(unread)}")
    if any("type" in file.named for file in files) and not (settings.view or settings.click):
        notes.append("every type of event is both a view and a click; --view TYPE and --click TYPE tell them apart")
    if any("weight" in file.named for file in files) and settings.score not in ("paper", "count"):
        notes.append(f"the column of weights is not used by --score {settings.score}")
    return settings, notes


def _key(files: Sequence[EventFile], settings: MineSettings, items: Items | None, how: list[Any]) -> str:
    """Hash all that decides the result: settings, and files by place, size and time."""
    facts = [[str(f.path.resolve()), f.path.stat().st_size, f.path.stat().st_mtime_ns, f.columns] for f in files]
    whole = [settings.facts(), facts, items.digest() if items else None, how]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:16]


def earlier_files(out: Path, targets: list[Path]) -> list[Path]:
    """List the files in a folder that an earlier mining wrote, as its report says, and that one with these `targets` would leave."""
    if not (out / REPORT).is_file():
        return []
    names = [f"{name}.parquet" for name in SPLITS] if read_json(out / REPORT).get("splits") else [PAIRS]
    return [file for name in names if (file := out / name).exists() and file not in targets]


def remove_files(files: Iterable[Path]) -> None:
    """Remove what an earlier mining wrote: the report is of another one now."""
    for file in files:
        file.unlink(missing_ok=True)


def _finished(targets: list[Path], older: list[Path], key: str, force: bool) -> Mined | None:
    """Return the result if the same mining was finished before; `older`: files of another one, which it would leave.

    Raises:
        BadInput: the pairs there are of another one, or nobody knows of which.
    """
    report = targets[0].parent / REPORT
    there = [file for file in (*targets, *older) if file.exists()]
    if not there or force:
        return None
    found = read_json(report) if report.is_file() else {}
    if found.pop("key", None) == key and there == targets:
        return Mined(pairs_file=targets[0], done_before=True, **found)
    if found or not (targets[0].parent / WORK).is_dir():
        raise BadInput(f"{there[0]} exists, and is of another log or other settings", "give another -o, or --force")
    return None


def _begun(out: Path, key: str, buckets: int, say: Callable[[str], None]) -> Path:
    """Give the folder of the work: what an interrupted mining of the same left, or a new one."""
    work = out / WORK
    plan = work / "plan.json"
    if plan.is_file() and read_json(plan).get("key") == key:
        say(f"going on with what is in {work}")
    else:
        shutil.rmtree(work, ignore_errors=True)
        write_json(plan, {"key": key, "buckets": buckets})
    shutil.rmtree(work / "spill", ignore_errors=True)
    return work


def _buckets(files: Sequence[EventFile], memory: int) -> int:
    """Choose the number of parts by user, from the size of the files."""
    import pyarrow.parquet as pq

    rows = 0
    for file in files:
        if file.kind == "parquet":
            rows += pq.read_metadata(file.path).num_rows
        else:
            rows += file.path.stat().st_size * (PACKED if "gzip" in file.table else 1) // LINE
    return 1 if rows < SMALL else max(PARTS, min(256, round(rows * PER_ROW / (memory * SHARE / 2))))


def _known(items: Items | None, work: Path) -> Path | None:
    """Write the ids of the catalogue as a table."""
    if items is None:
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = work / "known.parquet"
    pq.write_table(pa.table({"id": pa.array([item.id for item in items], pa.string())}), file)
    return file
