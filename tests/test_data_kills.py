"""SIGKILL of data commands, between what they write: given again, they go on and end with equal files."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import forks

# Ends the process before its Nth file or folder takes its place; what it was writing lies there, half done or whole.
KILLED = """
import os, pathlib, signal
from n2kit_cli.main import main
before, left = pathlib.Path.replace, [{after}]
def replace(self, target):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return before(self, target)
pathlib.Path.replace = replace
main({arguments!r})
"""


def kill(arguments: list[str], after: int) -> None:
    done = forks.run(["-c", KILLED.format(after=after, arguments=arguments)])
    assert done.returncode == -signal.SIGKILL, done.stderr


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    draw = random.Random(1)
    rows = [f"u{draw.randrange(20)},i{draw.randrange(60)},{1_700_000_000 + n}" for n in range(400)]
    (tmp_path / "log.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return tmp_path / "log.csv"


@pytest.mark.slow
def test_a_mining_that_was_killed_ends_equal(log: Path, tmp_path: Path, cli: Any) -> None:
    items = "".join(json.dumps({"id": f"i{n}", "title": f"a thing of number {n}"}) + "\n" for n in range(60))
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "items.jsonl").write_text(items)
    common = ["data", "mine", "--events", str(log), "--split", "time"]
    whole = cli(*common, "-o", tmp_path / "whole")
    assert whole.code == 0, whole.err
    again = [*common, "-o", str(tmp_path / "killed")]
    for after in (2, 4, 6, 9):  # in reading, numbering, the users' histories, and the pairs
        kill(again, after)
    assert (tmp_path / "killed" / ".mine").is_dir()
    done = cli(*again)
    assert done.code == 0, done.err
    assert "going on with" in done.err
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_an_import_that_was_killed_ends_equal(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"{n},title {n}\n" for n in range(9)))
    (tmp_path / "pairs.csv").write_text("user,item,timestamp\n" + "".join(f"u,{n},{n}\n" for n in range(9)))
    common = [
        "data",
        "import",
        "microlens",
        "--items",
        str(tmp_path / "items.csv"),
        "--events",
        str(tmp_path / "pairs.csv"),
    ]
    whole = cli(*common, "-o", tmp_path / "whole")
    assert whole.code == 0, whole.err
    again = [*common, "-o", str(tmp_path / "killed")]
    for after in (2, 5, 7):  # behind the items, before any file is in its place, before the last one is
        kill(again, after)
    assert {f.name for f in (tmp_path / "killed").glob("[!.]*")} == {"events.parquet", "import.json"}
    done = cli(*again)
    assert done.code == 0, done.err
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    refused = cli(*again)
    assert (refused.code, "exists" in refused.err) == (2, True)


@pytest.mark.slow
def test_a_packing_that_was_killed_ends_equal(tmp_path: Path, cli: Any) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    for n in range(9):
        Image.new("RGB", (20, 20), (n, n, n)).save(data / "images" / f"{n}.png")
    (data / "items.jsonl").write_text("".join(json.dumps({"id": str(n), "image": f"{n}.png"}) + "\n" for n in range(9)))
    common = ["data", "pack", str(data), "--shard-items", "2"]
    assert cli(*common, "-o", tmp_path / "whole").code == 0
    again = [*common, "-o", str(tmp_path / "killed")]
    for after in (2, 3, 5):
        kill(again, after)
    done = cli(*again)
    assert done.code == 0, done.err
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
