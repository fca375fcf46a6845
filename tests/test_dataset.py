"""A folder of vectors: nothing lost, nothing twice, whoever is killed; grown by what is new; read piece by piece."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import forks
import n2kit
from n2kit.data.item import Item
from n2kit.data.items import read_items
from n2kit.data.seen_ids import SeenIds
from n2kit.embed import open_vectors, read_vectors
from n2kit.embed.dataset import run as runs
from n2kit.embed.dataset.run import Embedded, Settings, embed_folder
from n2kit.errors import BadInput
from n2kit.index import build_index
from n2kit.modeling.model import Model
from stand_ins import python

PRINT = "0123456789abcdef"


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return n2kit.load(tiny_bundle)


@pytest.fixture(scope="module")
def items(workspace: Path) -> list[Item]:
    return read_items(workspace / "items.jsonl").items


@pytest.fixture(scope="module")
def whole(model: Model, items: list[Item], workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "v"
    call(model, items, workspace, out)
    return out


@pytest.fixture
def mine(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "v"))


def call(model: Model, items: Any, workspace: Path, out: Path, **options: Any) -> Embedded:
    own = {name: options.pop(name) for name in Settings.__dataclass_fields__ if name in options}
    settings = Settings(**{"images": workspace / "images", "visual": True, "precision": "fp32"} | own)
    source = options.pop("source", str([item.id for item in items]))
    return embed_folder(model, PRINT, items, out, settings, source=source, shard_size=5, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {
        f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != ".lock"
    }


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of each shard that is computed; the third one is interrupted, once."""
    real, found = runs.encode, list[list[str]]()

    def encode(model: Any, some: Any, **options: Any) -> Any:
        found.append([item.id for item in some])
        if len(found) == 3:
            raise KeyboardInterrupt
        return real(model, some, **options)

    monkeypatch.setattr(runs, "encode", encode)
    return found


def test_an_interrupted_folder_is_finished_byte_by_byte_alike(
    model: Model, items: list[Item], workspace: Path, whole: Path, calls: list[list[str]], tmp_path: Path
) -> None:
    out = tmp_path / "v"
    with pytest.raises(KeyboardInterrupt):
        call(model, items, workspace, out)
    with pytest.raises(BadInput, match="not finished"):
        read_vectors(out)
    done = call(model, items, workspace, out)
    assert len(calls) == 6  # of five shards, the third one twice
    assert files(out) == files(whole)
    assert sorted(f.name for f in out.iterdir()) == [".lock", "manifest.json", "shards"]
    assert (done.new, done.done_before) == (24, False)
    assert call(model, items, workspace, out).done_before


def test_it_holds_what_a_file_holds(model: Model, items: list[Item], workspace: Path, whole: Path) -> None:
    table = read_vectors(whole)
    encoded = n2kit.embed.encode(model, items, images=workspace / "images")
    assert table.ids == encoded.ids
    np.testing.assert_allclose(table.vectors, encoded.vectors, atol=1e-6)
    np.testing.assert_allclose(table.visual, encoded.visual, atol=1e-6)  # type: ignore[arg-type]
    source = open_vectors(whole)
    assert (len(source), source.width, source.fingerprint) == (24, 16, PRINT)
    assert [len(batch.ids) for batch in source.batches()] == [5, 5, 5, 5, 4]


@pytest.mark.parametrize(("dtype", "least"), [("float32", 1 - 1e-6), ("float16", 1 - 1e-5), ("int8", 0.9995)])
def test_types_and_width(
    model: Model, items: list[Item], workspace: Path, whole: Path, tmp_path: Path, dtype: Any, least: float
) -> None:
    call(model, items, workspace, tmp_path / "v", dtype=dtype, dim=8)
    found, full = read_vectors(tmp_path / "v"), read_vectors(whole).vectors[:, :8]
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    cosine = (found.vectors * full).sum(1) / np.linalg.norm(full, axis=1)
    assert cosine.min() > least
    kind = pq.read_schema(tmp_path / "v" / "shards" / "000000.parquet").field("vector").type
    assert (kind.list_size, str(kind.value_type)) == (
        8,
        {"float32": "float", "float16": "halffloat", "int8": "int8"}[dtype],
    )


