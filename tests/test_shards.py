"""Nothing that was embedded is lost, nothing that is not whole is believed, and one process at a time writes a file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import forks
import n2kit
from n2kit.data.items import Items, read_items
from n2kit.embed import embed, read_vectors, store, vectors_file
from n2kit.embed.shards import Shards
from n2kit.errors import BadInput, Failed
from n2kit.modeling.model import Model
from n2kit.utils.locks import file_lock, output_lock

PRINT = "0123456789abcdef"
HOLD = """
import sys, time; from pathlib import Path; from n2kit.utils.locks import output_lock
with output_lock(Path(sys.argv[1])):
    print("held", flush=True); time.sleep(600)
"""


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return n2kit.load(tiny_bundle)


@pytest.fixture(scope="module")
def items(workspace: Path) -> Items:
    return read_items(workspace / "items.jsonl")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the shards that are computed; the third one is interrupted, once."""
    real, calls = store.encode, []

    def encode(model: Any, part: Any, **options: Any) -> Any:
        calls.append(len(part))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(model, part, **options)

    monkeypatch.setattr(store, "SHARD", 5)
    monkeypatch.setattr(store, "encode", encode)
    return calls


def run(model: Model, items: Items, workspace: Path, out: Path, **options: Any) -> vectors_file.Vectors:
    return embed(model, PRINT, items, out, images=workspace / "images", visual=True, **options)


def cut(first: Path, second: Path) -> None:
    first.write_bytes(first.read_bytes()[:-100])


def junk(first: Path, second: Path) -> None:
    first.write_bytes(b"PAR1" + os.urandom(500) + b"PAR1")


def flip(first: Path, second: Path) -> None:
    content = bytearray(first.read_bytes())
    at = content.index(np.float32(pq.read_table(first)["vector"][0].as_py()[0]).tobytes())
    content[at + 1] ^= 1
    first.write_bytes(content)


def swap(first: Path, second: Path) -> None:
    first.rename(first.with_name("x"))
    second.rename(first)
    first.with_name("x").rename(second)


def drop_a_row(first: Path, second: Path) -> None:
    table = pq.read_table(first)
    pq.write_table(table.slice(1), first)


def pipe(first: Path, second: Path) -> None:
    first.unlink()
    os.mkfifo(first)


def folder(first: Path, second: Path) -> None:
    first.unlink()
    first.mkdir()
    (first / "x").write_text("")


def loop(first: Path, second: Path) -> None:
    first.unlink()
    first.symlink_to(first)


def stray(first: Path, second: Path) -> None:
    shutil.copy(first, first.with_name("000007.parquet"))
    shutil.copy(first, first.with_name("copy.parquet"))


@pytest.mark.parametrize(
    ("spoil", "again"),
    [(cut, 1), (junk, 1), (flip, 1), (swap, 2), (drop_a_row, 1), (pipe, 1), (folder, 1), (loop, 1), (stray, 0)],
)
def test_a_shard_that_is_not_whole_is_computed_again_and_said(
    spoil: Callable[[Path, Path], None], again: int, model: Model, items: Items, workspace: Path, counted: list[int], tmp_path: Path
) -> None:  # fmt: skip
    out, said = tmp_path / "v.parquet", list[str]()
    with pytest.raises(KeyboardInterrupt):
        run(model, items, workspace, out)
    (parts,) = tmp_path.iterdir()
    spoil(parts / "000000.parquet", parts / "000001.parquet")
    found = run(model, items, workspace, out, notify=said.append)
    assert len(counted) == 3 + 3 + again  # of five shards two were there
    assert len(said) == again
    assert all("computed again" in line for line in said)
    assert found.ids == [item.id for item in items.items]
    whole = run(model, items, workspace, tmp_path / "whole.parquet")
    assert np.array_equal(found.vectors, whole.vectors)
    assert np.array_equal(found.visual, whole.visual, equal_nan=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["v.parquet", "whole.parquet"]


def test_shards_go_only_after_the_result_was_read_back(
    model: Model, items: Items, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SHARD", 5)
    write = store.write_table

    def written_badly(vectors: vectors_file.Vectors, out: Path, run: Any = None) -> None:
        write(vectors, out, run)
        out.write_bytes(out.read_bytes()[:-9])

    out = tmp_path / "v.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_table", written_badly)
        with pytest.raises(BadInput, match="not a Parquet file"):
            run(model, items, workspace, out)
    assert len(list(tmp_path.glob(".v.parquet.parts-*/*.parquet"))) == 5
    out.unlink()
    monkeypatch.setattr(store, "encode", lambda *_, **__: pytest.fail("computed again"))
    assert len(run(model, items, workspace, out).ids) == len(items)


def test_a_shard_that_changes_before_the_merging_fails_and_loses_no_other(tmp_path: Path) -> None:
    shards = Shards(tmp_path, PRINT, visual=False)
    with pytest.raises(Failed, match="cannot be read back"):
        shards.whole([["a"]])


def test_a_flipped_byte_in_a_vectors_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "v.parquet"
    vectors_file.write_table(vectors_file.Vectors(["a", "b"], np.eye(2, 4, dtype=np.float32), PRINT), file)
    assert read_vectors(file).fingerprint == PRINT
    flip(file, file)
    with pytest.raises(BadInput, match="is damaged"):
        read_vectors(file)


def test_a_vectors_file_of_the_version_before_has_no_digest_and_is_read(tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "vector": [[1.0, 0.0]]})
    pq.write_table(table.replace_schema_metadata({b"n2kit": b'{"fingerprint": "f", "skipped": {}}'}), tmp_path / "v")
    assert read_vectors(tmp_path / "v").fingerprint == "f"


