"""`--data DIR` in every command that takes items, pairs or images: the files of the folder, and the flags that count over them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from n2kit.data.folder import data_file, needed_file
from n2kit.errors import BadInput

TAKES = ("fit", "train", "embed", "generate", "neglect", "eval", "index", "recommend", "mine-negatives", "bench run")


@pytest.mark.parametrize("command", TAKES)
def test_every_command_that_takes_items_or_pairs_takes_a_folder(command: str, cli: Any) -> None:
    assert (
        "--data FOLDER" in cli(*command.split(), "--help").out or "--data PATH" in cli(*command.split(), "--help").out
    )


def test_the_files_of_a_folder(workspace: Path, tmp_path: Path) -> None:
    assert data_file(workspace, "items") == workspace / "items.jsonl"
    assert data_file(workspace, "images") == workspace / "images"
    assert data_file(tmp_path, "items") is None
    with pytest.raises(BadInput, match="no data folder"):
        data_file(tmp_path / "none", "items")
    (tmp_path / "events.csv").write_text("user,item\n")
    with pytest.raises(BadInput) as caught:
        needed_file(tmp_path, "train")
    assert "n2kit data mine --events" in (caught.value.hint or "")
    (tmp_path / "pairs.csv").write_text("query,target\n")
    with pytest.raises(BadInput) as caught:
        needed_file(tmp_path, "train")
    assert "n2kit data split" in (caught.value.hint or "")


def test_the_folder_stands_for_the_flags_and_they_count_over_it(
    cli: Any, workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    vectors = tmp_path / "v.parquet"
    done = json.loads(cli("embed", tiny_bundle, "--data", workspace, "-o", vectors, "--json").out)
    assert (done["items"], done["read"]["with"]["image"]) == (24, 24)
    named = tmp_path / "named.parquet"
    cli("embed", tiny_bundle, "--items", workspace / "items.jsonl", "--images", workspace / "images", "-o", named)
    assert vectors.read_bytes() == named.read_bytes()
    by_folder = json.loads(cli("eval", "--vectors", vectors, "--data", workspace, "--k", "1,5", "--json").out)
    by_flags = json.loads(
        cli(
            "eval", "--vectors", vectors, "--pairs", workspace / "test.csv", "--pool", workspace / "pool.csv", "--items", workspace / "items.jsonl",
            "--train-pairs", workspace / "train.csv", "--k", "1,5", "--json",
        ).out
    )  # fmt: skip
    assert by_folder == by_flags
    assert by_folder["buckets"]
    other = json.loads(
        cli("eval", "--vectors", vectors, "--data", workspace, "--pairs", workspace / "val.csv", "--json").out
    )
    assert other["metrics"] != by_folder["metrics"]
    both = cli("eval", "--compare", vectors, named, "--data", workspace)
    assert both.code == 0, both.err
    mined = cli(
        "mine-negatives",
        "--vectors",
        vectors,
        "--data",
        workspace,
        "-o",
        tmp_path / "hard.csv",
        "--ranks",
        "2:20",
        "--margin",
        "-2",
    )
    assert mined.code == 0, mined.err


def test_a_folder_that_lacks_a_file_says_which(cli: Any, workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copy(workspace / "items.csv", tmp_path)
    failed = cli("train", tiny_bundle, "--data", tmp_path, "-o", tmp_path / "run")
    assert (failed.code, "has no train file" in failed.err) == (2, True)
    failed = cli("train", tiny_bundle, "-o", tmp_path / "run")
    assert (failed.code, "Missing option '--items'" in failed.err, "--data FOLDER" in failed.err) == (2, True, True)
