"""Folders that n2kit writes, with one file changed, cut, gone, or something else in its place: read as they were, or refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import bench_rows
from fuzz import law
from fuzz.mutations import mutated
from n2kit.bench.report import read_results
from n2kit.bench.report.read import read_ranking
from n2kit.bundle.io import load
from n2kit.bundle.manifest import read_manifest, read_recipe, verify
from n2kit.embed.encode import Encoded
from n2kit.embed.vectors_file import read_vectors, write_vectors
from n2kit.errors import N2kitError
from n2kit.index import build_index, load_index
from n2kit.inputs.tensor_store import TensorStore
from n2kit.train import checkpoint


def damaged(data: st.DataObject, folder: Path, valid: Path, pipes: bool = True) -> str:
    """Copy a valid folder to `folder` and do harm to one of its files; return the file's name."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(valid, folder)
    name = data.draw(st.sampled_from(sorted(str(p.relative_to(valid)) for p in valid.rglob("*") if p.is_file())))
    how = data.draw(st.sampled_from(["bytes"] * 6 + ["gone", "empty", "folder", "loop", "swap", *["pipe"] * pipes]))
    file = folder / name
    if how == "bytes":
        file.write_bytes(data.draw(mutated([file.read_bytes()])))
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "swap":
        others = sorted(p for p in folder.rglob("*") if p.is_file() and p != file)
        shutil.copy(data.draw(st.sampled_from(others)) if others else file, folder / "swap")
        (folder / "swap").replace(file)
    else:
        file.unlink()
        if how == "folder":
            file.mkdir()
        elif how == "loop":
            file.symlink_to(file.name)
        elif how == "pipe":
            os.mkfifo(file)
    return name


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    rows = np.eye(4, dtype=np.float32)
    write_vectors(Encoded(list("abcd"), rows, None), "f" * 12, folder / "v.parquet")
    return folder


@pytest.fixture(scope="module")
def index(vectors: Path) -> Path:
    build_index(vectors / "v.parquet", vectors.parent / "an-index", force=True)
    return vectors.parent / "an-index"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    for seed in (0, 1):
        bench_rows.ranked(folder, "an arm", seed, [1, 2, 3])
    (folder / "results.jsonl").write_text(
        "".join(" ".join(f.read_text().split("\n")) + "\n" for f in folder.glob("cells/*/cell.json"))
    )
    (folder / "env.json").write_text("{}")
    return folder


@law.cases(0.3)
@given(data=st.data())
def test_a_damaged_vectors_file_is_read_or_named(data: st.DataObject, vectors: Path, ground: Path) -> None:
    damaged(data, ground / "v", vectors)
    found = law.read(lambda: read_vectors(ground / "v" / "v.parquet"), "v.parquet")
    if not isinstance(found, N2kitError):
        assert found.vectors.shape[0] == len(found.ids) == len(set(found.ids))
        assert np.isfinite(found.vectors).all()


@law.cases(0.3)
@given(data=st.data())
def test_a_damaged_index_is_loaded_whole_or_named(data: st.DataObject, index: Path, ground: Path) -> None:
    damaged(data, ground / "index", index)
    found = law.read(lambda: load_index(ground / "index"), "index")
    if not isinstance(found, N2kitError):
        assert all(isinstance(i, str) for i in found.ids)
        assert len(set(found.ids)) == len(found.ids) == 4
        assert {n.id for n in found.near_item(found.ids[0], 9)} == set(found.ids[1:])


@law.cases(0.2)
@given(data=st.data())
def test_a_damaged_bundle_is_whole_or_named(data: st.DataObject, tiny_bundle: Path, ground: Path) -> None:
    damaged(data, ground / "bundle", tiny_bundle)

    def read() -> Any:
        manifest, recipe = read_manifest(ground / "bundle"), read_recipe(ground / "bundle")
        verify(ground / "bundle", manifest, recipe)
        return manifest

    law.read(read, "bundle")


@law.cases(0.03)
@given(data=st.data())
def test_a_damaged_bundle_is_loaded_or_named(data: st.DataObject, tiny_bundle: Path, ground: Path) -> None:
    damaged(data, ground / "loaded", tiny_bundle)
    law.read(lambda: load(ground / "loaded"), "loaded")


@law.cases(0.3)
@given(data=st.data())
def test_a_damaged_bench_is_reported_or_named(data: st.DataObject, bench: Path, ground: Path) -> None:
    damaged(data, ground / "bench", bench, pipes=False)
    found = law.read(lambda: read_results(ground / "bench"), "bench")
    for row in [] if isinstance(found, N2kitError) else found.of("done"):
        law.read(lambda row=row: read_ranking(row), "bench")  # type: ignore[misc]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (1, 2):
        tensors = {"model.safetensors": {"w": torch.full((3,), float(step))}}
        checkpoint.write(folder, step, tensors, {"a.json": "{}"}, {"best_file": None, "n": step})
    yield folder
    shutil.rmtree(folder)


@law.cases(0.3)
@given(data=st.data())
def test_a_run_goes_on_from_a_checkpoint_that_is_whole(data: st.DataObject, checkpoints: Path, ground: Path) -> None:
    name = damaged(data, ground / "run", checkpoints, pipes=False)
    with law.no_hang():
        last = checkpoint.last(ground / "run")
    assert last is not None
    if "checkpoint-1" in name:
        assert last.name == "checkpoint-2"
    assert isinstance(checkpoint.read(last), dict)


class Store(TensorStore):
    def fingerprint(self) -> str:
        return "f"


@law.cases(0.3)
@given(data=st.data())
def test_a_damaged_entry_of_a_cache_counts_as_absent(data: st.DataObject, ground: Path, tmp_path: Path) -> None:
    entry = {"a": torch.arange(6.0).reshape(2, 3)}
    store = Store(10**6, tmp_path / "store")
    store.write("c" * 16, entry)
    damaged(data, ground / "cache", tmp_path / "store", pipes=False)
    with law.no_hang():
        found = Store(10**6, ground / "cache").read("c" * 16)
    assert found is None or all(isinstance(t, Tensor) for t in found.values())
    again = Store(10**6, ground / "cache")
    again.write("c" * 16, entry)
    if again.problem is None:
        assert torch.equal((again.read("c" * 16) or {})["a"], entry["a"])
