"""A person's own file, from a messy export to a list of neighbours: what is said on the way, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from n2kit.data import columns
from n2kit_cli import options


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A semicolon CSV of 40 products with pictures in nested folders, four of them broken; and pairs under a header of its own."""
    root = tmp_path_factory.mktemp("shop")
    lines = ["Artikelnummer;Name;Kategorie;photo;Tags;Preis"]
    for n in range(40):
        room = ("kitchen", "bath/small", "garden/tools/old")[n % 3]
        (root / "pics" / room).mkdir(parents=True, exist_ok=True)
        file = root / "pics" / room / f"{n}.png"
        Image.new("RGB", (24, 18), (6 * n, 255 - 6 * n, 40 * (n % 3))).save(file)
        if n in (5, 17):
            file.write_bytes(b"not a picture")
        if n in (23, 31):
            file.unlink()
        path = f"pics/{room}/{n}.png"
        lines.append(
            f"A-{n};Thing {n}, {room};{room.split('/')[0]};{path.replace('/', chr(92)) if n % 2 else path};red|no {n};{n},99"
        )
    (root / "export.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    (root / "bought.csv").write_text("Artikel;dazu\n" + "".join(f"A-{n};A-{n + 1}\n" for n in range(0, 40, 2)))
    return root


MAP = ("--map", "id=Artikelnummer", "--map", "category=Kategorie")


def test_a_semicolon_csv_reaches_neighbours(shop: Path, cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    data = ("--items", shop / "export.csv", "--images", shop / "pics")
    refused = cli("embed", tiny_bundle, *data, "-o", tmp_path / "v.parquet")
    assert refused.code == 2
    assert "no column id" in refused.err
    assert "Artikelnummer" in refused.err
    broken = cli("embed", tiny_bundle, *data, *MAP, "-o", tmp_path / "v.parquet")
    assert broken.code == 2
    assert "--on-bad-image skip|text-only" in broken.err
    done = cli("embed", tiny_bundle, *data, *MAP, "-o", tmp_path / "v.parquet", "--on-bad-image", "text-only")
    assert done.code == 0, done.err
    counted = "40 items · 40 with a picture, 40 with a title, 40 with topics"
    assert f"{counted} · photo read as image, Name read as title, Tags read as topics · not read: Preis" in done.err
    assert "4 items could not be used as they are (0 skipped, 4 read as text only)" in done.err
    listed = [line.split(",")[0] for line in (tmp_path / "v.parquet.skipped.csv").read_text().splitlines()]
    assert listed == ["id", "A-17", "A-23", "A-31", "A-5"]
    refused = cli("fit", tiny_bundle, *data, *MAP, "--pairs", shop / "bought.csv", "-o", tmp_path / "none")
    assert refused.code == 2
    assert "4 images cannot be read" in refused.err
    assert all(f"item 'A-{n}'" in refused.err for n in (5, 17, 23, 31))
    assert "fit: " not in refused.err  # before any work
    fitted = cli(
        "fit", tiny_bundle, *data, *MAP, "--pairs", shop / "bought.csv", "-o", tmp_path / "run", "--on-bad-image", "text-only", "--json"
    )  # fmt: skip
    assert fitted.code == 0, fitted.err
    facts = json.loads(fitted.out)
    assert facts["read"]["not_read"] == ["Preis"]
    assert facts["counts"] == {"skipped": 0, "text_only": 4}
    assert "Artikel, dazu: taken for a header" in fitted.err
    assert cli("index", tmp_path / "v.parquet", "-o", tmp_path / "i").code == 0
    found = cli("recommend", "--index", tmp_path / "i", "--id", "A-1", "-k", "3", "--json")
    assert len(json.loads(found.out)["neighbours"]) == 3


@pytest.mark.parametrize("policy", ["skip", "text-only"])
def test_the_list_of_an_earlier_run_is_no_longer_there(
    policy: str, cli: Any, tiny_bundle: Path, workspace: Path, tmp_path: Path
) -> None:
    out = tmp_path / "v.parquet"
    (tmp_path / "v.parquet.skipped.csv").write_text("id,reason\nold,gone\n")
    command = ("embed", tiny_bundle, "--items", workspace / "items.jsonl", "--images", workspace / "images", "-o", out)
    assert cli(*command, "--on-bad-image", policy).code == 0
    assert not (tmp_path / "v.parquet.skipped.csv").exists()
    (tmp_path / "v.parquet.skipped.csv").write_text("my own notes\n")
    assert cli(*command, "--on-bad-image", policy, "--force").code == 0
    assert (tmp_path / "v.parquet.skipped.csv").read_text() == "my own notes\n"


TEXTS = "id,title,bild,description\na,x,a.png,y\nb,z,b.png,\n"


@pytest.mark.parametrize("command", ["embed", "train", "fit", "neglect"])
def test_a_model_of_pictures_refuses_items_without_any(
    command: str, cli: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "i.csv").write_text(TEXTS)
    (tmp_path / "p.csv").write_text("a,b\n")
    pairs = () if command == "embed" else ("--pairs", tmp_path / "p.csv")
    out = tmp_path / ("out.parquet" if command == "embed" else "out")
    done = cli(command, tiny_bundle, "--items", tmp_path / "i.csv", *pairs, "-o", out)
    assert (done.code, done.out) == (2, "")
    said = "2 items · 0 with a picture, 2 with a title, 0 with topics, 1 with content · description read as content · not read: bild (--map image=bild)"
    assert said in done.err
    assert "no item has a picture" in done.err
    assert "--map image=bild (not read: bild)" in done.err
    assert "--allow-no-images" in done.err
    assert not out.exists()


def test_items_of_nothing_that_is_read_are_refused_whatever_is_allowed(
    cli: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "i.csv").write_text("id,titre,bild\na,x,a.png\n")
    done = cli(
        "embed",
        tiny_bundle,
        "--items",
        tmp_path / "i.csv",
        "-o",
        tmp_path / "v.parquet",
        "--allow-no-images",
        "--allow-no-texts",
    )
    assert done.code == 2
    assert "no item has a picture or a text" in done.err
    assert "not read: titre, bild" in done.err


def test_bench_refuses_them_too(cli: Any, workspace: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (workspace / "items.jsonl").read_text().splitlines()]
    (tmp_path / "i.jsonl").write_text(
        "".join(json.dumps({k: v for k, v in r.items() if k != "image"}) + "\n" for r in rows)
    )
    data = ("--items", tmp_path / "i.jsonl", "--pairs", workspace / "train.csv", "--test-pairs", workspace / "test.csv")
    matrix = ("bench", "--llm", "qwen:tiny", "--vision", "siglip:tiny", *data, "-o", tmp_path / "out", "--dry-run")
    done = cli(*matrix, "--variant", "basic,text_only")
    assert (done.code, done.out) == (2, "")
    assert "a variant of the matrix reads pictures" in done.err
    preview = cli(*matrix, "--variant", "text_only", "--json")
    assert json.loads(preview.out)["read"]["with"]["image"] == 0


def test_maps_of_items_and_of_pairs_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    from n2kit.errors import BadInput

    assert options.columns(["title=Name", "query=links"]) == ({"title": "Name"}, {"query": "links"})
    for wrong in ("titel=x", "title", "title="):
        with pytest.raises(BadInput):
            options.columns([wrong])


PAGE = (Path(__file__).parents[1] / "docs" / "data-format.md").read_text("utf8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_python_of_the_page_runs(
    block: str, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "import pandas" in block:
        pytest.importorskip("pandas")
    for name in ("images", "items.csv"):
        (tmp_path / name).symlink_to(workspace / name)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "data-format.md", "exec"), {})
    if "pairs.csv" in block:
        assert (tmp_path / "pairs.csv").read_text() == "query,target\na,b\nb,c\n"


def test_the_page_names_every_synonym_and_flag(cli: Any) -> None:
    for name, synonyms in columns.SYNONYMS.items():
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
        assert re.findall(r"`(\w+)`", line.rpartition("|")[0].rsplit("|", 1)[1]) == list(synonyms)
    flags = cli("embed", "--help").out
    assert all(flag in flags for flag in re.findall(r"`(--[a-z-]+)", PAGE))


def test_dropped_rows_stand_beside_every_output(shop: Path, cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    """Rows without an id, twice an id, and unknown ids of pairs: dropped leniently, and listed with their lines."""
    rows = (shop / "export.csv").read_text("utf-8-sig").splitlines()
    (tmp_path / "items.csv").write_text("\n".join([*rows, rows[1], ";no id;;;;"]) + "\n")
    pairs = (shop / "bought.csv").read_text()
    (tmp_path / "pairs.csv").write_text(pairs + "A-1;X-1\n")
    data = ("--items", tmp_path / "items.csv", "--images", shop / "pics", "--on-bad-image", "skip", "--lenient", *MAP)
    v, hard, told = tmp_path / "v.parquet", tmp_path / "hard.csv", tmp_path / "neglect"
    assert cli("embed", tiny_bundle, *data, "-o", v).code == 0
    listed = Path(f"{v}.skipped.csv").read_text().splitlines()
    assert len(listed) == 1 + 4 + 2
    assert f",{tmp_path}/items.csv:42: duplicate id 'A-0', first on line 2" in "\n".join(listed).replace('"', "")
    assert "items.csv:43: no id" in listed[-1]
    command = (
        "neglect",
        tiny_bundle,
        *data,
        "--pairs",
        tmp_path / "pairs.csv",
        "--saliency",
        "0",
        "-o",
        told,
        "--json",
    )
    seen = cli(*command)
    assert seen.code == 0, seen.err
    assert json.loads(seen.out)["counts"] == {"skipped": 4, "text_only": 0}
    listed = Path(f"{told}.skipped.csv").read_text().splitlines()
    assert len(listed) == 1 + 4 + 2 + 1
    assert "pairs.csv:22" in listed[-1]
    mined = (
        "mine-negatives",
        "--vectors",
        v,
        "--pairs",
        tmp_path / "pairs.csv",
        "-o",
        hard,
        "--lenient",
        "--ranks",
        "1:9",
    )
    assert cli(*mined).code == 0
    listed = Path(f"{hard}.skipped.csv").read_text().splitlines()
    assert len(listed) == 1 + 5  # four items that were skipped, and one that there never was
    benched = cli(
        "bench", "--baselines", "vision", "--vision", "siglip:tiny", *data, "--pairs", tmp_path / "pairs.csv",
        "--test-pairs", tmp_path / "pairs.csv", "-o", tmp_path / "bench", "--bootstrap", "0", "--protocol", "standard",
    )  # fmt: skip
    assert benched.code == 0, benched.err
    assert f"could not be used are in {tmp_path}/bench.skipped.csv" in benched.err
    listed = (tmp_path / "bench.skipped.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed[:5]] == ["id", "A-17", "A-23", "A-31", "A-5"]
    assert sum("pairs.csv:22" in line for line in listed) == 1
