"""Pairs out of logs: equal to plain Python, in any number of parts, after any interruption; and every row is accounted for."""

from __future__ import annotations

import csv
import gzip
import json
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mined import Event, reference
from n2kit.data.items import Item, Items
from n2kit.errors import BadInput, Failed, Unavailable
from n2kit.mining import MineSettings, mine, sql_of
from n2kit.mining.ingest import UNLISTED, UNREADABLE
from n2kit.mining.settings import bytes_of, seconds_of
from n2kit.mining.time_formats import likely_format
from n2kit.mining.vectors import mine_vectors

pytest.importorskip("duckdb")
START = 1_700_000_000
CODES = Items([Item(f"00{n}") for n in range(1, 4)])  # of items
SETTINGS = [
    MineSettings(),
    MineSettings(top=2, lower=0.1, upper=1.2),
    MineSettings(symmetric=True, min_users=2),
    MineSettings(view=("view", "click"), click=("click",)),
    MineSettings(window=20.0, half_life=7.0),
    MineSettings("count", gap=2),
    MineSettings("count", symmetric=True, window=30.0),
    MineSettings("jaccard"),
    MineSettings("lift", view=("view",), click=("click",)),
    MineSettings("pmi"),
    MineSettings("pmi", power=2.0),
    MineSettings("swing"),
    MineSettings("swing", alink=True, top=3),
    MineSettings(max_events=3),
]

NAMES = [f"{n}-{one.score}" for n, one in enumerate(SETTINGS)]


def log_of(seed: int, events: int = 160) -> list[Event]:
    draw = random.Random(seed)
    return [
        Event(
            f"user {draw.randrange(12)}", f"i{int(draw.paretovariate(1)) % 14}", (START + draw.randrange(90)) * 1_000_000,
            draw.choice(["view", "click"]), draw.choice([1.0, 1.0, 2.0, 0.25]),
        )
        for _ in range(events)
    ]  # fmt: skip


