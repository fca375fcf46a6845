"""Parts that share no item, nothing that is the same on two sides, every pair accounted for."""

from __future__ import annotations

import csv
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from n2kit.data.items import Item, Items
from n2kit.data.pairs import Pairs
from n2kit.datasets.split import components, split
from n2kit.errors import BadInput

MORE = "larger shares (--val, --test), or more pairs"


def catalogue(count: int = 60) -> Items:
    return Items([Item(f"i{n}", title=f"a thing with number {n}") for n in range(count)])


def chains(length: int = 5, count: int = 60) -> Pairs:
    """Items in chains: i0-i1-…-i4, i5-i6-…"""
    return Pairs([(f"i{n}", f"i{n + 1}") for n in range(count - 1) if (n + 1) % length])


def written(folder: Path) -> dict[str, list[tuple[str, str]]]:
    return {
        name: [(row["query"], row["target"]) for row in pq.read_table(folder / f"{name}.parquet").to_pylist()]
        for name in ("train", "val", "test")
    }


@pytest.mark.parametrize("by", ["item", "component"])
def test_parts_share_no_item_and_all_pairs_are_accounted_for(by: Any, tmp_path: Path) -> None:
    found = split(chains(), catalogue(), tmp_path, by=by, shares=(0.35, 0.3), seed=1)
    parts = written(tmp_path)
    assert sum(map(len, parts.values())) + found.dropped == len(chains())
    assert (found.dropped == 0) == (by == "component")
    for one, other in combinations(parts.values(), 2):
        assert not {i for p in one for i in p} & {i for p in other for i in p}
    assert {name: len(rows) for name, rows in parts.items()} == found.pairs
    assert pq.read_table(tmp_path / "pool.parquet").num_rows == 60
    train = [i for pair in parts["train"] for i in pair]
    rows = list(csv.DictReader((tmp_path / "buckets.csv").open()))
    assert all(int(row["train_pairs"]) == train.count(row["id"]) for row in rows)
    assert {row["bucket"] for row in rows} == {"cold", "rare"}
    split(chains(), catalogue(), tmp_path / "again", by=by, shares=(0.35, 0.3), seed=1)
    assert written(tmp_path / "again") == parts
    split(chains(), catalogue(), tmp_path / "other", by=by, shares=(0.35, 0.3), seed=2)
    assert written(tmp_path / "other") != parts


def test_components_are_those_of_a_search() -> None:
    rng = np.random.default_rng(0)
    for count, edges in ((1, 0), (30, 12), (200, 150), (50, 400)):
        pairs = rng.integers(0, count, (edges, 2))
        label = components(count, pairs)
        near: dict[int, set[int]] = {n: {n} for n in range(count)}
        for a, b in pairs.tolist():
            near[a].add(b)
            near[b].add(a)
        for n in range(count):
            reached, todo = {n}, [n]
            while todo:
                for m in near[todo.pop()] - reached:
                    reached.add(m)
                    todo.append(m)
            assert label[n] == min(reached)


