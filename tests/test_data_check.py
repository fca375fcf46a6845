"""A data folder looked through: sound ones are sound, and what would break a training ends with exit code 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import n2kit


@pytest.fixture
def folder(workspace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workspace, tmp_path / "data"))


def test_a_sound_folder_and_its_page(cli: Any, folder: Path, tmp_path: Path) -> None:
    done = cli("data", "check", folder, "--html", tmp_path / "page.html", "--json")
    found = json.loads(done.out)
    assert (done.code, found["broken"]) == (0, [])
    assert (found["tables"]["items"]["items"], found["tables"]["items"]["picture and text"]) == (24, 24)
    assert found["tables"]["pictures"] == {"looked at": 24, "cannot be read": 0, "under 32 pixels": 24}
    assert found["tables"]["train"]["components"] == found["tables"]["train"]["pairs"] == 8
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/webp") == 16
    assert "| items | items | 24 |" in cli("data", "check", folder).out


def test_what_would_break_a_training_is_named(cli: Any, folder: Path) -> None:
    (folder / "images" / "noto_3.png").write_bytes(b"no picture")
    (folder / "test.csv").write_text((folder / "train.csv").read_text() + "noto:1,none\n")
    with (folder / "items.jsonl").open("a") as file:
        file.write('{"id": "noto:1"}\n{"id": "empty"}\n')
    done = cli("data", "check", folder, "--json")
    found = json.loads(done.out)
    assert done.code == 1
    said = "\n".join(found["broken"])
    for what in ("duplicate id 'noto:1'", "noto_3.png", "unknown id 'none'", "8 pairs of the test are in train, too"):
        assert what in said
    assert found["tables"]["on two sides of the split"]["same id"] == 16
    assert any("neither" in remark for remark in found["odd"])
    assert cli("data", "check", folder / "none").code == 2


@pytest.fixture
def foreign(folder: Path) -> Path:
    """A data folder whose columns have names that nobody knows."""
    (folder / "items.jsonl").unlink()
    named = {"title": "bezeichnung", "image": "foto"}
    head, *rows = (folder / "items.csv").read_text().splitlines()
    head = ",".join(named.get(name, name) for name in head.split(","))
    (folder / "items.csv").write_text("\n".join([head, *rows]) + "\n")
    for name in ("train", "val", "test"):
        rows = (folder / f"{name}.csv").read_text().splitlines()[1:]
        (folder / f"{name}.csv").write_text("\n".join(["rang,links,rechts", *(f"7,{row}" for row in rows)]) + "\n")
    return folder


MAP = ["--map", "title=bezeichnung", "--map", "image=foto", "--map", "query=links", "--map", "target=rechts"]


def test_a_map_is_written_once_and_read_by_every_command(cli: Any, foreign: Path, tmp_path: Path) -> None:
    assert cli("data", "check", foreign, "--write-map").code == 2
    done = cli("data", "check", foreign, *MAP, "--write-map")
    assert (done.code, f"wrote {foreign / 'columns.yaml'}" in done.err) == (0, True), done.err
    assert "bezeichnung as title, foto as image" in done.out
    assert cli("data", "check", foreign).code == 0
    built = cli("build", "--llm", "qwen:tiny", "--vision", "siglip:tiny", "-o", tmp_path / "tiny")
    assert built.code == 0
    done = cli("embed", tmp_path / "tiny", "--data", foreign, "-o", tmp_path / "v.parquet")
    assert "24 with a picture, 24 with a title" in done.err
    assert "foto read as image (columns.yaml)" in done.err
    done = cli("index", tmp_path / "v.parquet", "-o", tmp_path / "i", "--data", foreign)
    assert "bezeichnung read as title (columns.yaml)" in done.err
    done = cli("eval", "--vectors", tmp_path / "v.parquet", "--data", foreign, "--k", "1")
    assert (done.code, "test.csv: links read as query, rechts read as target (columns.yaml)" in done.err) == (
        0,
        True,
    ), done.err


def test_an_encoding_is_written_with_the_map(cli: Any, foreign: Path) -> None:
    import n2kit

    text = (foreign / "items.csv").read_text().replace("thing 0", "Stühle")
    (foreign / "items.csv").write_text(text, encoding="cp1252")
    assert cli("data", "check", foreign, *MAP).code == 2
    assert cli("data", "check", foreign, *MAP, "--encoding", "cp1252", "--write-map").code == 0
    assert n2kit.read_items(foreign / "items.csv").items[0].title == "Stühle"
    done = cli("data", "check", foreign, "--json")
    notes = [note for note in json.loads(done.out)["odd"] if "read as cp1252" in note]
    assert notes == [f"{name}.csv: read as cp1252 (columns.yaml)" for name in ("items", "train", "val", "test")]
    assert cli("data", "check", foreign, "--encoding", "utf-8").code == 2  # the flag counts over it
    for wrong, says in (("nonsense", "items.csv: encoding nonsense: no such encoding"), ("ascii", "correct it in")):
        (foreign / "columns.yaml").write_text(f"items.csv: {{encoding: {wrong}}}\n")
        done = cli("data", "check", foreign)
        assert (done.code, f"{foreign / 'columns.yaml'}" in done.err, says in done.err) == (2, True, True), done.err


def test_no_map_is_written_where_there_is_nothing_to_write(cli: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "title": ["A"]}), tmp_path / "items.parquet")
    done = cli("data", "check", tmp_path, "--encoding", "cp1252", "--write-map")
    assert (done.code, "has no file that --map or --encoding is of" in done.err) == (2, True), done.err
    assert not (tmp_path / "columns.yaml").exists()


def test_a_folder_without_items_names_the_table_that_it_has(cli: Any, tmp_path: Path) -> None:
    for name, hint in (
        ("a.jpg", "n2kit data import images makes"),
        ("products.2024.csv.gz", "it has products.2024.csv.gz: call the catalogue items.csv.gz\n"),
        ("M.CSV", "it has M.CSV; products.2024.csv.gz: call the catalogue items.csv\n"),
    ):
        (tmp_path / name).touch()
        assert hint in cli("data", "check", tmp_path).err


def test_a_flag_counts_over_the_file_and_what_is_written_before_stays(cli: Any, foreign: Path) -> None:
    import n2kit

    (foreign / "columns.yaml").write_text("items.csv: {title: category, image: foto}\nother.csv: {title: x}\n")
    assert n2kit.read_items(foreign / "items.csv").items[0].title == "x"
    mapped = n2kit.read_items(foreign / "items.csv", columns={"title": "bezeichnung"})
    assert (mapped.items[0].title, mapped.mapped) == ("thing 0", ("image",))
    cli("data", "check", foreign, *MAP, "--write-map")
    written = (foreign / "columns.yaml").read_text()
    assert written.startswith("items.csv:\n  title: bezeichnung\n  image: foto\nother.csv:\n  title: x\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("items.csv: {titel: foto}", "no such field 'titel'"),
        ("items.csv: [title]", "items.csv is no mapping of fields to columns"),
        ("items.csv: {title: 3}", "items.csv is no mapping"),
        ("- title", "it is no mapping"),
        ("items.csv: {title: none}", "items.csv:1, by columns.yaml: no column none"),
        ("items.csv: {title: [", "columns.yaml:"),
        ("item.csv: {title: foto}", "columns.yaml speaks of item.csv, which is not there (did you mean items.csv?)"),
        ("photos.csv: {title: foto}", "columns.yaml speaks of photos.csv, which is not there\n"),
        ("", "24 items"),
    ],
)
def test_a_map_that_is_none_is_named(cli: Any, folder: Path, text: str, says: str) -> None:
    (folder / "items.jsonl").unlink()
    (folder / "columns.yaml").write_text(text)
    done = cli("data", "check", folder, "--json")
    assert says in done.err if says != "24 items" else json.loads(done.out)["broken"] == [], done.err


def test_lengths_of_texts_and_the_items_that_a_model_cuts(cli: Any, folder: Path, tiny_bundle: Path) -> None:
    with (folder / "items.jsonl").open("a") as file:
        file.write(
            json.dumps(
                {"id": "long", "title": "t" * 100, "content": "word " * 200 + "#tag#", "topics": list("abcdefghijkl")}
            )
            + "\n"
        )
    found = json.loads(cli("data", "check", folder, "--json").out)
    texts = found["tables"]["texts"]
    assert texts["characters"].endswith("most 1,130")  # with the topics and spaces between
    assert texts["characters by the rules of template en"].endswith(f"most {80 + 1 + 28 + 1 + 320}")
    assert texts["titles cut to 80 characters"] == texts["contents cut to 320 characters"] == 1
    assert texts["items with more than 10 topics"] == 1
    assert "prompts" not in found["tables"]
    done = cli("data", "check", folder, "--bundle", tiny_bundle, "--json")
    prompts = json.loads(done.out)["tables"]["prompts"]
    model = n2kit.load(tiny_bundle)
    builder = model.prompt_builder
    items = n2kit.read_items(folder / "items.jsonl")
    lengths = [builder.body_length(item, image=bool(item.image)) for item in items]
    assert prompts["items that are cut"] == sum(n > builder.body_tokens for n in lengths) == 1
    assert f"most {max(lengths):,}" in prompts["tokens of a prompt's body"]
    assert "longer than the model's prompt" in done.err
    refused = cli("data", "check", folder, "--template", "nothing")
    assert (refused.code, "no prompt template" in refused.err) == (2, True)


def test_data_commands_read_items_of_any_format(cli: Any, folder: Path, tmp_path: Path) -> None:
    """The paper's CSV has no header, so that only `--format` says what it is; a header in another alphabet wants `--encoding`."""
    data = tmp_path / "own"
    (data / "images").mkdir(parents=True)
    for file in (folder / "images").glob("*"):
        (data / "images" / file.name).write_bytes(file.read_bytes())
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    lines = [f"{row['id']},thing {row['id']},words,{row['image']},x" for row in rows]
    (data / "items.csv").write_text("\n".join(lines) + "\n")
    (data / "pairs.csv").write_text("\n".join(f"{a['id']},{b['id']}" for a in rows for b in rows if a != b) + "\n")
    how = ("--format", "notellm")
    assert cli("data", "check", data).code == 2
    done = cli("data", "check", data, *how, "--json")
    assert json.loads(done.out)["tables"]["items"]["with title"] == 24, done.err
    done = cli("data", "split", data, *how, "--val", "0.3", "--test", "0.3", "--allow")
    assert done.code == 0, done.err
    done = cli("data", "pack", data, *how, "-o", tmp_path / "packed")
    assert (done.code, "24 pictures" in done.err) == (0, True), done.err
    text = "id,größe,image\n" + "".join(f"{row['id']},{row['id']}é,{row['image']}\n" for row in rows)
    (data / "items.csv").write_bytes(text.encode("cp1252"))
    how = ("--encoding", "cp1252", "--map", "title=größe")
    assert json.loads(cli("data", "check", data, *how, "--json").out)["tables"]["items"]["with title"] == 24
    done = cli("data", "pack", data, *how, "-o", tmp_path / "other", "--json")
    assert json.loads(done.out)["items"] == 24, done.err
    assert cli("data", "split", data, *how, "--val", "0.3", "--test", "0.3", "--allow", "--force").code == 0
    refused = cli("data", "check", data, "--encoding", "cp1252", "--map", "title=grösse")
    assert "no column grösse" in refused.err
    assert "hint: it has id, größe, image (did you mean größe?)" in refused.err


