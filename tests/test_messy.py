"""Files as people have them: twenty exports that look odd and are read, or that are refused by a line which says what to do."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from n2kit.data.given import as_items
from n2kit.data.image_source import locate
from n2kit.data.images import UnreadableImage, open_image
from n2kit.data.items import Item, Items, read_items
from n2kit.data.pairs import read_ids, read_pairs
from n2kit.errors import BadInput

KNOWN = {f"p{n}": n for n in range(1, 7)}
OAK, CUP = Item("p1", "a.jpg", "Stuhl, Eiche"), Item("p2", "", "Tasse 3 €")
SHOP = "SKU;Name;image_url;price\np1;Stuhl, Eiche;a.jpg;3\np2;Tasse 3 €;;4\n"
MESSY: dict[str, tuple[str, bytes]] = {
    "semicolons": ("shop.csv", SHOP.encode()),
    "semicolons, windows line ends, a byte-order mark": ("shop.csv", b"\xef\xbb\xbf" + SHOP.replace("\n", "\r\n").encode()),
    "tabs in a csv": ("shop.csv", SHOP.replace(";", "\t").encode()),
    "semicolons in a txt": ("shop.txt", SHOP.encode()),
    "an ending that nobody knows": ("shop.export", SHOP.encode()),
    "no ending": ("shop", SHOP.encode()),
    "bars": ("shop.csv", SHOP.replace(";", "|").encode()),
    "excel's first line": ("shop.csv", ("sep=;\r\n" + SHOP).encode()),
    "utf-16 of a spreadsheet": ("shop.csv", SHOP.replace(";", "\t").encode("utf-16")),
    "packed": ("shop.csv.gz", gzip.compress(SHOP.encode())),
    "packed, and not called so": ("shop.csv", gzip.compress(SHOP.encode())),
    "a header in capitals, with spaces": ("shop.csv", SHOP.replace("SKU;Name", "Product ID; TITLE ").encode()),
    "a header in camels": ("shop.csv", SHOP.replace("SKU;Name", "productId;productName").replace("image_url", "imageUrl").encode()),
    "separators at the end of each row": ("shop.csv", SHOP.replace("\n", ";;\n").encode()),
    "pandas' own index": ("shop.csv", ("".join(f"{n},{line}\n" for n, line in zip(("", 0, 1), (
        "ID,product_name,img", 'p1,"Stuhl, Eiche",a.jpg', "p2,Tasse 3 €,"), strict=True))).encode()),
    "a json array": ("shop.json", json.dumps([{"asin": "p1", "title": "Stuhl, Eiche", "photo": "a.jpg"}, {"asin": "p2", "title": "Tasse 3 €"}]).encode()),
    "json lines called json": ("shop.json", b'{"item_id": "p1", "title": "Stuhl, Eiche", "img": "a.jpg"}\n{"item_id": "p2", "title": "Tasse 3 \xe2\x82\xac"}\n'),
    "packed json lines, lists for texts": ("shop.jsonl.gz", gzip.compress('{"id": "p1", "title": ["Stuhl,", "Eiche"], "picture": "a.jpg"}\n{"id": "p2", "title": ["Tasse 3 €"]}\n'.encode())),
    "a name that comes late, and counts more": ("shop.jsonl", '{"id": "p2", "name": "x", "title": "Tasse 3 €"}\n{"id": "p1", "title": "Stuhl, Eiche", "img": "a.jpg"}\n'.encode()),
    "quotes around everything": ("shop.csv", "\n".join(";".join(f'"{c}"' for c in line.split(";")) for line in SHOP.splitlines()).encode()),
    "an array over several lines called json lines": ("shop.jsonl", json.dumps([{"id": "p1", "title": "Stuhl, Eiche", "img": "a.jpg"}, {"id": "p2", "title": "Tasse 3 €"}], indent=1).encode()),
    "a word for no picture": ("shop.csv", SHOP.replace("€;;", "€;NULL;").encode()),
    "and another": ("shop.csv", SHOP.replace("€;;", "€;nan;").encode()),
    "macintosh line ends": ("shop.csv", SHOP.replace("\n", "\r").encode()),
}  # fmt: skip


@pytest.mark.parametrize("what", MESSY)
def test_an_export_is_read_as_what_it_is(what: str, tmp_path: Path) -> None:
    name, content = MESSY[what]
    (tmp_path / name).write_bytes(content)
    read = read_items(tmp_path / name)
    assert sorted(read, key=lambda item: item.id) == [OAK, CUP]
    assert not read.dropped


def frame(tmp_path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "shop.parquet")
    return tmp_path / "shop.parquet"


def test_parquet_as_pandas_writes_it(tmp_path: Path) -> None:
    path = frame(
        tmp_path, product_id=[1.0, 2.0], name=["a", None], categories=[["x", "y"], []], __index_level_0__=[7, 8]
    )
    read = read_items(path)
    assert read.items == [Item("1", title="a", category="x, y"), Item("2")]
    assert (read.unread, read.columns) == ((), {"id": "product_id", "title": "name", "category": "categories"})
    pq.write_table(pa.table({"query": [1.0], "target": [2.0]}), tmp_path / "p.parquet")
    assert list(read_pairs(tmp_path / "p.parquet", read)) == [("1", "2")]
    (tmp_path / "p.csv").write_text("query,target\n1.0,2.0\n")
    assert list(read_pairs(tmp_path / "p.csv", read)) == [("1", "2")]


def test_images_in_the_cells_of_parquet(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (9, 8, 7)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    as_bytes = read_items(frame(tmp_path, id=["a", "b"], image=[content, None]))
    struct = read_items(
        frame(tmp_path, id=["a", "b"], image=[{"bytes": content, "path": None}, {"bytes": None, "path": "a.png"}])
    )
    assert as_bytes.items[0] == struct.items[0]
    for item, folder in ((as_bytes.items[0], None), (struct.items[0], None), (struct.items[1], tmp_path)):
        assert open_image(item, folder).getpixel((0, 0)) == (9, 8, 7)
    assert as_bytes.items[1].image == ""


def test_a_cell_may_hold_a_whole_page(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text(f'id,title,content\na,x,"{"word " * 50_000}"\n')
    assert len(read_items(tmp_path / "i.csv").items[0].content) == 249_999


@pytest.mark.parametrize(
    ("encoding", "title"),
    [("cp1252", "Café crème à emporter, très léger"), ("gb18030", "红色的杯子,品质很好的一个"), ("shift_jis", "赤いコップです。きれい"), ("cp1251", "красная чашка для чая")],
)  # fmt: skip
def test_another_encoding_is_guessed_in_the_hint_and_read_when_named(encoding: str, title: str, tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    path.write_bytes(f"id,title\na,plain\nb,{title.replace(',', ';')}\n".encode(encoding))
    with pytest.raises(BadInput, match="i.csv:3: not UTF-8") as caught:
        read_items(path)
    assert f"--encoding {encoding} (a guess)" in (caught.value.hint or "")
    assert read_items(path, encoding=encoding)["b"].title == title.replace(",", ";")
    with pytest.raises(BadInput, match="no such encoding"):
        read_items(path, encoding="latin-77")
    path.write_bytes(b"\xef\xbb\xbfid,title\na,\xe7\xba\xa2\n")  # a byte-order mark counts over the flag
    assert read_items(path, encoding=encoding)["a"].title == "红"


def test_a_wrong_quote_costs_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    path.write_text('id,title,content\na,"a 24" screen",x\nb,plain,x\nc,"never closed,x\nd,"two\nlines",x\ne,last,x\n')
    with pytest.raises(BadInput) as caught:
        read_items(path)
    assert f"{path}:2: not readable as CSV" in caught.value.message
    assert f"{path}:4: not readable as CSV" in caught.value.message
    read = read_items(path, lenient=True)
    assert [(item.id, item.title) for item in read] == [("b", "plain"), ("d", "two\nlines"), ("e", "last")]
    assert len(read.dropped) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("i.csv", b"id,name,product_name\na,x,y\n", "title may be name or product_name: which"),
        ("i.csv", b"sku,asin,title\na,b,y\n", "id may be sku or asin"),
        ("i.csv", b"PK\x03\x04 and so on", "a zip file or an Excel workbook"),
        ("i.json", b'{"id": {"0": "a"}}', "a JSON object, and no array"),
        ("i.csv.gz", gzip.compress(b"id,title\na,b\n" * 999, mtime=0)[:40], "damaged gzip"),
        ("i.csv", b"nummer;titel\n1;x\n", "no column id"),
        ("i.csv", b"<!doctype html>\n<title>Log in, then go on</title>\n", "a page of HTML or XML"),
        ("i.jsonl", b'{\n "id": "a",\n "title": "b"\n}\n', "an object over several lines"),
        ("i.csv", "id,title\na,x\n".encode("utf-16-le"), "UTF-16 without a byte-order mark"),
    ],
)
def test_what_cannot_be_decided_is_asked(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=said) as caught:
        read_items(tmp_path / name)
    assert name in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("above", ["Products of the shop,,\n,,\n", "# exported today\n", "\n\n"])
def test_a_header_under_remarks_is_pointed_at(above: str, tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text(f"{above}id,title,image\np1,Oak chair,a.jpg\n")
    line = above.count("\n") + 1
    with pytest.raises(BadInput, match="i.csv:1: no column id") as caught:
        read_items(tmp_path / "i.csv")
    assert caught.value.hint == f"line {line} looks like the header: remove what is above it"


def test_what_was_read_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    path.write_text("id,title,main_image,price\na,x,a.jpg,3\nb,,b.jpg,4\n")
    read = read_items(path)
    assert read.summary() == (
        "2 items · 0 with a picture, 1 with a title, 0 with topics · not read: main_image, price (--map image=main_image)"
    )
    assert repr(read) == f"<{read.summary()}>"
    assert read.facts()["with"] == {"image": 0, "title": 1, "topics": 0, "content": 0, "category": 0}
    assert read.facts()["not_read"] == ["main_image", "price"]
    named = read_items(path, columns={"image": "main_image"})
    assert named.summary() == "2 items · 2 with a picture, 1 with a title, 0 with topics · not read: price"


def test_a_row_without_an_id_is_not_called_blank(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("id,title,price\na,x,3\n,,3\n,,\n")
    with pytest.raises(BadInput, match=r":3: no id\n.*:4: blank row"):
        read_items(tmp_path / "i.csv")


# ---- pairs

ROWS = "p1,p2\np2,p3\np3,p1\n"
GOOD = [("p1", "p2"), ("p2", "p3"), ("p3", "p1")]


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("p.csv", "bought;also_bought\n" + ROWS.replace(",", ";"), {}),
        ("p.csv", "date,article,goes_with\n" + "".join(f"2024-01-0{n},{row}\n" for n, row in enumerate(ROWS.split(), 1)), {}),
        ("p.csv", "item_b,item_a\n" + "".join(",".join(reversed(row.split(","))) + "\n" for row in ROWS.split()), {"query": "item_a", "target": "item_b"}),
        ("p.txt", ROWS.replace(",", "\t"), {}),
        ("p.csv", "session_id,product_id_1,product_id_2\n" + "".join(f"s,{row}\n" for row in ROWS.split()), {}),
        ("p.json", json.dumps([{"query": a, "target": b} for a, b in GOOD]), {}),
        ("p.jsonl", "".join(json.dumps({"seed": a, "rec": b, "n": 1}) + "\n" for a, b in GOOD), {"query": "seed", "target": "rec"}),
    ],
)  # fmt: skip
def test_pairs_under_any_header(name: str, content: str, columns: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    read = read_pairs(tmp_path / name, KNOWN, columns=columns)
    assert list(read) == GOOD
    lenient = read_pairs(tmp_path / name, KNOWN, columns=columns, lenient=True)
    assert (list(lenient), lenient.dropped) == (GOOD, [])


def test_a_header_of_unknown_words_is_said(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("article,goes_with\n" + ROWS)
    for lenient in (False, True):
        assert read_pairs(tmp_path / "p.csv", KNOWN, lenient=lenient).notes == [
            f"{tmp_path / 'p.csv'}:1: article, goes_with: taken for a header, and not for a pair"
        ]
    (tmp_path / "pool.csv").write_text("in stock\np1\np2\n")
    assert read_ids(tmp_path / "pool.csv", KNOWN) == ["p1", "p2"]
    (tmp_path / "pool.csv").write_text("name;sku\nx;p1\ny;p2\n")
    assert read_ids(tmp_path / "pool.csv", KNOWN) == ["p1", "p2"]
    (tmp_path / "pool.jsonl").write_text('{"name": "x", "sku": "p1"}\n')
    assert read_ids(tmp_path / "pool.jsonl", KNOWN) == ["p1"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", "user_id,item_id,rating\nu1,p1,5\nu1,p2,4\n"),
        ("log.csv", "customer,product_id\n1,p1\n2,p2\n"),
        ("log.csv", "userId;movieId;rating;timestamp\np1;p2;5;1\np2;p3;4;2\n"),  # users are numbered like items
        ("log.csv", "u1,p1,5\nu1,p2,4\nu2,p2,1\n"),
        ("log.csv", "order_id,product_id\n9,p1\n9,p2\n"),
        ("log.jsonl", '{"reviewer_id": "u1", "asin": "p1"}\n'),
        ("log.csv", "kunde;artikel;zeit\n" + "u1;p1;3\n" * 20 + "u1;gone;3\n"),
        ("log.csv", "artikel,kunde\n" + "p1,u1\np2,u1\n" * 9),
    ],
)
def test_a_log_of_users_is_refused_and_said_how_pairs_are_made(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    for lenient in (False, True):
        said = r"log.*: (a log of users and items \(|looks like a log of users .* is an id of none \('u1')"
        with pytest.raises(BadInput, match=said) as caught:
            read_pairs(tmp_path / name, KNOWN, lenient=lenient)
        assert f"make a pair: n2kit data mine --events {tmp_path / name}" in (caught.value.hint or "")


def test_ids_that_lost_their_zeros_are_said(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("query,target\n1,2\n0007,x\n")
    for read in (read_pairs, read_ids):
        with pytest.raises(BadInput, match="unknown id '1'") as caught:
            read(tmp_path / "p.csv", {"0001", "0007"})
        assert caught.value.hint == "'1' may be '0001'; correct them, or --lenient drops them"


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("query,target\np1,1\np1,7\np2,9\n", "'1' may be '0001'; correct them"),
        ("x,y\np1,1\np1,7\np2,9\n", "'1' may be '0001'; correct them"),
        ("query,target\np1,gone1\np2,gone2\n", "correct them"),
        ("item_a,item_b\np1,gone1\np2,gone2\n", "correct them"),
    ],
)
def test_pairs_with_items_that_are_gone_are_no_log(content: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(BadInput, match="(?s)unusable rows\n.*p.csv:2: unknown id") as caught:
        read_pairs(tmp_path / "p.csv", {"p1", "p2", "0001", "0007", "0009"})
    assert (caught.value.hint or "").startswith(hint)
    with pytest.raises(BadInput, match="no pairs"):
        read_pairs(tmp_path / "p.csv", {"p1", "p2", "0001", "0007", "0009"}, lenient=True)


def test_pairs_of_unknown_names_ask_for_a_map(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"seed": "p1", "rec": "p2"}\n')
    with pytest.raises(BadInput, match="no two columns of ids") as caught:
        read_pairs(tmp_path / "p.jsonl", KNOWN)
    assert "--map query=COLUMN" in (caught.value.hint or "")
    with pytest.raises(BadInput, match="no column sed") as caught:
        read_pairs(tmp_path / "p.jsonl", KNOWN, columns={"query": "sed", "target": "rec"})
    assert "did you mean seed" in (caught.value.hint or "")


# ---- images


def test_paths_of_other_machines_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "pics"
    (folder / "2024").mkdir(parents=True)
    file = folder / "2024" / "a b.png"
    Image.new("RGB", (2, 2)).save(file)
    for name in (
        "2024/a b.png", r"2024\a b.png", "pics/2024/a b.png", r".\pics\2024\a b.png", "/2024/a b.png", "2024/a%20b.png", str(file),
        file.as_uri(), r"C:\Users\me\shop\pics\2024\a b.png", "./2024/a b.png",
    ):  # fmt: skip
        assert locate(name, folder) == file, name
        open_image(Item("x", name), folder)
    for outside in ("../pics2/a.png", "/etc/hostname", "file:///etc/hostname"):
        with pytest.raises(UnreadableImage, match="outside the images folder"):
            open_image(Item("x", outside), folder)
    with pytest.raises(UnreadableImage, match="no such file"):
        open_image(Item("x", "2024/b.png"), folder)
    other = folder / "Stühle" / "a.png"
    other.parent.mkdir()
    Image.new("RGB", (2, 2)).save(other)
    for found, name in ((file, "2024/A B.png"), (other, "stühle/a.png"), (other, r"PICS\STÜHLE\A.PNG")):
        own = found.relative_to(folder).as_posix()
        with pytest.raises(UnreadableImage, match=f"is not there, and '{own}' is: capitals count"):
            open_image(Item("x", name), folder)
    assert locate(f"{file.relative_to(folder)}?v=3", folder) == file
    Image.new("RGB", (4, 4)).save(folder / "stu\u0308hle.png")  # as a Macintosh writes it
    assert locate("st\u00fchle.png", folder) == folder / "stu\u0308hle.png"
    with pytest.raises(UnreadableImage, match="no images folder is given") as caught:
        open_image(Item("x", str(file)), None)
    assert caught.value.hint == f"--images {file.parent}"
    with pytest.raises(UnreadableImage, match="'x': image 'https://shop/a.png' is a URL") as caught:
        open_image(Item("x", "https://shop/a.png"), folder)
    assert "--fetch-images DIR" in (caught.value.hint or "")


def exif(orientation: bytes, *more: bytes) -> bytes:
    """Write EXIF by hand: orientation's own entry, and others that a camera or a vandal wrote."""
    entries = (b"\x12\x01\x03\x00\x01\x00\x00\x00" + orientation, *more)
    return b"Exif\0\0II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little") + b"".join(entries) + b"\0\0\0\0"


