"""Events of any file into partitions by user: fields cleaned, times in microseconds, and a reason for each row that is not used."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2kit.data.column_map import mapped_encoding
from n2kit.errors import BadInput
from n2kit.mining.engine import quoted, tables
from n2kit.mining.event_files import EventFile, own_rows
from n2kit.mining.settings import MICRO, MineSettings

LONGEST = 1000  # characters of an id
HEAVIEST = 100_000  # of a weight
DROPPED = -1  # the partition of rows that are not used
UNREADABLE, NO_TIME = "unreadable row", "a time that is not understood"
UNLISTED = "an item that is not in the catalogue"
UNIT_NAMES = {1: "seconds", 2: "milliseconds", 3: "microseconds", 4: "nanoseconds", 5: "dates as text"}


def partition_file(
    connection: Any,
    file: EventFile,
    out: Path,
    settings: MineSettings,
    buckets: int,
    *,
    encoding: str | None = None,
    time_format: str | None = None,
    known: Path | None = None,
) -> list[str]:
    """Write a file's events to `out`/b=BUCKET, and those that are not used, with their reason, to `out`/b=-1.

    DuckDB's own reader is taken where it reads every row. Where it gives up, ours reads the file again, and names the rows.

    Args:
        known: a Parquet file of the ids that are items. time_format: of strptime, for times that are texts.

    Returns:
        The rows that could not be read.
    """
    import duckdb

    if file.is_plain and (encoding or mapped_encoding(file.path)) is None:
        try:
            _partition(connection, file, file.select(), out, settings, buckets, time_format, known)
            return []
        except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
            if file.kind == "parquet":
                what = f"{file.path}: cannot be read: {error}".splitlines()[0]
                raise BadInput(what, "write the file again") from None
        except duckdb.IOException as error:
            if file.kind == "parquet" or "space" in str(error):
                raise
    unreadable: list[str] = []
    own = out.with_name(f".{out.name}.own.parquet")
    _write_own(file, own, encoding, unreadable)
    columns = ", ".join(f"{name} AS {name}_" for name in ("user", "item", "time", "type", "weight"))
    file.types = {}
    _partition(connection, file, f"SELECT {columns} FROM {tables(own)}", out, settings, buckets, time_format, known)
    own.unlink()
    return unreadable


def _write_own(file: EventFile, own: Path, encoding: str | None, unreadable: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    own.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(name, pa.string()) for name in ("user", "item", "time", "type", "weight")])
    with pq.ParquetWriter(own, schema) as writer:
        for batch in own_rows(file, encoding, unreadable):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _partition(
    connection: Any, file: EventFile, source: str, out: Path, settings: MineSettings, buckets: int,
    time_format: str | None, known: Path | None,
) -> None:  # fmt: skip
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    query = cleaned(source, file, settings, time_format, known)
    bucket = f'CASE WHEN reason IS NULL THEN CAST(hash("user") % {buckets} AS INTEGER) ELSE {DROPPED} END AS b'
    kept = ", ".join(f"CASE WHEN reason IS NULL THEN {name} END AS {name}" for name in ('"user"', "item", "t", "w"))
    example = f"CASE WHEN reason = {quoted(UNLISTED)} THEN left(item, 40) ELSE example END AS example"
    connection.execute(
        f"COPY (SELECT {kept}, v, c, unit, reason, {example}, {bucket} FROM ({query})) TO {quoted(temporary)} "
        "(FORMAT parquet, PARTITION_BY (b), COMPRESSION zstd)"
    )
    temporary.mkdir(exist_ok=True)
    temporary.replace(out)


def cleaned(source: str, file: EventFile, settings: MineSettings, time_format: str | None, known: Path | None) -> str:
    """Write the query of cleaned events: user, item, t, w, whether it is a view and a click, and the reason against it."""
    has = file.named
    moment = _moment(file.types.get("time"), time_format) if "time" in has else ("0", "0")
    weight = "try_cast(weight_ AS DOUBLE)" if "weight" in has else "1.0"
    known_types = [*settings.view, *settings.click]
    kind = "trim(type_)" if "type" in has else "''"
    used = f"{kind} IN ({', '.join(map(quoted, known_types))})" if known_types else "true"
    member = f"AND item NOT IN (SELECT id FROM {tables(known)})" if known else "AND false"
    return f"""
        SELECT *, CASE
            WHEN "user" IS NULL OR "user" = '' THEN 'no user'
            WHEN item IS NULL OR item = '' THEN 'no item'
            WHEN greatest(length("user"), length(item)) > {LONGEST} THEN 'an id longer than {LONGEST} characters'
            WHEN contains("user", chr(0)) OR contains(item, chr(0)) THEN 'a NUL character in an id'
            WHEN NOT used THEN 'another type of event'
            WHEN no_time THEN 'no time'
            WHEN t IS NULL THEN {quoted(NO_TIME)}
            WHEN w IS NULL OR NOT isfinite(w) OR w <= 0 OR w > {HEAVIEST} THEN 'a weight that is no number above 0'
            WHEN true {member} THEN {quoted(UNLISTED)}
        END AS reason, CASE WHEN t IS NULL THEN left(given, 40) END AS example
        FROM (SELECT trim(user_) AS "user", trim(item_) AS item, {moment[0]} AS t, CAST({moment[1]} AS TINYINT) AS unit,
            coalesce({weight}, {"NULL" if "weight" in has else "1.0"}) AS w, coalesce({used}, false) AS used,
            {_is(kind, settings.view, known_types)} AS v, {_is(kind, settings.click, known_types)} AS c,
            CAST(time_ AS VARCHAR) AS given, {"time_ IS NULL OR trim(CAST(time_ AS VARCHAR)) = ''" if "time" in has else "false"} AS no_time
            FROM ({source}))"""


def _is(kind: str, types: Sequence[str], any_types: Sequence[str]) -> str:
    """Write the test whether an event is of these types; without any at all, every event is."""
    if not any_types or not types:
        return "true" if not any_types else f"coalesce({kind} IN ({', '.join(map(quoted, any_types))}), false)"
    return f"coalesce({kind} IN ({', '.join(map(quoted, types))}), false)"


def _moment(kind: str | None, time_format: str | None) -> tuple[str, str]:
    """Write the microseconds of a time, and the unit that it is in.

    A number is in the unit that makes it a moment of our days; several units may be mixed in one log.
    """
    if kind == "time":
        return "epoch_us(time_)", "5"
    text = "trim(CAST(time_ AS VARCHAR))"
    if time_format is not None:
        return f"epoch_us(try_strptime({text}, {quoted(time_format)}))", "5"
    number = f"try_cast({text} AS DOUBLE)"
    compact = f"coalesce(try_strptime({text}, '%Y%m%d'), try_strptime({text}, '%Y%m%d%H%M%S'))"
    is_compact = f"length({text}) IN (8, 14) AND left({text}, 2) IN ('19', '20') AND {compact} IS NOT NULL"
    size = f"abs({number})"
    unit = f"CASE WHEN {size} < 1e11 THEN 1 WHEN {size} < 1e14 THEN 2 WHEN {size} < 1e17 THEN 3 ELSE 4 END"
    scale = (
        f"CASE WHEN {size} < 1e11 THEN {MICRO}e0 WHEN {size} < 1e14 THEN 1e3 WHEN {size} < 1e17 THEN 1e0 ELSE 1e-3 END"
    )
    micros = f"CASE WHEN isfinite({number}) AND {size} < 9e18 THEN CAST({number} * {scale} AS BIGINT) END"
    moment = f"CASE WHEN {is_compact} THEN epoch_us({compact}) WHEN {number} IS NOT NULL THEN {micros} "
    return (
        moment + f"ELSE epoch_us(try_cast({text} AS TIMESTAMP)) END",
        f"CASE WHEN {is_compact} THEN 5 WHEN {number} IS NOT NULL THEN {unit} ELSE 5 END",
    )


def dropped_rows(connection: Any, folder: Path) -> tuple[Counter[str], dict[str, str]]:
    """Count the rows that are not used by reason, and give an example of each: of a time that is not understood, and of an item."""
    if not (files := sorted(folder.glob(f"*/b={DROPPED}/*.parquet"))):
        return Counter(), {}
    rows = connection.execute(
        f"SELECT reason, count(*), min(example) FROM {tables(*files)} GROUP BY reason ORDER BY reason"
    ).fetchall()
    return Counter({reason: count for reason, count, _ in rows}), {reason: e for reason, _, e in rows if e}


def units_of(connection: Any, folder: Path) -> dict[str, int]:
    """Count the used rows by the unit of their time."""
    if not (files := sorted(f for f in folder.glob("*/b=*/*.parquet") if f.parent.name != f"b={DROPPED}")):
        return {}
    rows = connection.execute(f"SELECT unit, count(*) FROM {tables(*files)} GROUP BY unit ORDER BY unit").fetchall()
    return {UNIT_NAMES[unit]: count for unit, count in rows if unit in UNIT_NAMES}
