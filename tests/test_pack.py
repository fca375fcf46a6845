"""Pictures packed beside their rows: every command reads them as it reads a folder of files, and unpacks them nowhere."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import n2kit
from n2kit.data.image_source import name_of, stored_folder
from n2kit.data.images import UnreadableImage, open_image
from n2kit.datasets.pack import pack
from n2kit.embed.dataset.reading import Dataset
from n2kit.embed.encoded import Encoded
from n2kit.embed.vectors_file import read_vectors, write_vectors
from n2kit.errors import BadInput

FORMS = ("parquet", "webdataset")


@pytest.fixture(scope="module", params=FORMS)
def packed(request: Any, workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace, packed into three shards."""
    out = tmp_path_factory.mktemp("packed") / request.param
    form: Any = {"parquet": "parquet", "webdataset": "tar"}[request.param]
    made = pack(workspace, out, form=form, shard_items=10)
    assert (made.items, made.images, made.shards) == (24, 24, 3)
    return out


def rows_of(path: Path) -> tuple[list[str], np.ndarray]:
    read = Dataset.open(path).read() if path.is_dir() else read_vectors(path)
    return read.ids, read.vectors


def test_a_folder_of_shards_is_read_as_the_folder_that_it_was_made_of(
    cli: Any, packed: Path, workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Embed into a file and into a folder, index, recommend with pictures, eval."""
    found, said = {}, {}
    for name, data in (("files", workspace), ("packed", packed)):
        file, folder, index = tmp_path / f"{name}.parquet", tmp_path / f"{name}-rows", tmp_path / f"{name}.index"
        done = cli("embed", tiny_bundle, "--data", data, "-o", file, "--json")
        assert json.loads(done.out)["read"]["with"]["image"] == 24
        assert cli("embed", tiny_bundle, "--data", data, "-o", folder, "--shard-size", "7").code == 0
        assert cli("index", file, "-o", index, "--data", data).code == 0
        page = tmp_path / f"{name}.html"
        shown = cli("recommend", "--index", index, "--id", "noto:3", "-k", "2", "--html", page)
        assert page.read_text("utf8").count("data:image/webp") == 3
        ids, vectors = rows_of(file)
        others = rows_of(folder)
        assert others[0] == ids
        found[name] = vectors, others[1]
        said[name] = ids, shown.out, json.loads(cli("eval", "--vectors", file, "--data", data, "--json").out)["metrics"]
    # Items of one picture share it where it is called by its content, so that batches differ.
    for one, other in zip(found["files"], found["packed"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert said["files"] == said["packed"]
    assert not stored_folder().exists()


def test_fit_train_neglect_and_check_read_it(cli: Any, packed: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = cli("fit", tiny_bundle, "--data", packed, "-o", tmp_path / "fitted")
    assert done.code == 0, done.err
    done = cli("train", tiny_bundle, "--data", packed, "-o", tmp_path / "run", "--max-steps", "2")
    assert done.code == 0, done.err
    done = cli("data", "check", packed, "--html", tmp_path / "check.html", "--json")
    assert (done.code, json.loads(done.out)["tables"]["pictures"]["looked at"]) == (0, 24)
    assert (tmp_path / "check.html").read_text().count("data:image/webp") == 16
    assert cli("neglect", tiny_bundle, "--data", packed).code == 0
    assert not stored_folder().exists()


@pytest.mark.slow
def test_a_bench_reads_it(cli: Any, packed: Path, tmp_path: Path) -> None:
    matrix = "llm: [qwen:tiny]\nvision: [siglip:tiny]\nsettings: {train.max_steps: 1}\nbootstrap: 10\n"
    (tmp_path / "matrix.yaml").write_text(matrix)
    done = cli("bench", "run", tmp_path / "matrix.yaml", "--data", packed, "-o", tmp_path / "bench", "--json")
    assert done.code == 0, done.err
    assert list((tmp_path / "bench").glob("cells/*/cell.json"))


def test_a_server_shows_packed_pictures(packed: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="n2kit[serve] is not installed")
    from n2kit.serve import ServeOptions
    from serving import live

    items = n2kit.read_items(packed / "items")
    n2kit.Index.build(n2kit.embed(tiny_bundle, items), items=items).save(tmp_path / "index")
    for known in (items, None):  # as the command is given them, and as the index remembers them
        with live(ServeOptions({"main": tmp_path / "index"}, (tiny_bundle,), known, None, None, "cpu")) as server:
            assert server("/v1/image?id=noto:3").status == 200


def test_packing_again_and_in_the_other_form_gives_the_same(packed: Path, tmp_path: Path, workspace: Path) -> None:
    pack(packed, tmp_path / "again", shard_items=10)
    pack(workspace, tmp_path / "once", shard_items=10)
    for shard in ("00000", "00001", "00002"):
        one, other = (tmp_path / name / "items" / f"{shard}.parquet" for name in ("once", "again"))
        assert one.read_bytes() == other.read_bytes()
    assert {f.name for f in (tmp_path / "once").iterdir()} == {
        "items", "pack.json", "train.csv", "val.csv", "test.csv", "pool.csv",
    }  # fmt: skip
    assert n2kit.read_items(packed / "items").digest() == n2kit.read_items(tmp_path / "once" / "items").digest()


def test_a_pack_that_is_not_whole_is_refused_and_a_whole_one_is_left_as_it_is(
    packed: Path, workspace: Path, tmp_path: Path
) -> None:
    form: Any = next((packed / "items").iterdir()).suffix[1:]
    again = pack(workspace, packed, form=form, shard_items=10)
    assert (again.done_before, again.items, again.shards) == (True, 24, 3)
    copy = tmp_path / "copy"
    shutil.copytree(packed, copy)
    next((copy / "items").iterdir()).unlink()
    with pytest.raises(BadInput, match="has 2 shards, and 3 were packed"):
        n2kit.read_items(copy / "items")
    (copy / ".pack").mkdir()
    with pytest.raises(BadInput, match="is not packed to its end"):
        n2kit.read_items(copy / "items")


def test_columns_that_are_no_fields_keep_their_types(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    table = pa.table(
        {
            "sku": [1, 2], "img": ["images/a.png", None], "name": ["one", "two"], "price": [1.5, None],
            "list": [["x"], []], "when": pa.array([0, 1], pa.timestamp("s")),
        }
    )  # fmt: skip
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "a.png").rename(tmp_path / "data" / "images" / "a.png")
    pq.write_table(table, tmp_path / "data" / "items.parquet")
    pack(tmp_path / "data", tmp_path / "parquet")
    pack(tmp_path / "data", tmp_path / "tar", form="tar")
    written = pq.read_table(tmp_path / "parquet" / "items" / "00000.parquet")
    assert [written.schema.field(name).type for name in ("price", "list", "when")] == [
        pa.float64(), pa.list_(pa.string()), pa.timestamp("us"),
    ]  # fmt: skip
    assert written["image"].to_pylist()[1] is None
    with tarfile.open(tmp_path / "tar" / "items" / "00000.tar") as archive:
        assert archive.getnames() == ["00000000000.json", "00000000000.png", "00000000001.json"]
        row = json.load(archive.extractfile("00000000000.json") or io.BytesIO())
    assert (row["id"], row["title"], row["price"], row["list"], row["category"]) == ("1", "one", 1.5, ["x"], "")
    for form in ("parquet", "tar"):
        items = n2kit.read_items(tmp_path / form / "items")
        assert [(i.id, i.title, bool(i.image)) for i in items] == [("1", "one", True), ("2", "two", False)]
        assert items.unread == ("price", "list", "when")


@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_a_shard_that_was_changed_is_named_with_the_item(form: Any, workspace: Path, tmp_path: Path) -> None:
    pack(workspace, tmp_path / "p", form=form)
    items = n2kit.read_items(tmp_path / "p" / "items")
    shard = tmp_path / "p" / "items" / f"00000.{form}"
    assert open_image(items["noto:5"], None).size == (40, 30)
    content = bytearray(shard.read_bytes())
    at = content.index((workspace / "images" / "noto_5.png").read_bytes())
    content[at + 40] ^= 1
    shard.write_bytes(content)
    from n2kit.data import packed as cells

    cells._group.cache_clear()
    items = n2kit.read_items(tmp_path / "p" / "items")
    with pytest.raises(UnreadableImage, match=r"item 'noto:5'.*does not hold it any more"):
        open_image(items["noto:5"], None)
    shard.unlink()
    cells._group.cache_clear()
    with pytest.raises(UnreadableImage, match="item 'noto:3'"):
        open_image(items["noto:3"], None)


def test_an_interrupted_packing_goes_on_and_ends_equal(workspace: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert done <= total == 24
        raise Killed

    pack(workspace, tmp_path / "whole", shard_items=5)
    for _ in range(2):  # a shard that is there is not written again
        with pytest.raises(Killed):
            pack(workspace, tmp_path / "killed", shard_items=5, progress=stop)
    first = tmp_path / "killed" / "items" / "00000.parquet"
    before = first.stat().st_mtime_ns
    made = pack(workspace, tmp_path / "killed", shard_items=5)
    assert first.stat().st_mtime_ns == before
    assert (made.items, made.shards) == (24, 5)
    for file in sorted(f for f in (tmp_path / "whole").rglob("*") if f.is_file()):
        assert file.read_bytes() == (tmp_path / "killed" / file.relative_to(tmp_path / "whole")).read_bytes()
    assert pack(workspace, tmp_path / "killed", shard_items=5).done_before
    with pytest.raises(BadInput, match="exists"):
        pack(workspace, tmp_path / "killed", shard_items=24)
    assert pack(workspace, tmp_path / "killed", shard_items=24, force=True).shards == 1


def test_pictures_that_cannot_be_read_are_counted(cli: Any, workspace: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(workspace, tmp_path / "data"))
    (data / "images" / "noto_4.png").write_bytes(b"no picture")
    (data / "images" / "twemoji_4.png").unlink()
    refused = cli("data", "pack", data, "-o", tmp_path / "p")
    assert (refused.code, "noto:4" in refused.err) == (2, True)
    for policy, items, skipped, text_only in (("skip", 22, 2, 0), ("text-only", 24, 0, 2)):
        done = cli("data", "pack", data, "-o", tmp_path / policy, "--on-bad-image", policy, "--json")
        found = json.loads(done.out)
        assert (found["items"], found["images"], found["skipped"], found["text_only"]) == (
            items,
            22,
            skipped,
            text_only,
        )
        with (tmp_path / policy / "items.skipped.csv").open() as file:
            assert {row["id"] for row in csv.DictReader(file)} == {"noto:4", "twemoji:4"}
        assert n2kit.read_items(tmp_path / policy / "items").counts()["image"] == 22


def test_tars_that_others_made(tmp_path: Path) -> None:
    """As img2dataset writes them: a key, a text, a JSON without an id; and a tar without any JSON."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "JPEG")

    def tar(name: str, members: dict[str, bytes]) -> Path:
        with tarfile.open(tmp_path / name, "w") as archive:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return tmp_path / name

    jpg = picture.getvalue()
    one = n2kit.read_items(
        tar(
            "a.tar",
            {
                "0.jpg": jpg,
                "0.txt": b"a caption",
                "0.json": b'{"url": "x"}',
                "dir/1.v2.jpg": jpg,
                "dir/1.cls": b"7",
                "dir/1.txt": b"b",
            },
        )
    )
    assert [(i.id, i.content, bool(i.image)) for i in one] == [("0", "a caption", True), ("dir/1", "b", True)]
    assert open_image(one["0"], None).size == (8, 8)
    assert one.unread == ("url", "cls")
    for described, called in (({}, {}), ({"0.json": b'{"image": "x.jpg"}'}, {"0.left.jpg": "x.jpg"})):
        for pictures in (["0.left.jpg"], ["0.left.jpg", "0.right.jpg"]):
            two = n2kit.read_items(tar("two.tar", described | dict.fromkeys(pictures, jpg)))
            assert name_of(two["0"].image) == called.get(pictures[0], pictures[0])  # the first in the tar
            assert two.several == len(pictures) - 1
    with pytest.raises(BadInput, match=r"c\.tar:2: 2\.json"):
        n2kit.read_items(tar("c.tar", {"1.json": b"{}", "2.json": b"[]"}))
    assert len(n2kit.read_items(tar("c.tar", {"1.json": b"{}", "2.json": b"{"}), lenient=True)) == 1
    whole = (tmp_path / "a.tar").read_bytes()
    for content, said in ((whole[:900], "damaged|not a tar"), (b"nothing", "not a tar"), (b"", "not a tar")):
        (tmp_path / "d.tar").write_bytes(content)
        with pytest.raises(BadInput, match=said):
            n2kit.read_items(tmp_path / "d.tar")


def test_folders_that_are_no_shards_are_refused(workspace: Path, packed: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="without shards") as caught:
        n2kit.read_items(workspace)
    assert "a data folder" in (caught.value.hint or "")
    for name, hint in (("a.jpg", "n2kit data import images makes"), ("list.csv", "it has list.csv: ")):
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / name).touch()
        with pytest.raises(BadInput, match="without shards") as caught:
            n2kit.read_items(tmp_path / "own")
        assert hint in (caught.value.hint or "")
    for name in ("a.parquet", "b.tar"):
        (tmp_path / name).touch()
    with pytest.raises(BadInput, match="of Parquet and of tar"):
        n2kit.read_items(tmp_path)
    with pytest.raises(BadInput, match="is the folder that is packed"):
        pack(packed, packed)
    shards = sorted((packed / "items").iterdir())
    (tmp_path / "twice").mkdir()
    for n in (0, 1):
        shutil.copy(shards[0], tmp_path / "twice" / f"{n}{shards[0].suffix}")
    with pytest.raises(BadInput, match=r"duplicate id 'noto:1f600', first as item 1 of"):
        n2kit.read_items(tmp_path / "twice")