def test_every_picture_that_cannot_be_read_is_listed(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,image\n" + "".join(f"i{n},gone{n}.png\n" for n in range(5)))
    (tmp_path / "images").mkdir()
    done = cli("data", "check", tmp_path, "--json")
    assert (done.code, len(json.loads(done.out)["unreadable"])) == (1, 5)
    assert "5 pictures cannot be read: " in done.err
    assert done.err.rstrip().endswith("… (--json lists all)")


CODES = "id,title,image\n00012,a,x.png\n00013,b,http://a.b/y.png\n"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"items": CODES, "train": "query,target\n12,13\n13,12\n", "pool": "id\n12\n", "val": "00012,00013\n"},
            (
                "train.csv: no pairs that can be used: 2 rows dropped, the first: ",
                "train.csv:2: unknown id '12' ('12' may be '00012'; correct them",
                "pool.csv: no ids that can be used: 1 row dropped",
                "2 pictures cannot be read",
                "images, which is not there; pics/ has pictures: rename it, or ln -s pics ",
                "images of n2kit fit and embed downloads those that are URLs",
            ),
        ),
        ({"items": CODES, "train": "00012,00013\n13,00012\n"}, ("1 row cannot be used: '13' may be '00013'; ",)),
        ({"items": CODES, "train": "query,target,grade\n00012,00013,\n"}, ("train.csv:2: grade '' is no number",)),
        ({"items": CODES, "train": "wer,was\n" + "u,00012\n" * 9}, ("train.csv: looks like a log of users and items",)),
        (
            {"items": "id,titel\na,x\nb,y\n", "train": "a,b\n"},
            (
                "2 items · 0 with a picture, 0 with a title, 0 with topics · not read: titel (--map title=titel)\n",
                "items.csv: no item has a picture or a text (--map title=titel names it",
            ),
        ),
    ],
)  # fmt: skip
def test_what_nothing_can_be_made_of_is_said_with_its_reason(
    files: dict[str, str], says: tuple[str, ...], cli: Any, tmp_path: Path
) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "x.png").touch()
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    done = cli("data", "check", tmp_path, "--map", "query=query", "--write-map") if "pool" in files else None
    assert done is None or ("columns.yaml is not written: nothing of train and val and pool" in done.err)
    done = cli("data", "check", tmp_path)
    assert done.code == 1
    for what in says:
        assert what in done.err, done.err


def test_a_folder_of_which_nothing_can_be_read_is_refused_with_the_reason(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title\n,a\n,b\n")
    done = cli("data", "check", tmp_path)
    assert (done.code, "items.csv:2: no id" in done.err) == (2, True), done.err
    done = cli("data", "check", tmp_path / "items.csv")
    assert (done.code, f"give the folder that holds it: {tmp_path}\n" in done.err) == (2, True), done.err
