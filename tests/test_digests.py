"""Images are known by their content: what was made of others is never called finished, and a second look reads no file."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench_cells import DATA
from n2kit import Item, read_items
from n2kit.bench.runner.store import Store
from n2kit.bundle import io as bundle
from n2kit.data.image_digests import images_digest
from n2kit.data.pairs import read_pairs
from n2kit.embed.store import embed
from n2kit.embed.vectors_file import META
from n2kit.errors import BadInput
from n2kit.recipe.settings import resolve
from n2kit.train import train
from n2kit.utils import digests

ITEMS = [Item("a", "a.bmp"), Item("b", "b.bmp"), Item("c", title="no image"), Item("d", "no/such.png")]
OLD = "0123456789abcdef"  # a digest of images as versions before wrote it


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.bmp")
    return folder


def repaint(file: Path) -> None:
    """Replace an image by another of the same size, and set its time back."""
    before = file.stat()
    Image.new("RGB", (8, 8), "green").save(file)
    assert file.stat().st_size == before.st_size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_image_of_the_same_size_and_time_is_another(images: Path) -> None:
    before = images_digest(ITEMS, images)
    repaint(images / "a.bmp")
    assert images_digest(ITEMS, images) != before


def test_a_copied_folder_has_the_same_digest(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "copy")
    assert images_digest(ITEMS, tmp_path / "copy") == images_digest(ITEMS, images)
    (tmp_path / "copy/b.bmp").unlink()
    assert images_digest(ITEMS, tmp_path / "copy") != images_digest(ITEMS, images)


def test_a_second_look_reads_no_file(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = images_digest(ITEMS, images)
    monkeypatch.setattr(digests, "_read", lambda file: pytest.fail(f"{file} is read again"))
    assert images_digest(ITEMS, images) == first


def test_a_file_that_was_changed_just_now_is_not_remembered(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "SETTLED", 1e9)
    images_digest(ITEMS, images)
    read = []
    real = digests._read
    monkeypatch.setattr(digests, "_read", lambda file: read.append(file.name) or real(file))
    images_digest(ITEMS, images)
    assert read == ["a.bmp", "b.bmp"]


def test_what_is_no_file_is_not_opened(images: Path) -> None:
    os.mkfifo(images / "pipe.png")
    odd = [Item("p", "pipe.png"), Item("f", "."), Item("n", "\0"), Item("l", "x" * 5000)]
    assert [*digests.file_digests(images / item.image for item in odd)] == [None] * 4
    assert images_digest(odd, images) == images_digest(odd, None)


@pytest.mark.parametrize("state", ["damaged", "locked", "no folder"])
def test_without_a_memory_files_are_hashed(
    state: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = images_digest(ITEMS, images)
    cache = tmp_path / "cache"
    monkeypatch.setenv("N2KIT_CACHE", str(cache))
    monkeypatch.setattr(digests, "WAIT", 0.01)
    if state == "no folder":
        cache.write_text("a file")
        assert images_digest(ITEMS, images) == first
        return
    cache.mkdir()
    memory = cache / digests.MEMORY
    if state == "damaged":
        memory.write_bytes(b"no database" * 1000)
        assert images_digest(ITEMS, images) == first
        assert images_digest(ITEMS, images) == first
        with sqlite3.connect(memory) as anew:
            assert anew.execute("SELECT count(*) FROM file").fetchone() == (2,)
        return
    with sqlite3.connect(memory) as other:
        other.execute("CREATE TABLE other (x)")
        other.execute("BEGIN EXCLUSIVE")
        assert images_digest(ITEMS, images) == first


def test_vectors_of_another_image_of_the_same_size_are_refused(
    workspace: Path, tiny_bundle: Path, images: Path, tmp_path: Path
) -> None:
    model, out = bundle.load(tiny_bundle), tmp_path / "v.parquet"
    (tmp_path / "items.jsonl").write_text('{"id": "a", "image": "a.bmp"}\n{"id": "b", "image": "b.bmp"}\n')
    items = read_items(tmp_path / "items.jsonl")
    embed(model, "f", items, out, images=images)
    assert embed(model, "f", items, out, images=images).done_before
    repaint(images / "a.bmp")
    with pytest.raises(BadInput, match="other images"):
        embed(model, "f", items, out, images=images)


def test_vectors_of_an_earlier_version_are_not_called_finished(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    model, out = bundle.load(tiny_bundle), tmp_path / "v.parquet"
    (tmp_path / "items.jsonl").write_text('{"id": "a", "image": "a.bmp"}\n')
    items = read_items(tmp_path / "items.jsonl")
    embed(model, "f", items, out, images=images)
    table = pq.read_table(out)
    meta = json.loads(table.schema.metadata[META])
    meta["run"]["images"] = OLD
    pq.write_table(table.replace_schema_metadata({META: json.dumps(meta).encode()}), out)
    with pytest.raises(BadInput, match="earlier version") as refused:
        embed(model, "f", items, out, images=images)
    assert "--force" in str(refused.value.hint)
    assert not embed(model, "f", items, out, images=images, force=True).done_before


def test_runs_of_an_earlier_version_are_refused(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    items = read_items(workspace / "items.jsonl")
    settings: dict[str, Any] = {"train.batch_size": 4, "train.max_steps": 1}
    recipe = resolve(settings, base=bundle.read_recipe(tiny_bundle), env={}).recipe

    def run() -> Any:
        pairs = read_pairs(workspace / "train.csv", items)
        return train(tiny_bundle, items, pairs, recipe, tmp_path / "run", images=workspace / "images")

    run()
    assert run().done_before
    state = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps(state | {"images": OLD}))
    with pytest.raises(BadInput, match="earlier version"):
        run()


def test_benches_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    Store(tmp_path / "b").claim(DATA | {"images": OLD})
    with pytest.raises(BadInput, match="earlier version"):
        Store(tmp_path / "b").claim(DATA | {"images": "content:0123456789abcdef"})