@pytest.mark.parametrize("what", ["image", "text"])
def test_the_same_image_or_text_on_two_sides_is_refused(what: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for n in range(60):
        Image.new("RGB", (4, 4), (n, 0, 0) if what == "text" else (n // 2, 0, 0)).save(images / f"{n}.png")
    items = Items(
        [Item(f"i{n}", f"{n}.png", f"The  Thing, number {n // 2 if what == 'text' else n}!") for n in range(60)]
    )
    with pytest.raises(BadInput, match=f"same {what}") as caught:
        split(chains(), items, tmp_path, images=images, shares=(0.25, 0.25))
    assert "--together" in (caught.value.hint or "")
    assert not (tmp_path / "train.parquet").exists()
    allowed = split(chains(), items, tmp_path / "allowed", images=images, shares=(0.25, 0.25), allow=True)
    assert allowed.leaks[f"same {what}"] > 0
    together = split(chains(), items, tmp_path / "together", images=images, shares=(0.25, 0.25), together=True)
    assert together.leaks == {}


ONE = "all pairs hang together in 1 component, and three parts need three"
BY_ITEM = "; --by item (data mine: --split item) drops pairs between two parts"


@pytest.mark.parametrize(
    ("by", "pairs", "shares", "hint"),
    [
        ("component", chains(length=1000), (0.35, 0.3), ONE + BY_ITEM),
        ("component", chains(length=1000), (0.01, 0.01), ONE),
        ("item", chains(2), (0.06, 0.06), f"{MORE}; --by component (data mine: --split component) loses no pair"),
        ("item", chains(length=1000), (0.01, 0.01), MORE),
    ],
)
def test_the_hint_of_a_part_without_pairs_names_another_way_that_does(
    by: Any, pairs: Pairs, shares: tuple[float, float], hint: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="no pair is in") as caught:
        split(pairs, catalogue(), tmp_path, by=by, shares=shares)
    assert caught.value.hint == hint
    if "--by " in hint:
        split(pairs, catalogue(), tmp_path, by="item" if "--by item" in hint else "component", shares=shares)


def test_a_file_that_another_one_counts_over_is_said(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title\n" + "".join(f"i{n},thing {n}\n" for n in range(60)))
    (tmp_path / "train.csv").write_text("".join(f"i{n},i{n + 1}\n" for n in range(0, 60, 2)))
    done = cli("data", "split", tmp_path)
    assert "hint: it has train.csv; a file of all pairs that are to be divided is called pairs.csv\n" in done.err
    (tmp_path / "train.csv").rename(tmp_path / "pairs.csv")
    (tmp_path / "train.csv").write_text("i0,i1\n")
    done = cli("data", "split", tmp_path, "--by", "component")
    assert (done.code, "hint: --force writes train.parquet, which then counts over it\n" in done.err) == (2, True)
    done = cli("data", "split", tmp_path, "--by", "component", "--force")
    said = f"note: {tmp_path / 'train.parquet'} counts over train.csv, which is not read\n"
    assert (done.code, said in done.err) == (0, True), done.err
    assert said in cli("data", "check", tmp_path).err
    taking = cli("mine-negatives", "--vectors", tmp_path / "none", "--data", tmp_path, "-o", tmp_path / "hard.csv")
    assert said in taking.err
    assert said in cli("data", "pack", tmp_path, "-o", tmp_path / "packed").err


def test_a_part_of_a_log_without_pairs_is_said(cli: Any, tmp_path: Path) -> None:
    """Here each user of the log's later half looked at one item alone."""
    (tmp_path / "items.csv").write_text("id,title\n" + "".join(f"i{n},thing\n" for n in range(9)))
    early = [f"u{n % 3},i{n % 9},{1_700_000_000 + n}" for n in range(30)]
    late = [f"v{n},i{n % 9},{1_700_000_100 + n}" for n in range(30)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,time", *early, *late]) + "\n")
    done = cli("data", "mine", "--events", tmp_path / "events.csv", "-o", tmp_path, "--split", "time")
    assert (done.code, "no pair is in val or test that is not in an earlier part" in done.err) == (1, True), done.err
    assert {file.name for file in tmp_path.iterdir()} <= {
        "items.csv",
        "events.csv",
        ".pairs.parquet.lock",
    }  # nothing is half written


def test_the_commands(cli: Any, tmp_path: Path) -> None:
    """Mine and split in one; by time the pool and the buckets are there, too, and every command takes the folder."""
    items = [{"id": f"i{n}", "title": f"a thing with number {n}"} for n in range(40)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items))
    rng = np.random.default_rng(0)
    log = [f"u{rng.integers(30)},i{rng.integers(40)},{1_700_000_000 + n}" for n in range(1500)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,time", *log]) + "\n")
    done = cli("data", "mine", "--events", tmp_path / "events.csv", "-o", tmp_path, "--split", "time", "--json")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["splits"]) == {"train", "val", "test"}
    assert (tmp_path / "pool.parquet").is_file()
    assert not (tmp_path / "pairs.parquet").exists()
    assert cli("data", "split", tmp_path).code == 2
    refused = cli("data", "mine", "--events", tmp_path / "events.csv", "-o", tmp_path, "--split", "item")
    assert (refused.code, "train.parquet exists, and is of another log or" in refused.err) == (2, True), refused.err
    failed = cli("data", "split", tmp_path, "--by", "time", "--force")
    assert (failed.code, "--split time" in failed.err) == (2, True)
    other = tmp_path / "other"
    done = cli(
        "data",
        "mine",
        "--events",
        tmp_path / "events.csv",
        "--items",
        tmp_path / "items.jsonl",
        "-o",
        other,
        "--split",
        "item",
        "--val",
        "0.3",
        "--test",
        "0.3",
    )
    assert done.code == 0, done.err
    assert "between two parts dropped" in done.err
    again = ("data", "mine", "--events", tmp_path / "events.csv", "--items", tmp_path / "items.jsonl", "-o", other)
    refused = cli(*again, "--split", "item", "--val", "0.2", "--test", "0.3")
    assert (refused.code, "exists, and is of another split" in refused.err) == (2, True), refused.err
    assert cli("data", "split", tmp_path, "--val", "0.6", "--test", "0.5").code == 2


def timed_folder(folder: Path) -> Path:
    """Ten items and nine pairs, the n-th of day n; the first pair comes again at last, turned round."""
    folder.mkdir()
    (folder / "items.jsonl").write_text(
        "".join(json.dumps({"id": f"i{n}", "title": f"thing {n}"}) + "\n" for n in range(10))
    )
    days = [f"i{n},i{n + 1},2024-01-{n + 1:02}T00:00:00" for n in range(9)]
    (folder / "pairs.csv").write_text("\n".join(["query,target,when", *days, "i1,i0,2024-01-30"]) + "\n")
    return folder


def test_pairs_with_times_are_divided_by_them(cli: Any, tmp_path: Path) -> None:
    data = timed_folder(tmp_path / "data")
    refused = cli("data", "split", data, "--by", "time")
    assert (refused.code, "no column of times, and no log" in refused.err) == (2, True)
    done = cli("data", "split", data, "--by", "time", "--map", "time=when", "--val", "0.2", "--test", "0.2", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["pairs"], found["lost"]) == ({"train": 6, "val": 2, "test": 1}, {"seen before": 1})
    parts = written(data)
    assert parts["train"] == [(f"i{n}", f"i{n + 1}") for n in range(6)]
    assert (parts["val"], parts["test"]) == ([("i6", "i7"), ("i7", "i8")], [("i8", "i9")])
    assert sum(found["buckets"].values()) == 10
    for flags in (("--allow",), ("--map", "time=none"), ("--map", "time=query")):
        assert cli("data", "split", data, "--by", "time", "--force", *flags).code == 2
    assert cli("data", "split", data, "--events", "x", "--force").code == 2


def test_pairs_without_times_take_those_of_a_log(cli: Any, tmp_path: Path) -> None:
    """An item is there from its first event on, and a pair when both are; what is in no event has no time."""
    data = timed_folder(tmp_path / "data")
    rows = [line.rpartition(",")[0] for line in (data / "pairs.csv").read_text().splitlines()]
    (data / "pairs.csv").write_text("\n".join(rows[:-1]) + "\n")
    log = [f"u,i{n},{1_700_000_000_000 + n * 86_400_000 + late}" for n in range(9) for late in (0, 10**9)]
    (data / "events.csv").write_text("\n".join(["user,item,timestamp", *reversed(log)]) + "\n")
    done = cli("data", "split", data, "--by", "time", "--val", "0.25", "--test", "0.25", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["pairs"], found["lost"]) == ({"train": 4, "val": 2, "test": 2}, {"without a time": 1})
    assert written(data)["test"] == [("i6", "i7"), ("i7", "i8")]
    other = tmp_path / "log.csv"
    other.write_text("user,item\nu,i1\n")
    refused = cli("data", "split", data, "--by", "time", "--events", other, "--force")
    assert (refused.code, "no column of the time" in refused.err) == (2, True)
    other.write_text("user,item,time\nu,other,1700000000\n")
    refused = cli("data", "split", data, "--by", "time", "--events", other, "--force")
    assert (refused.code, "no pair has both of its items in the events" in refused.err) == (2, True)
    (data / "pairs.csv").write_text("i0,i1\ni1,i2\n")  # no header, and one time for all
    other.write_text("user,item,time\n" + "".join(f"u,i{n},1700000000\n" for n in range(3)))
    refused = cli("data", "split", data, "--by", "time", "--events", other, "--force")
    assert (refused.code, "2 pairs with a time have the same, 2023-11-14 22:13:20" in refused.err) == (2, True)


@pytest.mark.parametrize("by", ["item", "component"])
def test_a_pair_that_comes_again_counts_once(by: Any, tmp_path: Path) -> None:
    once = split(chains(), catalogue(), tmp_path / "once", by=by, shares=(0.35, 0.3), seed=1)
    found = split(Pairs(chains().pairs * 2), catalogue(), tmp_path / "twice", by=by, shares=(0.35, 0.3), seed=1)
    assert found.lost == {"repeated": len(chains())}
    assert "48 repeated dropped" in found.sentence()
    assert (found.pairs, found.dropped, written(tmp_path / "twice")) == (
        once.pairs,
        once.dropped,
        written(tmp_path / "once"),
    )


def test_by_time_a_pair_is_there_from_its_first_row_on(cli: Any, tmp_path: Path) -> None:
    """It takes nothing more of a part's share; and of a weight of a pair nobody asks."""
    data = timed_folder(tmp_path / "data")
    days = [f"i{n},i{n + 1},2024-01-{n + 1:02}T00:00:00,0" for n in range(9)]
    days += [days[0].replace("-01T", "-09T"), days[4], days[8]]
    (data / "pairs.csv").write_text("\n".join(["query,target,time,weight", *days]) + "\n")
    done = cli("data", "split", data, "--by", "time", "--val", "0.3", "--test", "0.3", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["lost"] == {"repeated": 3}
    assert {name: len(rows) for name, rows in written(data).items()} == {"train": 3, "val": 3, "test": 3}


def test_a_log_needs_no_users_to_say_when_items_were_there(cli: Any, tmp_path: Path) -> None:
    data = timed_folder(tmp_path / "data")
    (data / "pairs.csv").write_text("left,right\n" + "".join(f"i{n},i{n + 1}\n" for n in range(9)))
    log = [{"item": f"i{n}", "ts": 1_700_000_000 + n * 86_400} for n in range(10)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    done = cli("data", "split", data, "--by", "time", "--events", tmp_path / "log.jsonl", "--map", "query=left")
    assert done.code == 0, done.err
    assert "val from 2023-11-22 22:13:20, test from 2023-11-23 22:13:20" in done.err


@pytest.mark.parametrize(
    ("head", "times", "flags", "says"),
    [
        ("time", ["3{}.01.2024"], (), "no time is understood, for example '30.01.2024'"),
        ("time", [""], (), "its column of times is empty"),
        ("time", ["2024-01-01", "2024-01-02"], (), "9 pairs with a time have 2 times in all, and three parts need three"),
        ("price", ["1"], ("--map", "time=when"), "no column when, and no log is given"),
        ("time", ["2024-01-0{}"], ("--map", "user=x"), "--map user=x: no such field"),
        ("time", ["2024-01-0{}"], ("--events", "log.csv", "--by", "item"), "--time-format are for a split by time"),
        ("time", ["2024-01-0{}"], ("--map", "item=x", "--by", "item"), "--map item=x is for a split by time"),
    ],
)  # fmt: skip
def test_what_times_cannot_divide_is_said(
    head: str, times: list[str], flags: tuple[str, ...], says: str, cli: Any, tmp_path: Path
) -> None:
    data = timed_folder(tmp_path / "data")
    rows = [f"i{n},i{n + 1},{times[n % len(times)].format(n)}" for n in range(9)]
    (data / "pairs.csv").write_text("\n".join([f"query,target,{head}", *rows]) + "\n")
    done = cli("data", "split", data, "--by", "time", *flags)
    assert (done.code, says in done.err) == (2, True), done.err
    assert not (data / "train.parquet").exists()


def test_times_of_several_units_are_said(cli: Any, tmp_path: Path) -> None:
    data = timed_folder(tmp_path / "data")
    times = [
        "1700000000",
        "1700000000000",
        "2024-01-01",
        "2024-01-02T03:04:05Z",
        "31.01.2024",
        "1700000001",
        "20240105",
    ]
    rows = [f"i{n},i{n + 1},{time}" for n, time in enumerate(times)]
    (data / "pairs.csv").write_text("\n".join(["query,target,time", *rows]) + "\n")
    done = cli("data", "split", data, "--by", "time", "--val", "0.2", "--test", "0.2")
    assert done.code == 0, done.err
    assert "1 time not understood, such as '31.01.2024'; --time-format" in done.err
    assert "times are in seconds (2) and milliseconds (1) and dates as text (3)" in done.err
    assert "1 without a time dropped" in done.err


@pytest.mark.parametrize("by", ["time", "item"])
def test_a_mining_without_pairs_ends_with_1_where_they_were_to_be_divided(by: str, cli: Any, tmp_path: Path) -> None:
    """The folder's catalogue counts, as it is what pairs are divided by: an event of another item is dropped."""
    data = timed_folder(tmp_path / "data")
    (data / "pairs.csv").unlink()
    rows = [f"u{n},i{n},{1_700_000_000 + n}" for n in range(9)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *rows, "u1,other,1700000099"]) + "\n")
    done = cli("data", "mine", "--events", tmp_path / "log.csv", "-o", data, "--split", by)
    assert (done.code, "no pair was mined" in done.err) == (1, True), done.err
    assert "dropped 1 an item that is not in the catalogue" in done.err


def test_parts_of_another_split_are_not_replaced_unasked(tmp_path: Path) -> None:
    split(chains(), catalogue(), tmp_path, by="component", shares=(0.35, 0.3))
    before = {name: (tmp_path / f"{name}.parquet").read_bytes() for name in ("train", "val", "test")}
    (tmp_path / "val.parquet").unlink()  # as an interruption leaves it
    split(chains(), catalogue(), tmp_path, by="component", shares=(0.35, 0.3), replace=False)
    with pytest.raises(BadInput, match=r"train\.parquet exists, and is of another split"):
        split(chains(), catalogue(), tmp_path, by="item", shares=(0.35, 0.3), seed=1, replace=False)
    assert {name: (tmp_path / f"{name}.parquet").read_bytes() for name in before} == before


def test_pairs_of_vectors_are_divided_by_their_items(cli: Any, tmp_path: Path) -> None:
    data = timed_folder(tmp_path / "data")
    (data / "pairs.csv").unlink()
    (data / "items.jsonl").write_text(
        "".join(json.dumps({"id": f"i{n}", "title": f"thing {n}"}) + "\n" for n in range(60))
    )
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(60, 4)))
    (tmp_path / "v.ids.txt").write_text("".join(f"i{n}\n" for n in range(60)))
    common = ("data", "mine", "--from-vectors", tmp_path / "v.npy", "-o", data, "--val", "0.3", "--test", "0.3")
    refused = cli(*common, "--split", "time")
    assert (refused.code, "vectors have no times" in refused.err) == (2, True), refused.err
    done = cli(*common, "--split", "item")
    assert (done.code, (data / "test.parquet").is_file()) == (0, True), done.err