def write_log(file: Path, log: list[Event]) -> Path:
    with file.open("w", newline="") as target:
        rows = ((e.user, e.item, e.time // 1_000_000, e.type, e.weight) for e in log)
        csv.writer(target).writerows([("user", "item", "time", "type", "weight"), *rows])
    return file


def write_text(file: Path, text: str) -> None:
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


def scores_of(file: Path) -> dict[tuple[str, str], float]:
    return {(row["query"], row["target"]): row["score"] for row in pq.read_table(file).to_pylist()}


def test_users_with_2_10_and_4_clicks_give_085(tmp_path: Path) -> None:
    others = [["a", "b"], ["a", "b", *(f"x{n}" for n in range(8))], ["a", "b", "y", "z"]]
    log = [Event(f"u{n}", item, k * 1_000_000) for n, items in enumerate(others) for k, item in enumerate(items)]
    found = mine([write_log(tmp_path / "log.csv", log)], tmp_path / "out")
    assert scores_of(found.pairs_file)["a", "b"] == pytest.approx(0.85, abs=1e-12)
    assert ("b", "a") not in scores_of(found.pairs_file)


@pytest.mark.parametrize("chosen", SETTINGS, ids=NAMES)
def test_equal_to_plain_python_in_any_number_of_parts(chosen: MineSettings, tmp_path: Path) -> None:
    log = log_of(7)
    file = write_log(tmp_path / "log.csv", log)
    one = mine([file], tmp_path / "one", chosen)
    expected = reference(log, chosen)
    assert len(expected) > 3
    assert scores_of(one.pairs_file) == pytest.approx(expected, abs=1e-9)
    parts = mine([file], tmp_path / "parts", chosen, buckets=3)
    assert pq.read_table(parts.pairs_file).equals(
        pq.read_table(one.pairs_file)
    )  # to the last bit, and in the same order
    assert (parts.rows, parts.pairs, parts.users) == (one.rows, one.pairs, one.users)
    assert one.rows["read"] == len(log)


@pytest.mark.parametrize("chosen", SETTINGS, ids=NAMES)
def test_the_query_that_is_printed_gives_the_same(chosen: MineSettings, tmp_path: Path) -> None:
    import duckdb

    log = log_of(11)
    file = write_log(tmp_path / "log.csv", log)
    columns = {name: name for name in ("user", "item", "time", "type", "weight")}
    with duckdb.connect() as engine:
        engine.execute(f"CREATE VIEW events AS SELECT * FROM read_csv('{file}', all_varchar=true)")
        rows = engine.execute(sql_of(chosen, columns, dialect="duckdb")).fetchall()
    assert {(a, b): score for a, b, score in rows} == pytest.approx(reference(log, chosen), abs=1e-9)


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["u1", "u2", "u3", " u1 ", "", "x" * 1200]),
            st.sampled_from(["a", "b", "c", "d", "", 'ünï,"q', "new\nline"]),
            st.sampled_from(
                [
                    "5",
                    "1700000000",
                    "1700000000123",
                    "2023-11-14",
                    "2023-11-14T22:13:20Z",
                    "20231114",
                    "",
                    "soon",
                    "inf",
                ]
            ),
            st.sampled_from(["1", "", "0.5", "-1", "nan", "much"]),
        ),
        max_size=30,
    ),
    broken=st.sampled_from(["", 'u1,"a,5,1\n', "u1,a\n", "u1,a,5,1,extra\n", "u\x001,a,5,1\n"]),
)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_that_go_in_are_accounted_for(rows: list[tuple[str, ...]], broken: str, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("log")
    file = folder / "log.csv"
    with file.open("w", newline="") as target:
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(("user", "item", "time", "weight"))
        writer.writerows(rows)
        target.write(broken)
    try:
        found = mine([file], folder / "out", MineSettings(symmetric=True)).rows
    except BadInput as problem:
        assert "no event that can be used" in problem.message  # noqa: PT017
        return
    assert found["read"] == len(rows) + bool(broken)
    assert found["read"] == found["used"] + sum(found["dropped"].values())
    assert (found["dropped"].get(UNREADABLE, 0) == 1) == (bool(broken) and "\x00" not in broken)


FORMATS = ("csv", "tsv", "csv.gz", "semicolons.csv", "jsonl", "jsonl.gz", "json", "parquet", "folder", "recbole")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same(kind: str, tmp_path: Path) -> None:
    rows = [{"user": e.user, "item": e.item, "time": e.time // 1_000_000} for e in log_of(3, 60)]
    file = tmp_path / f"log.{kind}"
    header = (
        ("user_id:token", "item_id:token", "timestamp:float")
        if kind == "recbole"
        else ("Customer-ID", "SKU", "timestamp")
    )
    separator = {"tsv": "\t", "recbole": "\t", "semicolons.csv": ";"}.get(kind, ",")
    named = [dict(zip(header, row.values(), strict=True)) for row in rows]
    text = (
        "\n".join(separator.join(map(str, row.values())) for row in [dict(zip(header, header, strict=True)), *named])
        + "\n"
    )
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(named), file)
    elif kind == "folder":
        file.mkdir()
        for n in range(3):
            pq.write_table(pa.Table.from_pylist(named[n::3]), file / f"part-{n}.parquet")
    elif kind.startswith("json"):
        lines = "\n".join(map(json.dumps, named))
        content = json.dumps(named) if kind == "json" else lines
        write_text(file, content)
    else:
        write_text(file, text)
    found = mine([file], tmp_path / "out")
    assert scores_of(found.pairs_file) == pytest.approx(
        reference([Event(r["user"], r["item"], r["time"]) for r in rows], MineSettings())
    )


def test_times_of_several_units_are_mixed_and_said(tmp_path: Path) -> None:
    moments = [
        "1700000000",
        "1700000001000",
        "1700000002000000",
        "1700000003000000000",
        "2023-11-14T22:13:24Z",
        "2023-11-14 22:13:25",
    ]
    file = tmp_path / "log.csv"
    file.write_text("user,item,time\n" + "".join(f"u,i{n},{moment}\n" for n, moment in enumerate(moments)))
    found = mine([file], tmp_path / "out", MineSettings(window=1.0))
    assert set(scores_of(found.pairs_file)) == {(f"i{n}", f"i{n + 1}") for n in range(5)}
    assert found.times == {"seconds": 1, "milliseconds": 1, "microseconds": 1, "nanoseconds": 1, "dates as text": 2}
    assert any("times are in seconds (1) and milliseconds" in note for note in found.notes)
    file.write_text("user,item,time\nu,a,14.11.2023\nu,b,15.11.2023\n")
    with pytest.raises(BadInput, match=r"2 a time that is not understood \(for example '14.11.2023'\)"):
        mine([file], tmp_path / "german")
    assert mine([file], tmp_path / "german", time_format="%d.%m.%Y").pairs["written"] == 1


def test_a_log_without_times_pairs_in_either_order(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("basket,sku\n1,a\n1,b\n2,a\n")
    found = mine([file], tmp_path / "out")
    assert scores_of(found.pairs_file) == {("a", "b"): 0.5, ("b", "a"): 0.5}
    assert found.users == {"users": 2, "users of one item": 1, "users capped": 0}
    assert any("no times" in note for note in found.notes)
    with pytest.raises(BadInput, match="no column of the time, which --window needs"):
        mine([file], tmp_path / "other", MineSettings(window=5.0))


def test_items_that_are_in_no_catalogue_are_counted(tmp_path: Path) -> None:
    from n2kit.data.items import Item, Items

    file = write_log(tmp_path / "log.csv", [Event("u", i, n * 1_000_000) for n, i in enumerate("abcb")])
    found = mine([file], tmp_path / "out", items=Items([Item("a"), Item("b")]))
    assert set(scores_of(found.pairs_file)) == {("a", "b")}
    assert found.rows == {"read": 4, "used": 3, "dropped": {"an item that is not in the catalogue": 1}}


def test_what_was_killed_goes_on_to_the_same(tmp_path: Path) -> None:
    """Ended after every third step, each part once: the output is that of one that was never ended."""
    file = write_log(tmp_path / "log.csv", log_of(5, 300))
    whole = mine([file], tmp_path / "whole", buckets=3)

    class Killed(Exception):
        pass

    ends, notes = 0, []

    def until(most: int) -> Any:
        def progress(done: int, total: int, note: str) -> None:
            assert done <= total
            if done >= most:
                raise Killed

        return progress

    while ends < 40:
        try:
            found = mine([file], tmp_path / "ended", buckets=3, progress=until(3 * ends + 1), notify=notes.append)
            break
        except Killed:
            ends += 1
    assert ends > 3
    assert notes
    assert found.pairs_file.read_bytes() == whole.pairs_file.read_bytes()
    assert not (tmp_path / "ended" / ".mine").exists()
    again = mine([file], tmp_path / "ended")
    assert again.done_before
    assert (again.rows, again.pairs) == (whole.rows, whole.pairs)
    with pytest.raises(BadInput, match="of another log or other settings"):
        mine([file], tmp_path / "ended", MineSettings("count"))
    assert not mine([file], tmp_path / "ended", MineSettings("count"), force=True).done_before


def test_what_an_earlier_mining_wrote_goes_by_force_alone(tmp_path: Path) -> None:
    file, out = write_log(tmp_path / "log.csv", log_of(9, 400)), tmp_path / "out"
    whole, parts = {out / "pairs.parquet"}, {out / f"{name}.parquet" for name in ("train", "val", "test")}
    shares = (0.2, 0.3)
    mine([file], out)
    with pytest.raises(BadInput, match=r"pairs\.parquet exists, and is of another log or other settings"):
        mine([file], out, split=shares)
    assert set(out.glob("*.parquet")) == whole
    mine([file], out, split=shares, force=True)
    assert set(out.glob("*.parquet")) == parts
    with pytest.raises(BadInput, match=r"train\.parquet exists, and is of another log or other settings"):
        mine([file], out)
    (tmp_path / "one.csv").write_text("user,item,time\n" + "".join(f"u{n},i{n},{n}\n" for n in range(9)))
    before = {part: part.read_bytes() for part in parts}
    with pytest.raises(Failed, match="no pair was mined for train"):
        mine([tmp_path / "one.csv"], out, split=shares, force=True)
    assert {part: part.read_bytes() for part in parts} == before
    mine([file], out, force=True, keep_parts=True)  # a split that follows replaces them
    assert set(out.glob("*.parquet")) == whole | parts
    mine([file], out, split=shares, force=True)
    mine([file], out, force=True)
    assert set(out.glob("*.parquet")) == whole


@pytest.mark.parametrize(
    ("rows", "how", "says"),
    [
        (["u1,001,1", "u2,002,2"], {}, "each user has one item, and two items of one user make a pair"),
        (["u1,001,1", "u1,002,2"], {"lower": 9.0}, "all pairs were dropped (1 "),
        (["u1,001,1", "u1,002,1"], {}, "with --symmetric either order of two items counts"),
        (["u1,001,1", "u1,002,2", "u1,3,3"], {}, f"{UNLISTED}: '3' may be '003'"),
    ],
)
def test_a_log_of_which_little_comes_says_why(rows: list[str], how: Any, says: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    found = mine([tmp_path / "log.csv"], tmp_path / "out", MineSettings(**how), items=CODES)
    assert any(says in note for note in found.notes), found.notes


def test_ids_that_lost_their_zeros_are_named_with_what_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\nu,1\nu,2\n")
    np.save(tmp_path / "v.npy", np.eye(2, 3))
    (tmp_path / "v.ids.txt").write_text("1\n2\n")
    for run in (mine, lambda files, *at, **how: mine_vectors(tmp_path / "v.npy", *at, **how)):
        with pytest.raises(BadInput) as caught:
            run([tmp_path / "log.csv"], tmp_path / "out", items=CODES)
        assert f"2 {UNLISTED}" in caught.value.message
        assert "for example '1'" in caught.value.message
        assert "'1' may be '001'; is this the" in (caught.value.hint or "")


def test_bad_logs_get_one_line(tmp_path: Path) -> None:
    def message(name: str, text: str, **how: Any) -> str:
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInput) as caught:
            mine([tmp_path / name], tmp_path / "out", **how)
        assert "\n" not in caught.value.message
        assert caught.value.hint
        return caught.value.message

    assert "the file is empty" in message("a.csv", "")
    assert "no event that can be used: it has no rows" in message("b.csv", "user,item\n")
    assert "no column of the user" in message("c.csv", "item,time\na,1\n")
    assert "item may be asin or parent_asin: which?" in message("d.csv", "user_id,asin,parent_asin\nu,a,b\n")
    assert "no column visitor" in message("e.csv", "user,item\nu,a\n", columns={"user": "visitor"})
    assert "f.csv:1: two columns are called 'user'" in message("f.csv", "user,user,item\nu,u,a\n")
    assert not [*(tmp_path / "out").iterdir()]  # a log that cannot be used leaves nothing
    (tmp_path / "latin.csv").write_bytes(b"user,item\nu,caf\xe9\nu,b\n")
    with pytest.raises(BadInput, match="latin.csv:2: not UTF-8"):
        mine([tmp_path / "latin.csv"], tmp_path / "out")
    assert mine([tmp_path / "latin.csv"], tmp_path / "out", encoding="cp1252").pairs["written"] == 2
    with pytest.raises(BadInput, match="no events file"):
        mine([tmp_path / "none-*.csv"], tmp_path / "out")


def test_a_field_of_ten_megabytes_is_a_row_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text(f"user,item,time,text\nu,a,1,{'x' * 10_000_000}\nu,b,2,\n")
    assert mine([file], tmp_path / "out").pairs["written"] == 1


def test_settings_that_do_not_fit_are_refused() -> None:
    for wrong in (
        MineSettings("swing", window=1.0), MineSettings("jaccard", half_life=1.0), MineSettings(alink=True), MineSettings(power=2),
        MineSettings(lower=-1.0), MineSettings(lower=2.0, upper=1.0), MineSettings("best"),  # type: ignore[arg-type]
    ):  # fmt: skip
        with pytest.raises(BadInput) as caught:
            wrong.check()
        assert caught.value.hint
    assert (seconds_of("2d", "--window"), seconds_of("90", "--window"), bytes_of("1GB")) == (172_800, 90, 10**9)
    for text in ("soon", "0", "-1d"):
        with pytest.raises(BadInput):
            seconds_of(text, "--window")
    for text in ("much", "10MB"):
        with pytest.raises(BadInput):
            bytes_of(text)


def test_without_duckdb_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(Unavailable) as caught:
        mine([write_log(tmp_path / "log.csv", log_of(1, 5))], tmp_path / "out")
    assert caught.value.hint == 'pip install "n2kit[data]"'


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pyspark") is None, reason="PySpark is not installed")
def test_spark_gives_the_same(tmp_path: Path) -> None:
    import shutil

    if shutil.which("java") is None:
        pytest.skip("no Java")
    from pyspark.sql import SparkSession

    log = log_of(11)
    file = write_log(tmp_path / "log.csv", log)
    columns = {name: name for name in ("user", "item", "time", "type", "weight")}
    spark = (
        SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "1")
        .config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC").getOrCreate()
    )  # fmt: skip
    try:
        spark.read.csv(str(file), header=True).createOrReplaceTempView("events")
        for chosen in SETTINGS[4], SETTINGS[11]:
            rows = spark.sql(sql_of(chosen, columns)).collect()
            assert {(r[0], r[1]): r[2] for r in rows} == pytest.approx(reference(log, chosen), abs=1e-9), chosen
    finally:
        spark.stop()


def test_the_nearest_of_vectors_that_were_learnt_elsewhere(cli: Any, tmp_path: Path) -> None:
    import numpy as np

    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [-1, 0], [0, 0], [np.nan, 1]], np.float32)
    np.save(tmp_path / "cf.npy", vectors)
    (tmp_path / "cf.ids.txt").write_text("a\nb\nc\nd\nzero\nodd\n")
    found = json.loads(cli("data", "mine", "--from-vectors", tmp_path / "cf.npy", "-o", tmp_path / "out", "--json").out)
    assert (found["used"], found["dropped"]) == (4, {"of length 0": 1, "not finite": 1})
    assert list(scores_of(tmp_path / "out" / "pairs.parquet")) == [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")]
    rows = pa.table({"item_id": ["a", "b", "c"], "vector": [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]})
    pq.write_table(rows, tmp_path / "cf.parquet")
    assert (
        cli("data", "mine", "--from-vectors", tmp_path / "cf.parquet", "-o", tmp_path / "o2", "--lower", "0.9").code
        == 0
    )
    assert list(scores_of(tmp_path / "o2" / "pairs.parquet")) == [("a", "b"), ("b", "a")]
    (tmp_path / "cf.ids.txt").write_text("a\nb\n")
    failed = cli("data", "mine", "--from-vectors", tmp_path / "cf.npy", "-o", tmp_path / "o3")
    assert (failed.code, "has 2 ids" in failed.err) == (2, True)


def test_the_command(cli: Any, tmp_path: Path) -> None:
    file = write_log(tmp_path / "log.csv", log_of(2))
    done = cli("data", "mine", "--events", file, "-o", tmp_path / "out", "--window", "30s", "--json", "--memory", "1GB")
    facts = json.loads(done.out)
    assert facts["rows"]["read"] == 160
    assert facts["pairs"]["written"] == len(scores_of(tmp_path / "out" / "pairs.parquet"))
    assert "every type of event is both a view and a click" in done.err
    assert cli("data", "mine", "--events", file, "-o", tmp_path / "out").code == 2
    assert cli("data", "mine", "-o", tmp_path / "out").code == 2
    assert cli("data", "mine", "--events", tmp_path / "none", "-o", tmp_path / "o").code == 2
    printed = cli("data", "mine", "--print-sql", "spark", "--map", "user=visitor")
    assert "trim(CAST(`visitor` AS STRING)) AS u" in printed.out


def test_a_split_by_time_mines_each_span_alone(tmp_path: Path) -> None:
    """Train, val and test are the pairs of their own events, without those seen before; the rows add up over all."""
    log = sorted(log_of(9, 600), key=lambda e: e.time)
    file = write_log(tmp_path / "log.csv", log)
    found = mine([file], tmp_path / "out", split=(0.2, 0.3), buckets=2)
    assert found.rows["read"] == 600
    starts = [found.splits[name]["from"] for name in ("val", "test")]
    assert 0.4 < sum(e.time < starts[0] for e in log) / 600 < 0.6
    seen: set[frozenset[str]] = set()
    for name, first, end in (("train", 0, starts[0]), ("val", *starts), ("test", starts[1], 2**62)):
        own = reference([e for e in log if first <= e.time < end], MineSettings())
        expected = {pair: score for pair, score in own.items() if frozenset(pair) not in seen}
        assert scores_of(tmp_path / "out" / f"{name}.parquet") == pytest.approx(expected, abs=1e-9)
        seen |= {frozenset(pair) for pair in own}
    assert found.pairs["dropped"]["seen before"] > 0
    assert mine([file], tmp_path / "out", split=(0.2, 0.3)).done_before


def test_the_catalogue_of_a_log_is_read_as_it_is_written(cli: Any, tmp_path: Path) -> None:
    """Its own column of the id, and its own encoding: the log is in another one."""
    log, items = write_log(tmp_path / "log.csv", log_of(3)), tmp_path / "artikel.csv"
    items.write_bytes(("Nr,title\n" + "".join(f"i{n},Stuhl\n" for n in range(50)) + "x,Hülle\n").encode("cp1252"))
    command = ("data", "mine", "--events", log, "--items", items, "-o", tmp_path / "out")
    done = cli(*command, "--map", "id=Nr", "--encoding", "cp1252")
    assert done.code == 0, done.err
    assert "no column Nummer" in cli(*command, "--map", "id=Nummer", "--encoding", "cp1252").err
    items.write_text("Nr,title\n" + "".join(f"i{n},Stuhl\n" for n in range(50)) + "x,Hülle\n", "utf8")
    done = cli(*command, "--map", "id=Nr", "--encoding", "cp1252", "--force", "--json")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("time", "format"),
    [("01.02.2024 10:00", "%d.%m.%Y %H:%M"), ("2024/1/2", "%Y/%m/%d"), ("2024-01-02 03:04:05", "%Y-%m-%d %H:%M:%S")],
)
def test_the_hint_of_a_time_has_its_likely_format(time: str, format: str) -> None:
    assert likely_format(time) == format


def test_the_encoding_of_the_columns_file_is_said_and_part_of_what_was_mined(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item\nu,ä\nu,b\nv,ä\nv,b\n", encoding="utf-8")
    (tmp_path / "columns.yaml").write_text("log.csv: {encoding: utf-8}\n")
    assert "log.csv: read as utf-8 (columns.yaml)" in mine([log], tmp_path / "out").notes
    (tmp_path / "columns.yaml").write_text("log.csv: {encoding: cp1252}\n")
    with pytest.raises(BadInput, match="exists, and is of another log or other settings"):
        mine([log], tmp_path / "out")
