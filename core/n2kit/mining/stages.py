"""The stages of a mining, each in parts that fit the memory; what a part has written whole is not done again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2kit.mining import query
from n2kit.mining.engine import SHARE, quoted, tables, write_query
from n2kit.mining.event_files import EventFile
from n2kit.mining.ingest import UNREADABLE, dropped_rows, partition_file, units_of
from n2kit.mining.settings import MineSettings
from n2kit.utils.files import atomic_write, read_json, write_json

PER_ROW, PER_PAIR, PER_SUM = 200, 100, 25  # bytes that an event, a pair of a part, and a pair of all parts take at most
SMALL = 200_000  # events of a log that is mined in one part
PARTS, MOST_PARTS = 8, 512
BATCH = 200_000  # pairs that are written at a time
SAME, CAPPED = "the same event again", "beyond --max-events of its user"
Progress = Callable[[int, int, str], None]


@dataclass
class Stages:
    """A mining in its folder `work`.

    buckets: parts by user; the parts by item are chosen when the number of pairs is known.
    of: the stages that read the log, where these mine a span of its time alone: from the first microsecond, to before the second.
    """

    connection: Any
    work: Path
    settings: MineSettings
    memory: int
    buckets: int
    progress: Progress
    done: int = 0
    total: int = 1
    of: Stages | None = None
    span: tuple[int | None, int | None] = (None, None)

    @property
    def base(self) -> Path:
        """The folder of the events and of the items' numbers."""
        return self.work if self.of is None else self.of.work

    def step(self, note: str) -> None:
        self.done += 1
        self.progress(self.done, max(self.total, self.done), note)

    def read(self, files: list[EventFile], encoding: str | None, time_format: str | None, known: Path | None) -> None:
        """Bring every file's events into parts by user."""
        for number, file in enumerate(files):
            mark = self.base / "raw" / f"{number}.json"
            if not mark.is_file():
                lost = partition_file(
                    self.connection, file, self.base / "raw" / str(number), self.settings, self.buckets,
                    encoding=encoding, time_format=time_format, known=known,
                )  # fmt: skip
                write_json(mark, {"unreadable": len(lost), "first": lost[:3]})
            self.step(f"read {file.path.name}")

    def dropped(self) -> tuple[Counter[str], dict[str, str], list[str]]:
        """Count the rows that reading dropped, with an example by reason, and the first unreadable rows."""
        counts, examples = dropped_rows(self.connection, self.base / "raw")
        marks = [read_json(mark) for mark in sorted((self.base / "raw").glob("*.json"))]
        if lost := sum(mark["unreadable"] for mark in marks):
            counts[UNREADABLE] = lost
        return counts, examples, [one for mark in marks for one in mark["first"]]

    def units(self) -> dict[str, int]:
        return units_of(self.connection, self.base / "raw")

    def number_items(self) -> int:
        """Number all items in the order of their ids; return how many there are."""
        file = self.base / "items.parquet"
        if not file.is_file():
            raw = [f for f in sorted((self.base / "raw").glob("*/b=*/*.parquet")) if f.parent.name != "b=-1"]
            names = f"SELECT DISTINCT item FROM {tables(*raw)}" if raw else "SELECT '' AS item WHERE false"
            write_query(
                self.connection,
                f"SELECT CAST(row_number() OVER (ORDER BY item) - 1 AS INTEGER) AS i, item FROM ({names})",
                file,
            )
        return int(self.connection.execute(f"SELECT count(*) FROM {tables(file)}").fetchone()[0])

    def gather_users(self) -> Counter[str]:
        """Bring each user's events together; return what was counted: events, users, and the pairs to come."""
        total: Counter[str] = Counter()
        for bucket in range(self.buckets):
            mark = self.work / "users" / f"{bucket}.json"
            if not mark.is_file():
                write_json(mark, self._gather(bucket))
            total.update(read_json(mark))
            self.step(f"users {bucket + 1} of {self.buckets}")
        return total

    def _gather(self, bucket: int) -> dict[str, int]:
        run = self.connection.execute
        raw = sorted((self.base / "raw").glob(f"*/b={bucket}/*.parquet"))
        if not raw:
            return {}
        names, swing = tables(self.base / "items.parquet"), self.settings.score == "swing"
        run(f"""CREATE OR REPLACE TEMP TABLE user_numbers AS SELECT "user", row_number() OVER (ORDER BY "user") AS u
            FROM (SELECT DISTINCT "user" FROM {tables(*raw)})""")
        run(f"""CREATE OR REPLACE TEMP TABLE events AS
            SELECT (numbers.u - 1) * {self.buckets} + {bucket} AS u, names.i, t, w, v, c FROM {tables(*raw)} AS raw
            JOIN {names} AS names ON raw.item = names.item JOIN user_numbers AS numbers ON raw."user" = numbers."user"
            WHERE {self._in_span()}""")
        run(f"CREATE OR REPLACE TEMP TABLE placed AS {query.placed_events('events', self.settings)}")
        run(f"CREATE OR REPLACE TEMP TABLE kept AS {query.kept_events('placed', self.settings)}")
        run(f"CREATE OR REPLACE TEMP TABLE sized AS {query.sized_events('kept')}")
        run(f"CREATE OR REPLACE TEMP TABLE of_users AS {query.user_items('sized')}")
        key = ", numbers.h" if swing else ""
        if swing:
            run(f"""CREATE OR REPLACE TEMP TABLE of_users AS SELECT of_users.*{key} FROM of_users
                JOIN (SELECT (u - 1) * {self.buckets} + {bucket} AS u, md5("user") AS h FROM user_numbers) AS numbers
                ON of_users.u = numbers.u""")
        write_query(self.connection, "SELECT * FROM of_users", self.work / "users" / f"{bucket}.parquet")
        if self.settings.by_event:
            write_query(self.connection, "SELECT * FROM sized", self.work / "users" / f"{bucket}.events.parquet")
        write_query(self.connection, query.popularity("of_users"), self.work / "popular" / f"{bucket}.parquet")
        counts = run(f"""SELECT (SELECT sum(same) FROM placed), (SELECT count(*) FROM placed), (SELECT count(*) FROM kept),
            count(*), count(*) FILTER (WHERE most > {self.settings.max_events}), count(*) FILTER (WHERE items = 1), sum(pairs)
            FROM (SELECT u, max(most) AS most, sum(items) AS items, sum(n * n) AS pairs FROM (
                SELECT u, max(back) AS most, 0 AS items, {"least(count(*), 1000000)" if self.settings.by_event else "0"} AS n
                FROM placed GROUP BY u
                UNION ALL SELECT u, 0, count(*), {"0" if self.settings.by_event else "count(*)"} FROM of_users GROUP BY u
            ) GROUP BY u)""").fetchone()
        rows, merged, kept, users, capped, single, pairs = (int(c or 0) for c in counts)
        for name in ("user_numbers", "events", "placed", "kept", "sized", "of_users"):
            run(f"DROP TABLE {name}")
        found = {"rows": rows, "used": kept, SAME: rows - merged, CAPPED: merged - kept}
        return found | {"users": users, "users capped": capped, "users of one item": single, "pairs": pairs}

    def _in_span(self) -> str:
        first, end = self.span
        return f"t >= {first if first is not None else -(2**63)} AND t <= {end - 1 if end is not None else 2**63 - 1}"

    def cuts(self, shares: tuple[float, float]) -> tuple[int, int]:
        """Find the times after which the last `shares` of the events lie, of validation and of test, to a thousandth of the span."""
        raw = tables(*[f for f in sorted((self.base / "raw").glob("*/b=*/*.parquet")) if f.parent.name != "b=-1"])
        first, last = self.connection.execute(f"SELECT min(t), max(t) FROM {raw}").fetchone()
        width = max(1, (last - first) // 1000)
        rows = self.connection.execute(
            f"SELECT (t - {first}) // {width} AS bin, count(*) FROM {raw} GROUP BY bin ORDER BY bin"
        ).fetchall()
        every = sum(count for _, count in rows)
        found: list[int] = []
        seen = 0
        left = (shares[0] + shares[1], shares[1])
        for bin_, count in rows:
            while len(found) < 2 and seen + count > every * (1 - left[len(found)]):
                found.append(first + bin_ * width)
            seen += count
        return found[0], found[1]

    def pair_users(self, pairs: int) -> int:
        """Sum up pairs by part of their first item, in `summed`/*/part=PART; return the number of parts."""
        share = self.memory * SHARE / 2
        groups = max(1 if self.buckets == 1 else PARTS, min(MOST_PARTS, round(pairs * PER_PAIR / self.buckets / share)))
        parts = groups * max(1, min(MOST_PARTS // groups, round(pairs * PER_SUM / share / groups)))
        chosen = self._once("parts.json", lambda: {"groups": groups, "parts": parts})
        groups, parts = int(chosen["groups"]), int(chosen["parts"])
        if self.settings.score == "swing":
            self.total = self.done + 3 * parts
            self._meet(parts)
            return parts
        self.total = self.done + self.buckets * groups + parts
        for bucket in range(self.buckets):
            users, events = (self.work / "users" / f"{bucket}{end}.parquet" for end in ("", ".events"))
            for group in range(groups):
                summed = self.work / "summed" / f"{bucket}-{group}"
                if users.is_file() and not summed.is_dir():
                    where = f"x.i % {groups} = {group}"
                    text = query.user_pairs(tables(events), tables(users), self.settings, where)
                    self._write_parts(f"SELECT *, a % {parts} AS part FROM ({text})", "part", summed)
                self.step(f"pairs of users {bucket + 1}/{self.buckets}, items {group + 1}/{groups}")
        return parts

    def _meet(self, parts: int) -> None:
        """Sum up swing's pairs: who meets whom at which items by part of the items, then pairs by part of the meetings."""
        users = tables(*sorted((self.work / "users").glob("*.parquet")))
        for part in range(parts):
            meetings = self.work / "meetings" / str(part)
            if not meetings.is_dir():
                drawn = query.swing_users(f"(SELECT * FROM {users} WHERE i % {parts} = {part})", self.settings, "h")
                met = query.swing_meetings(f"({drawn})")
                self._write_parts(f"SELECT *, (u * 31 + v) % {parts} AS m FROM ({met})", "m", meetings)
            self.step(f"meetings {part + 1}/{parts}")
        for part in range(parts):
            summed = self.work / "summed" / str(part)
            if not summed.is_dir() and (files := sorted(self.work.glob(f"meetings/*/m={part}/*.parquet"))):
                pairs = query.swing_pairs(tables(*files), self.settings)
                self._write_parts(f"SELECT *, a % {parts} AS part FROM ({pairs})", "part", summed)
            self.step(f"pairs {part + 1}/{parts}")

    def _write_parts(self, text: str, by: str, folder: Path) -> None:
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        self.connection.execute(
            f"COPY ({text}) TO {quoted(temporary)} (FORMAT parquet, PARTITION_BY ({by}), COMPRESSION zstd)"
        )
        temporary.mkdir(exist_ok=True)
        temporary.replace(folder)

    def score(self, parts: int, users: int) -> Counter[str]:
        """Score the pairs of each part and keep the best; return how many were kept, and how many dropped by reason."""
        popular = self.work / "popular.parquet"
        if not popular.is_file() and (files := sorted((self.work / "popular").glob("*.parquet"))):
            write_query(
                self.connection, f"SELECT i, sum(nv) AS nv, sum(nc) AS nc FROM {tables(*files)} GROUP BY i", popular
            )
        total: Counter[str] = Counter()
        for part in range(parts):
            mark = self.work / "best" / f"{part}.json"
            if not mark.is_file():
                write_json(mark, self._score(part, popular, users))
            total.update(read_json(mark))
            self.step(f"scores {part + 1}/{parts}")
        return total

    def _score(self, part: int, popular: Path, users: int) -> dict[str, int]:
        if not (files := sorted(self.work.glob(f"summed/*/part={part}/*.parquet"))):
            return {}
        run, settings = self.connection.execute, self.settings
        summed = f"(SELECT a, b, sum(s) AS s, sum(n) AS n FROM {tables(*files)} GROUP BY a, b)"
        run(f"CREATE OR REPLACE TEMP TABLE scored AS {query.scored(summed, tables(popular), str(users), settings)}")
        write_query(self.connection, query.top("scored", settings), self.work / "best" / f"{part}.parquet")
        low = f"score <= 0 OR score < {settings.lower or 0!r}"
        high = "false" if settings.upper is None else f"score > {settings.upper!r}"
        few = f"n < {settings.min_users}"
        every, below, above, rare = (
            run(f"""SELECT count(*), count(*) FILTER (WHERE {low}), count(*) FILTER (WHERE {high}),
            count(*) FILTER (WHERE {few} AND NOT ({low}) AND NOT ({high})) FROM scored""").fetchone()
        )
        best = run(f"SELECT count(*) FROM {tables(self.work / 'best' / f'{part}.parquet')}").fetchone()[0]
        run("DROP TABLE scored")
        names = ("below --lower", "above --upper", "of fewer than --min-users", f"beyond the best {settings.top}")
        lost = (below, above, rare, every - below - above - rare - best)
        return {"scored": every, "written": best} | dict(zip(names, lost, strict=True))

    def write_result(self, out: Path, before: Sequence[Path] = ()) -> int:
        """Write the best pairs by their items' own ids, in an order that no part decides.

        Return how many were left out because a file of `before` has them, in either direction.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names, run = tables(self.base / "items.parquet"), self.connection.execute
        best = sorted((self.work / "best").glob("*.parquet"))
        source = tables(*best) if best else "(SELECT 0 AS a, 0 AS b, 0.0 AS score WHERE false)"
        run(f"""CREATE OR REPLACE TEMP TABLE named AS
            SELECT x.item AS query, y.item AS target, CAST(best.score AS DOUBLE) AS score
            FROM {source} AS best JOIN {names} AS x ON best.a = x.i JOIN {names} AS y ON best.b = y.i""")
        every = run("SELECT count(*) FROM named").fetchone()[0]
        for file in before:
            for query_, target in (("query", "target"), ("target", "query")):
                run(f"""DELETE FROM named USING {tables(file)} AS old
                    WHERE named.query = old.{query_} AND named.target = old.{target}""")
        left = run("SELECT count(*) FROM named").fetchone()[0]
        schema = pa.schema([("query", pa.string()), ("target", pa.string()), ("score", pa.float64())])
        rows = run("SELECT * FROM named ORDER BY query, score DESC, target")
        with atomic_write(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            while batch := rows.fetchmany(BATCH):
                columns = [pa.array(c, kind) for c, kind in zip(zip(*batch, strict=True), schema.types, strict=True)]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        run("DROP TABLE named")
        return int(every - left)

    def _once(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return what was decided before, or decide it now."""
        file = self.work / name
        if not file.is_file():
            write_json(file, dict(make()))
        return dict(json.loads(file.read_text("utf8")))