VANDAL = (
    b"\x00\x01\x05\x00\xff\xff\xff\x7f\xff\xff\xff\x7f",  # a rational behind the end
    b"\x00\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00",  # a text of no length
    b"\x69\x87\x04\x00\x01\x00\x00\x00\xff\xff\x00\x00",  # an EXIF folder that is not there
    b"\x25\x88\x04\x00\x01\x00\x00\x00\x08\x00\x00\x00",  # a GPS folder that is this one
    b"\x00\x01\x07\x00\x04\x00\x00\x00\x00\x00\x00\x00",
)


@pytest.mark.parametrize("kind", ["jpeg", "avif", "png", "webp"])
def test_orientation_is_the_one_tag_of_exif_that_counts(kind: str, tmp_path: Path) -> None:
    """Whatever else EXIF holds: nothing of it is written again, and no exception of it leaves as another than UnreadableImage."""
    upright = Image.new("RGB", (40, 20), (0, 0, 0))
    upright.paste((255, 255, 255), (0, 0, 20, 20))
    path = tmp_path / f"a.{kind}"
    for n, more in enumerate(((), *((entry,) for entry in VANDAL), VANDAL)):
        try:
            upright.save(path, kind, quality=90, exif=exif(b"\x06\x00\x00\x00", *more))
        except struct.error:  # Pillow's own writer of AVIF, which reads EXIF, too
            continue
        try:
            turned = open_image(Item("x", path.name), tmp_path)
        except UnreadableImage:
            assert n
            continue
        assert turned.size in ((20, 40), (40, 20))
        if not n:
            assert turned.size == (20, 40)
            assert turned.getpixel((10, 5))[0] > 200  # type: ignore[index]
    for odd in (b"\x09\x00\x00\x00", b"\x00\x00\x00\x00", b"\xff\xff\x00\x00"):
        upright.save(path, kind, exif=exif(odd))
        assert open_image(Item("x", path.name), tmp_path).size == (40, 20)


