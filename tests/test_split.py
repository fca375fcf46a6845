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


def test_one_component_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no pair is in") as caught:
        split(chains(length=1000), catalogue(), tmp_path, by="component")
    assert caught.value.hint == "--by item"


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
    assert (refused.code, "no pair has a time" in refused.err) == (2, True)
    (data / "pairs.csv").write_text("i0,i1\ni1,i2\n")  # no header, and one time for all
    other.write_text("user,item,time\n" + "".join(f"u,i{n},1700000000\n" for n in range(3)))
    refused = cli("data", "split", data, "--by", "time", "--events", other, "--force")
    assert (refused.code, "no pair is in train" in refused.err) == (2, True)