def test_append_embeds_what_is_new_and_removes_what_is_gone(
    model: Model, items: list[Item], workspace: Path, mine: Path, calls: list[list[str]]
) -> None:
    changed = Item(items[7].id, title="another title")
    later = [*items[:7], changed, *items[8:20], Item("new", title="new")]
    with pytest.raises(BadInput, match="other items"):
        call(model, later, workspace, mine)
    before = read_vectors(mine)
    done = call(model, later, workspace, mine, append=True)
    assert calls == [[changed.id, "new"]]
    assert (done.new, done.kept, done.removed) == (2, 19, 5)
    found = read_vectors(mine)
    assert found.ids == [*(i.id for i in items[:20] if i.id != changed.id), changed.id, "new"]
    kept = [before.ids.index(i) for i in found.ids[:-2]]
    assert np.array_equal(found.vectors[:-2], before.vectors[kept])
    assert call(model, later, workspace, mine, append=True).done_before
    assert call(model, later, workspace, mine).done_before  # the same catalogue, without the flag
    again = call(model, items, workspace, mine, append=True)  # those that went come back
    assert (again.new, again.removed) == (5, 2)
    assert sorted(read_vectors(mine).ids) == sorted(i.id for i in items)
    assert [f.name for f in mine.glob("removed-*")] == ["removed-000002.parquet"]


def test_a_changed_image_is_new(model: Model, items: list[Item], workspace: Path, mine: Path, tmp_path: Path) -> None:
    from PIL import Image

    images = Path(shutil.copytree(workspace / "images", tmp_path / "images"))
    Image.new("RGB", (9, 9), (1, 2, 3)).save(images / items[2].image)
    done = call(model, items, workspace, mine, images=images, append=True)
    assert (done.new, done.removed) == (1, 1)
    assert call(model, items, workspace, mine, images=images).done_before