def test_shards_of_others_need_no_digests(workspace: Path, tmp_path: Path) -> None:
    """Parquet of {bytes, path}, as the datasets library writes it: unpacked once, into the cache, as before."""
    images = [{"bytes": (workspace / "images" / f"noto_{n}.png").read_bytes(), "path": f"{n}.png"} for n in (1, 2)]
    (tmp_path / "shards").mkdir()
    for n, image in enumerate(images):
        pq.write_table(pa.table({"id": [str(n)], "image": [image]}), tmp_path / "shards" / f"{n}.parquet")
    items = n2kit.read_items(tmp_path / "shards")
    assert [open_image(item, None).size for item in items] == [(40, 30)] * 2
    assert any(stored_folder().iterdir())


@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_an_index_and_exports_of_a_pack_know_what_those_of_the_folder_know(form: Any, cli: Any, tmp_path: Path) -> None:
    """Topics, the picture's own name, and a column that is called as one of n2kit's was."""
    (tmp_path / "d" / "images").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "d" / "images" / "frog.png")
    row = {
        "id": "a",
        "image": "frog.png",
        "title": "a frog",
        "topics": ["x", "y"],
        "image_sha256": "mine",
        "long": "é" * 300,
    }
    (tmp_path / "d" / "items.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps({"id": "b", "title": "none"}) + "\n"
    )
    pack(tmp_path / "d", tmp_path / "p", form=form)
    write_vectors(Encoded(["a", "b"], np.eye(2, dtype=np.float32), None), "f" * 12, tmp_path / "v.parquet")
    known = {}
    for name in ("d", "p"):
        index, atlas, points = (tmp_path / f"{name}.{kind}" for kind in ("index", "parquet", "jsonl"))
        done = cli("index", tmp_path / "v.parquet", "-o", index, "--data", tmp_path / name)
        assert "kept as columns: image_sha256 · not read: long\n" in done.err
        assert cli("export", index, "--to", "qdrant", points).code == 0
        assert cli("export", index, "--to", "atlas", atlas).code == 0
        assert pq.read_table(atlas)["image"].to_pylist()[0]["bytes"][8:12] == b"WEBP"
        near = json.loads(cli("recommend", "--index", index, "--id", "b", "--json").out)["neighbours"]
        known[name] = json.loads(points.read_text().splitlines()[0])["payload"], near
    assert known["d"] == known["p"]
    assert known["d"][0] == {"id": "a", "title": "a frog", "image": "frog.png", "topics": "x|y", "image_sha256": "mine"}
    pack(tmp_path / "p", tmp_path / "again", form=form)
    assert name_of(n2kit.read_items(tmp_path / "again" / "items")["a"].image) == "frog.png"


