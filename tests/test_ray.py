"""Ray as a queue of work: the result of one process, byte by byte, whoever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

import forks
from alone import alone
from n2kit.embed.vectors_file import Vectors, write_table
from n2kit.errors import BadInput, Failed, Unavailable
from n2kit.index import build_index, neighbours
from ray_work import neighbours_by_ray, squares

RAY = ("--engine", "ray", "--jobs", "2")


@pytest.fixture(autouse=True)
def needed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "slow" in request.keywords:
        pytest.importorskip("ray", reason="n2kit[ray] is not installed")
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # for what the actors import


def files(folder: Path) -> dict[str, bytes]:
    return {
        f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != ".lock"
    }


def embedding(bundle: Path, out: Path, *more: str) -> list[str]:
    shared = ["--items", "items.jsonl", "--images", "images", "--shard-size", "2", "--batch-size", "2"]
    return ["-m", "n2kit_cli.main", "embed", str(bundle), *shared, "--precision", "fp32", "-o", str(out), *more]


def embedded(bundle: Path, out: Path, workspace: Path) -> None:
    """Embed by one process, without the features that others have cached: in batches of another size their last bits differ."""
    done = forks.run(embedding(bundle, out), cwd=workspace, env=os.environ | {"N2KIT_CACHE": f"{out}.cache"})
    assert done.returncode == 0, done.stderr


def wait(until: Callable[[], bool], process: forks.Popen) -> None:
    end = time.monotonic() + 120
    while not until():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def actors(driver: int) -> list[psutil.Process]:
    """The actors of the Ray that a process has started."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Actor"):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def local(tiny_bundle: Path, workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that one process makes of the items."""
    out = tmp_path_factory.mktemp("local") / "v"
    embedded(tiny_bundle, out, workspace)
    return out


@pytest.mark.slow
def test_actors_embed_byte_by_byte_alike_and_one_of_them_is_killed(
    tiny_bundle: Path, workspace: Path, local: Path, tmp_path: Path
) -> None:
    out = tmp_path / "v"
    with forks.Popen(embedding(tiny_bundle, out, *RAY), cwd=workspace) as process:
        wait(lambda: any((out / "shards").glob("*.parquet")) and len(actors(process.pid)) == 2, process)
        actors(process.pid)[0].kill()
        assert process.wait() == 0
    assert files(out) == files(local)


@pytest.mark.slow
def test_a_driver_that_is_killed_is_gone_on_with_by_one_process(
    tiny_bundle: Path, workspace: Path, local: Path, tmp_path: Path
) -> None:
    out = tmp_path / "v"
    with forks.Popen(embedding(tiny_bundle, out, *RAY), cwd=workspace) as process:
        wait(lambda: len(list((out / "shards").glob("*.parquet"))) > 1, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    embedded(tiny_bundle, out, workspace)
    assert files(out) == files(local)


@pytest.mark.slow
def test_actors_find_the_neighbours_that_one_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_table(Vectors([f"i{n}" for n in range(60)], vectors, "0123456789abcdef"), tmp_path / "v.parquet")
    index = build_index(tmp_path / "v.parquet", tmp_path / "index") and tmp_path / "index"
    done = alone(neighbours_by_ray, index, tmp_path / "ray.parquet", 5, 16)
    assert (done.items, done.rows, done.computed) == (60, 300, 60)
    monkeypatch.setattr(neighbours, "BLOCK", 16)
    neighbours.all_neighbours(index, tmp_path / "local.parquet", 5)
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    assert alone(neighbours_by_ray, index, tmp_path / "ray.parquet", 5, 16).computed == 0


@pytest.mark.slow
def test_every_task_is_done_once_though_one_is_put_off_and_one_ends_its_process(tmp_path: Path) -> None:
    assert alone(squares, tmp_path, [*range(8)]) == {n: n * n for n in range(8)}
    assert (tmp_path / "once").exists()
    assert (tmp_path / "killed").exists()


@pytest.mark.slow
def test_an_error_of_the_work_ends_it_and_so_does_a_task_that_ends_every_process(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="13 is refused") as refused:
        alone(squares, tmp_path, [1, 13])
    assert refused.value.hint == "another number"
    with pytest.raises(Failed, match="3 processes at part 99 were lost"):
        alone(squares, tmp_path, [99, 1])
    with pytest.raises(Unavailable, match="does not see"):
        alone(squares, tmp_path / "elsewhere", [1])


def test_flags_that_contradict_each_other(cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    shared = ("embed", tiny_bundle, "--items", "items.jsonl", "--images", "images")
    for flags, reason in [
        (("-o", tmp_path / "v", "--jobs", "2"), "--engine ray"),
        (("-o", tmp_path / "v", "--engine", "ray", "--shard", "1/2"), "Ray shares out the shards itself"),
        (("-o", tmp_path / "v.parquet", "--engine", "ray"), "--engine is of a folder of vectors"),
        (("-o", tmp_path / "v.parquet", "--ray-address", "auto"), "--ray-address is of a folder of vectors"),
    ]:
        found = cli(*shared, *flags)
        assert (found.code, reason in found.err) == (2, True), found.err


def test_without_ray_one_line_says_what_to_install(
    cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", None)
    done = cli("embed", tiny_bundle, "--items", "items.jsonl", "--images", "images", "-o", tmp_path / "v", "--engine", "ray")  # fmt: skip
    assert (done.code, done.err.splitlines()[-2:]) == (
        3, ["error: --engine ray needs Ray, which is not installed", "hint: pip install 'n2kit[ray]'"]
    )  # fmt: skip


def test_a_node_that_does_not_start_in_time_is_named(
    cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Ray raises no class of its own for it."""

    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup.\nAnd more")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    done = cli("embed", tiny_bundle, "--items", "items.jsonl", "--images", "images", "-o", tmp_path / "v", "--engine", "ray")  # fmt: skip
    said = "error: no Ray cluster at this machine: The current node timed out during startup."
    assert (done.code, done.err.splitlines()[-2]) == (3, said), done.err