def test_a_file_that_is_no_vectors_file_is_not_replaced(
    model: Model, items: Items, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis").write_text("years of work")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "table.parquet")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("thesis", "table.parquet", "loop"):
        for force in (False, True):
            with pytest.raises(BadInput, match="no vectors file|a link to nothing"):
                run(model, items, workspace, tmp_path / name, force=force)
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_names_like_those_of_our_own_leftovers_are_left_alone(
    model: Model, items: Items, workspace: Path, tmp_path: Path
) -> None:
    mine = [
        tmp_path / name for name in (".v.parquet.parts-list", f".v.parquet.{os.getpid() + 1}.tmp", ".v.parquet.x.tmp")
    ]
    for path in mine:
        path.mkdir()
    run(model, items, workspace, tmp_path / "v.parquet")
    assert all(path.is_dir() for path in mine)


# --- two at once ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hold() -> Any:
    """Hold the lock of an output in another process; returns its number."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(out: Path) -> int:
        processes.append(subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE))
        assert (stdout := processes[-1].stdout)
        assert stdout.readline() == b"held\n"
        return processes[-1].pid

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "command",
    [
        ("embed", "{bundle}", "--items", "items.jsonl", "--images", "images", "-o", "{out}"),
        ("index", "{vectors}", "-o", "{out}"),
        ("build", "--llm", "qwen:tiny", "--variant", "text_only", "-o", "{out}"),
        ("pack", "{bundle}", "-o", "{out}"),
        ("merge", "{bundle}", "-o", "{out}"),
        ("plugins", "new", "grid", "--kind", "vision", "-o", "{out}"),
        ("demo", "-o", "{out}"),
        ("neglect", "{bundle}", "--items", "items.jsonl", "--pairs", "test.csv", "-o", "{out}"),
    ],
)
def test_the_second_process_is_told_who_is_at_it(
    command: tuple[str, ...], hold: Any, cli: Any, tiny_bundle: Path, at_workspace: Path, tmp_path: Path
) -> None:
    out, vectors = tmp_path / "out.parquet", tmp_path / "v.parquet"
    vectors_file.write_table(vectors_file.Vectors(["a", "b"], np.eye(2, 4, dtype=np.float32), PRINT), vectors)
    pid = hold(out)
    refused = cli(*(word.format(bundle=tiny_bundle, out=out, vectors=vectors) for word in command))
    assert refused.code == 2, refused.err
    assert f"{out} is in use by process {pid}" in refused.err
    assert not out.exists()


def test_a_second_mining_is_told_who_is_at_it(hold: Any, cli: Any, tmp_path: Path) -> None:
    vectors, pairs = tmp_path / "v.parquet", tmp_path / "pairs.csv"
    vectors_file.write_table(vectors_file.Vectors(["a", "b", "c"], np.eye(3, 4, dtype=np.float32), PRINT), vectors)
    pairs.write_text("query,target\na,b\n")
    for out, command in (
        (tmp_path / "hard.csv", ("mine-negatives", "--vectors", vectors, "--pairs", pairs, "-o")),
        (tmp_path / "each.parquet", ("eval", "--vectors", vectors, "--pairs", pairs, "--k", "1", "--per-query")),
    ):
        pid = hold(out)
        refused = cli(*command, out)
        assert refused.code == 2
        assert f"in use by process {pid}" in refused.err


def test_the_lock_of_an_output_leaves_nothing_and_one_process_may_take_it_twice(tmp_path: Path) -> None:
    with output_lock(tmp_path / "a"), output_lock(tmp_path / "b/../a"), output_lock(tmp_path / "c"):
        assert sorted(f.name for f in tmp_path.iterdir()) == [".a.lock", ".c.lock"]
    assert not list(tmp_path.iterdir())


def test_a_lock_whose_file_was_removed_and_made_anew_is_not_believed(tmp_path: Path) -> None:
    """The file of the first is gone and another holds the new one: whoever comes next must see that one."""
    lock = tmp_path / "lock"
    with file_lock(lock, "it", remove=True):
        lock.unlink()
        with (
            file_lock(lock, "it", remove=True),
            pytest.raises(BadInput, match="in use"),
            file_lock(lock, "it", remove=True),
        ):
            pass
    with file_lock(lock, "it", remove=True):
        pass
    assert not lock.exists()


@pytest.mark.slow
def test_sigterm_keeps_what_is_done_and_says_how_to_go_on(tiny_bundle: Path, workspace: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from n2kit.embed import store; from n2kit_cli.main import main\n"
        "store.SHARD, real, calls = 5, store.encode, []\n"
        "def encode(*a, **o):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(*a, **o)\n"
        "store.encode = encode\n"
        "main(sys.argv[1:])\n"
    )
    out = tmp_path / "v.parquet"
    command = ["embed", str(tiny_bundle), "--items", "items.jsonl", "--images", "images", "-o", str(out)]
    done = forks.run(["-c", script, *command], cwd=workspace)
    assert done.returncode == 130
    assert "interrupted; to go on: " in done.stderr
    assert f"n2kit embed {tiny_bundle} --items items.jsonl" in done.stderr
    assert len(list(tmp_path.glob(".v.parquet.parts-*/*.parquet"))) == 2
    assert not list(tmp_path.glob(".v.parquet.lock"))
