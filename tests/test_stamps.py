"""benchmarks/stamps.py: the same data set out of a package and out of its folder, and no subject on two sides of a split."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n2kit.data.items import read_items
from n2kit.data.pairs import read_ids, read_pairs
from n2kit.evaluate import evaluate, greedy_pairs

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "stamps.py"
STAMPS = "usr/share/tuxpaint/stamps"
SIZES = {
    "animals/birds": 5,
    "food/fruit": 4,
    "food/fruit/cartoon": 3,
    "plants": 3,
    "town/flags": 2,
    "space": 1,
    "symbols/math": 4,
}


def files() -> dict[str, bytes]:
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(picture, "png")
    made = {"usr/share/doc/tuxpaint-stamps-default/copyright": b"License: GPL-2\n"}
    for folder, count in SIZES.items():
        for n in range(count):
            made[f"{STAMPS}/{folder}/thing{n}.png"] = picture.getvalue()
            made[f"{STAMPS}/{folder}/thing{n}.txt"] = f"A thing {n}.\nfr.utf8=Une chose {n}.\n".encode()
    made[f"{STAMPS}/plants/thing0_mirror.png"] = picture.getvalue()  # has no description
    return made


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stamps")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name, content in files().items():
            (root / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "folder" / name).write_bytes(content)
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": packed.getvalue()}
    deb = b"!<arch>\n"
    for name, content in members.items():
        deb += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
        )
    (root / "stamps.deb").write_bytes(deb)
    return {"folder": root / "folder", "deb": root / "stamps.deb"}


def run(source: Path, out: Path, *options: str) -> Any:
    done = subprocess.run([sys.executable, SCRIPT, source, out, *options], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_package_and_folder_give_the_same_data_set_which_n2kit_reads(sources: dict[str, Path], tmp_path: Path) -> None:
    counts = run(sources["deb"], tmp_path / "a")
    assert run(sources["folder"], tmp_path / "b") == counts
    assert content(tmp_path / "a") == content(tmp_path / "b")
    items = read_items(tmp_path / "a" / "items.jsonl")
    assert (
        len(items) == counts["items"] == 14
    )  # no glyph, no drawing, no mirrored picture, nothing that is alone in its folder
    assert all((tmp_path / "a" / "images" / item.image).is_file() and item.title for item in items)
    assert read_ids(tmp_path / "a" / "pool.csv", items) == [item.id for item in items]
    assert "GPL-2" in (tmp_path / "a" / "NOTICE").read_text()


def test_pairs_stay_in_a_folder_and_a_subject_in_a_split(sources: dict[str, Path], tmp_path: Path) -> None:
    run(sources["deb"], tmp_path / "a", "--drawings")
    items = read_items(tmp_path / "a" / "items.jsonl")
    splits: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        for a, b in read_pairs(tmp_path / "a" / f"{split}.csv", items):
            assert a.rpartition("/")[0] == b.rpartition("/")[0]
            splits.setdefault(a.rpartition("/")[0].removesuffix("/cartoon"), set()).add(split)
    assert {len(found) for found in splits.values()} == {1}
    assert "food/fruit" in splits
    test = read_pairs(tmp_path / "a" / "test.csv", items)
    sizes = [n for folder, n in SIZES.items() if splits.get(folder.removesuffix("/cartoon")) == {"test"}]
    assert len(greedy_pairs(test)) == sum(n // 2 for n in sizes)  # as many as there can be
    assert len(test) == sum(n * (n - 1) for n in sizes)
    report = evaluate([i.id for i in items], np.eye(len(items), dtype=np.float32), test, protocol="standard")
    assert report.queries == sum(sizes)


def test_languages_are_drawn_and_bad_input_is_said(sources: dict[str, Path], tmp_path: Path) -> None:
    run(sources["deb"], tmp_path / "a", "--languages", "en,fr")
    rows = [json.loads(line) for line in (tmp_path / "a" / "items.jsonl").read_text("utf8").splitlines()]
    assert {(row["lang"], row["title"].split()[0]) for row in rows} == {("en", "A"), ("fr", "Une")}
    assert "no stamp has a description in xx" in run(sources["deb"], tmp_path / "b", "--languages", "xx")
    assert "is there already" in run(sources["deb"], tmp_path / "a")
    assert "not a Debian package" in run(SCRIPT, tmp_path / "c")
    assert "holds no stamps" in run(tmp_path / "a", tmp_path / "c")