def test_append_to_nothing_begins(
    model: Model, items: list[Item], workspace: Path, whole: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    call(model, items, workspace, tmp_path / "n", append=True, notify=said.append)
    assert files(tmp_path / "n") == files(whole)
    assert "all items are embedded" in said[0]


def test_append_that_is_interrupted_leaves_the_folder_as_it_was(
    model: Model, items: list[Item], workspace: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_vectors(mine)
    later = [*items[3:], Item("new", title="new")]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "encode", lambda *a, **o: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            call(model, later, workspace, mine, append=True)
    now = read_vectors(mine)
    assert now.ids == before.ids
    call(model, later, workspace, mine, append=True)
    assert read_vectors(mine).ids == [i.id for i in later]


def test_another_policy_for_bad_images_costs_only_the_shards_that_have_any(
    model: Model, items: list[Item], workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [*items[:12], Item("bad", image="missing.png", title="a text"), *items[12:]]
    with pytest.raises(BadInput, match=r"missing\.png"):
        call(model, bad, workspace, tmp_path / "v")
    real, seen = runs.encode, list[int]()
    monkeypatch.setattr(runs, "encode", lambda m, some, **o: seen.append(len(some)) or real(m, some, **o))
    done = call(model, bad, workspace, tmp_path / "v", on_bad_image="skip")
    assert seen == [5, 5, 5]  # two were there
    assert list(done.dataset.manifest.skipped) == ["bad"]
    assert (done.dataset.manifest.items, done.dataset.manifest.text_only) == (24, 0)
    with pytest.raises(BadInput, match="every item had to be skipped"):
        call(model, [Item("bad", image="missing.png")], workspace, tmp_path / "w", on_bad_image="skip")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    at = content.index(np.float32(pq.read_table(file)["vector"][0].as_py()[0]).tobytes())
    content[at + 1] ^= 1
    file.write_bytes(content)


def gone(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("spoil", [cut, flip, gone])
def test_damage_is_seen_when_it_is_read_and_mended_when_it_goes_on(
    spoil: Any, model: Model, items: list[Item], workspace: Path, whole: Path, mine: Path, tmp_path: Path
) -> None:
    spoil(mine / "shards" / "000001.parquet")
    with pytest.raises(BadInput, match=r"000001\.parquet is (damaged|missing)"):
        read_vectors(mine)
    with pytest.raises(BadInput, match=r"000001\.parquet is (damaged|missing)"):
        build_index(mine, tmp_path / "index")
    (mine / "manifest.json").unlink()
    said: list[str] = []
    call(model, items, workspace, mine, notify=said.append)
    assert files(mine) == files(whole)
    assert [line for line in said if "computed again" in line] == said[: int(spoil is not gone)]


def test_what_is_refused(model: Model, items: list[Item], workspace: Path, mine: Path, tmp_path: Path) -> None:
    cases = [
        (
            lambda: embed_folder(
                model, "f" * 16, items, mine, Settings(workspace / "images", True, precision="fp32"), source="x"
            ),
            "another model: 0123",
        ),
        (lambda: call(model, items, workspace, mine, dtype="int8"), "another --dtype: float32"),
        (lambda: call(model, items, workspace, mine, dim=8), "another --dim: 16"),
        (lambda: call(model, items, workspace, mine, dim=17), "have 16 numbers"),
        (lambda: call(model, items, workspace, workspace / "images"), "which n2kit embed did not write"),
        (lambda: call(model, items, workspace, workspace / "items.csv"), "is no folder"),
        (lambda: read_vectors(workspace / "images"), "no folder of vectors"),
    ]
    for attempt, reason in cases:
        with pytest.raises(BadInput, match=reason):
            attempt()
    before = files(mine)
    call(model, items, workspace, mine, dtype="int8", force=True)
    assert files(mine) != before


def test_an_item_that_holds_its_image_is_refused(model: Model, workspace: Path, tmp_path: Path) -> None:
    given = [Item.of({"id": "a", "image": (workspace / "images" / "noto_3.png").read_bytes()})]
    with pytest.raises(BadInput, match="holds its image itself"):
        call(model, given, workspace, tmp_path / "v")


def test_ids_are_seen_once_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2kit.data.seen_ids.RECENT", 8)
    seen = SeenIds()
    assert all(seen.first_line(f"id{n}", n) is None for n in range(1000))
    assert [seen.first_line(f"id{n}", 2000) for n in (0, 7, 8, 500, 999)] == [0, 7, 8, 500, 999]
    assert len(seen.runs) < 12


def embedding(bundle: Path, out: Path, *more: str) -> list[str]:
    shared = ["--items", "items.jsonl", "--images", "images", "--shard-size", "2", "--batch-size", "2"]
    return ["-m", "n2kit_cli.main", "embed", str(bundle), *shared, "-o", str(out), *more]


def test_the_command_line(cli: Any, tiny_bundle: Path, at_workspace: Path, tmp_path: Path) -> None:
    shared = ("embed", tiny_bundle, "--items", "items.jsonl", "--images", "images")
    done = cli(*shared, "-o", tmp_path / "v", "--dtype", "float16", "--json")
    facts = json.loads(done.out)
    assert (facts["items"], facts["dtype"], facts["shards"], facts["read"]["items"]) == (24, "float16", 1, 24)
    assert "finished before" in cli(*shared, "-o", tmp_path / "v", "--dtype", "float16").err
    assert "embed: " not in done.err.partition("wrote")[2]
    for flags, reason in [
        (["-o", "v.parquet", "--append"], "--append is of a folder of vectors"),
        (["-o", tmp_path / "w", "--shard", "5/4"], "no place among several"),
        (["-o", tmp_path / "w", "--dtype", "int4"], "int4"),
        (["-o", tmp_path / "v", "--dtype", "float16", "--without", "image"], "other items"),
    ]:
        found = cli(*shared, *flags)
        assert (found.code, reason in found.err) == (2, True), found.err
    figures = json.loads(cli("eval", "--vectors", tmp_path / "v", "--pairs", "test.csv", "--json").out)
    assert figures["metrics"]["recall@10"]
    assert cli("index", tmp_path / "v", "-o", tmp_path / "v.index").code == 0
    assert cli("mine-negatives", "--vectors", tmp_path / "v", "--pairs", "train.csv", "--ranks", "1:20", "--margin", "-2", "-o", tmp_path / "n.csv").code == 0  # fmt: skip


def test_rows_that_cannot_be_used_stop_it_before_anything_is_embedded(
    cli: Any, tiny_bundle: Path, at_workspace: Path, tmp_path: Path
) -> None:
    lines = (at_workspace / "items.jsonl").read_text().splitlines()
    (tmp_path / "twice.jsonl").write_text("\n".join([*lines, lines[2], "{"]))
    shared = ("embed", tiny_bundle, "--items", tmp_path / "twice.jsonl", "--images", "images", "-o", tmp_path / "v")
    found = cli(*shared)
    assert found.code == 2
    assert "twice.jsonl:25: duplicate id" in found.err
    assert "first on line 3" in found.err
    assert not (tmp_path / "v" / "shards").exists()
    assert json.loads(cli(*shared, "--lenient", "--json").out)["read"]["dropped"] == 2


@pytest.mark.slow
def test_three_processes_share_the_shards_and_one_of_them_is_killed(
    tiny_bundle: Path, workspace: Path, tmp_path: Path
) -> None:
    def started(place: int, out: Path) -> forks.Popen:
        return forks.Popen(embedding(tiny_bundle, out, "--shard", f"{place}/3"), cwd=workspace)

    alone = forks.run(embedding(tiny_bundle, tmp_path / "alone"), cwd=workspace)
    assert alone.returncode == 0, alone.stderr
    out = tmp_path / "shared"
    running = [started(place, out) for place in (1, 2, 3)]
    _wait(lambda: any((out / "shards").glob("*.parquet")))
    running[0].kill()
    assert [process.wait() for process in running] == [-signal.SIGKILL, 0, 0]
    assert files(out) == files(tmp_path / "alone")


@pytest.mark.slow
def test_torchrun_starts_processes_that_share_the_shards(tiny_bundle: Path, workspace: Path, tmp_path: Path) -> None:
    assert forks.run(embedding(tiny_bundle, tmp_path / "alone"), cwd=workspace).returncode == 0
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    environment = os.environ | python(forks.server().name, tmp_path)
    done = forks.run([*launcher, *embedding(tiny_bundle, tmp_path / "shared")], cwd=workspace, env=environment)
    assert (done.returncode, done.stdout.split()) == (0, [str(tmp_path / "shared")]), done.stderr
    assert files(tmp_path / "shared") == files(tmp_path / "alone")


@pytest.mark.slow
def test_killed_again_and_again_it_is_finished_alike(tiny_bundle: Path, workspace: Path, tmp_path: Path) -> None:
    assert forks.run(embedding(tiny_bundle, tmp_path / "alone"), cwd=workspace).returncode == 0
    out = tmp_path / "killed"
    for least in (1, 3, 6):
        with forks.Popen(embedding(tiny_bundle, out), cwd=workspace) as process:
            _wait(lambda least=least: len(list((out / "shards").glob("*.parquet"))) >= least)  # type: ignore[misc]
            process.kill()
    done = forks.run(embedding(tiny_bundle, out), cwd=workspace)
    assert done.returncode == 0, done.stderr
    assert files(out) == files(tmp_path / "alone")


def _wait(until: Any) -> None:
    for _ in _ticks(60):
        if until():
            return
    raise AssertionError("it did not come to that")


def _ticks(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
        yield


@pytest.mark.parametrize("threads", [1, 3])
def test_images_decoded_ahead_change_nothing(
    threads: int, model: Model, items: list[Item], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from n2kit.inputs import images_ahead

    bad = [*items[:9], items[3], Item("bad", image="missing.png", title="a text"), *items[9:]]
    bad = [Item(f"{n}", item.image, item.title, item.topics) for n, item in enumerate(bad)]
    options: dict[str, Any] = {"images": workspace / "images", "batch_size": 4, "precision": "fp32"}
    monkeypatch.setattr(images_ahead, "threads_for", lambda device: 0)
    plain = n2kit.embed.encode(model, bad, on_bad_image="text-only", **options)
    loads: list[str] = []
    real = images_ahead.ImagesAhead._load

    def load(ahead: Any, item: Item) -> Any:
        loads.append(item.image)
        return real(ahead, item)

    monkeypatch.setattr(images_ahead, "threads_for", lambda device: threads)
    monkeypatch.setattr(images_ahead.ImagesAhead, "_load", load)
    found = n2kit.embed.encode(model, bad, on_bad_image="text-only", **options)
    assert len(loads) >= 24
    assert (found.ids, found.skipped) == (plain.ids, plain.skipped)
    assert np.array_equal(found.vectors, plain.vectors)
    with pytest.raises(BadInput, match=r"item '10': .*missing\.png"):
        n2kit.embed.encode(model, bad, **options)