def test_a_picture_in_a_cell_keeps_the_name_that_it_came_with(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (40, 40)).save(content, "PNG")
    rows = [{"bytes": content.getvalue(), "path": "frog.png"}, {"bytes": content.getvalue(), "path": None}]
    pq.write_table(pa.table({"id": ["a", "b"], "image": rows}), tmp_path / "items.parquet")
    items = n2kit.read_items(tmp_path / "items.parquet")
    assert [name_of(i.image) for i in items] == ["frog.png", ""]
    made = pack(tmp_path, tmp_path / "p")
    assert made.images == 2
    assert [name_of(i.image) for i in n2kit.read_items(tmp_path / "p" / "items")] == ["frog.png", "b.png"]


def test_what_a_packing_dropped_is_listed_and_what_it_failed_at_leaves_nothing(cli: Any, tmp_path: Path) -> None:
    data, out = tmp_path / "d", tmp_path / "p"
    (data / "images").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(data / "images" / "a.png")
    (data / "items.csv").write_text("id,title,image\na,x,a.png\na,y,a.png\nb,z,none.png\n")
    failed = cli("data", "pack", data, "-o", out, "--lenient")
    assert (failed.code, [*out.iterdir()]) == (2, []), failed.err
    (out / ".pack.json.1.tmp").write_text("x")  # of a process that was killed
    for _ in range(2):  # what is finished says so, and keeps the list
        done = cli("data", "pack", data, "-o", out, "--lenient", "--on-bad-image", "text-only")
        assert (done.code, "dropped 1 row" in done.err) == (0, True), done.err
        rows = list(csv.reader((out / "items.skipped.csv").open()))
        assert [rows[0], rows[1][0], rows[2][0]] == [["id", "reason"], "b", ""]
        assert rows[2][1].endswith("items.csv:3: duplicate id 'a', first on line 2")
        assert {f.name for f in out.iterdir()} == {"items", "items.skipped.csv", "pack.json"}
    (data / "items.csv").write_text("id,n2kit_image_sha256\na,b\n")
    refused = cli("data", "pack", data, "-o", tmp_path / "other")
    assert (refused.code, "a column is called n2kit_image_sha256" in refused.err) == (2, True)


def test_after_a_forced_packing_that_failed_the_same_is_packed_anew(tmp_path: Path) -> None:
    data, out = tmp_path / "d", tmp_path / "p"
    (data / "images").mkdir(parents=True)
    (data / "items.csv").write_text("id,title,image\na,x,a.png\n")
    picture = data / "images" / "a.png"
    Image.new("RGB", (40, 40)).save(picture)
    pack(data, out)
    whole = picture.read_bytes()
    picture.write_bytes(b"no picture")
    with pytest.raises(UnreadableImage):
        pack(data, out, force=True)
    picture.write_bytes(whole)
    assert not pack(data, out).done_before
    assert pack(data, out).done_before


def test_the_encoding_of_the_columns_file_is_part_of_what_was_packed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "items.csv").write_text("id,title\na,Stühle\n")
    for encoding, done_before in (("utf-8", False), ("utf-8", True), ("cp1252", None)):
        (tmp_path / "data" / "columns.yaml").write_text(f"items.csv: {{encoding: {encoding}}}\n")
        with pytest.raises(BadInput, match="exists") if done_before is None else nullcontext():
            assert pack(tmp_path / "data", tmp_path / "out").done_before is done_before