# ---- Python's own objects


def test_items_of_any_kind_are_encoded(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import base64

    import n2kit

    model = n2kit.load(tiny_bundle)
    image = Image.effect_noise((40, 30), 60).convert("RGB")
    path = tmp_path / "x.png"
    image.save(path)
    content = path.read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    given = (
        path,
        content,
        bytearray(content),
        image,
        Image.open(path),
        np.array(image),
        uri,
        {"bytes": content, "path": None},
    )
    vectors = model.encode([*({"image": one} for one in given), {"img": "x.png"}, Item("x", "x.png")], images=tmp_path)
    assert vectors.shape == (10, 16)
    assert np.ptp(vectors, axis=0).max() < 1e-6
    assert model.encode([]).shape == (0, 16)
    for one in (
        "oak chair",
        {"name": "oak chair"},
        Item("a", title="oak chair"),
        image,
        np.array(image),
        path,
        content,
    ):
        assert model.encode(one).shape == (1, 16)
    assert np.allclose(model.encode("oak chair")[0], model.encode([{"title": "oak chair"}, "oak chair"])[1], atol=1e-6)
    assert model.encode(Items([Item("a", title="x"), Item("b", title="y")])).shape == (2, 16)
    assert model.encode(
        {"title": "x", "topics": np.array(["a", "b"]), "category": float("nan"), "image": None}
    ).shape == (1, 16)


@pytest.mark.parametrize(
    ("given", "said", "hint"),
    [
        ([{"title": "x"}, {"title": "x", "imgg": "a.png"}], "item 1: unknown key 'imgg'", "did you mean image"),
        ({"titel": "x"}, "item 0: unknown key 'titel'", "did you mean title"),
        ({"title": "x", "name": "y"}, "'title' and 'name' are both its title", "leave one"),
        ({"title": {"en": "x"}}, "title is a dict", None),
        ({"image": np.zeros((4, 4, 3))}, r"an array \[4, 4, 3\] of float64", "uint8"),
        ({"image": "data:text/plain,x"}, "no data URI of an image", "base64"),
        ([3], "item 0 is a int", "a text"),
        (3, "items are a int", "a list"),
        (
            {"image": b"junk"},
            "item '0': the image that was given: not an image",
            'on_bad_image="skip" or "text-only" goes on',
        ),
    ],
)
def test_what_a_program_gives_is_taken_whole_or_refused(
    given: Any, said: str, hint: str | None, tiny_bundle: Path
) -> None:
    import n2kit

    with pytest.raises(BadInput, match=said) as caught:
        n2kit.load(tiny_bundle).encode(given)
    assert hint is None or hint in (caught.value.hint or "")


SEVERAL = [
    ('["a.png", "b.png"]', "a.png", True),
    ("['', 'b.png', 'c.png']", "b.png", True),  # a list of Python, as pandas writes it
    ("a.png|b.png", "a.png", True),
    ("https://x.example/a.png, https://x.example/b", "https://x.example/a.png", True),
    ('[{"thumb": "t.png", "large": "l.png"}, {"large": "m.png"}]', "l.png", True),
    ('{"src": "a.png"}', "a.png", False),
    ("[]", "", False),
    ("Sofa, red.png", "Sofa, red.png", False),
    ("[1] chair.png", "[1] chair.png", False),
    ("https://x.example/a.png?size=1,2", "https://x.example/a.png?size=1,2", False),
    (["a.png", "b.png"], "a.png", True),
    ([None, {"url": "u.png"}], "u.png", False),
    ([], "", False),
    (None, "", False),
]


def test_of_several_images_the_first_is_read_and_it_is_said(tmp_path: Path) -> None:
    rows = [{"id": str(n), "title": "x", "images": value} for n, (value, _, _) in enumerate(SEVERAL)]
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_items(file)
    assert [item.image for item in read] == [image for _, image, _ in SEVERAL]
    count = sum(several for _, _, several in SEVERAL)
    assert read.facts()["several_images"] == count
    assert f"the first picture of {count} items with several" in read.summary()


def test_of_several_images_of_a_program_the_first_is_read_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    given: list[Any] = [{"id": "a", "image": np.array(["a.png", "b.png"], object)}, {"id": "b", "image": "b.png"}]
    assert [item.image for item in as_items(given)] == ["a.png", "b.png"]
    assert [record.message for record in caplog.records] == ["1 item with several images: the first of each is read"]
    assert Item.of(given[0]).image == "a.png"
