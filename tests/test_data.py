"""Reading items, pairs and images: every format, and what bad input gets."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from n2kit.contract.image_transform import ImageTransform
from n2kit.data.images import UnreadableImage, open_image, to_rgb
from n2kit.data.items import Item, Items, read_items
from n2kit.data.pairs import Pairs, read_ids, read_pairs
from n2kit.embed import read_vectors
from n2kit.errors import BadInput, suggest

ROWS = [
    {"id": "a", "image": "a.png", "title": "红色", "topics": ["x", "y"], "content": "c, d", "category": "k"},
    {"id": "b", "image": None, "title": None, "topics": None, "content": "only text", "category": None},
]
EXPECTED = [Item("a", "a.png", "红色", ("x", "y"), "c, d", "k"), Item("b", content="only text")]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf8"))
    return path


def test_every_format_gives_the_same_items(tmp_path: Path) -> None:
    jsonl = write(tmp_path, "i.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ROWS))
    comma = write(
        tmp_path,
        "i.csv",
        '\ufeffid,image,title,topics,content,category\r\na,a.png,红色,"x,y","c, d",k\r\nb,,,,only text,\r\n',
    )
    tab = write(
        tmp_path,
        "i.tsv",
        "id\timage\ttitle\ttopics\tcontent\tcategory\na\ta.png\t红色\tx|y\tc, d\tk\nb\t\t\t\tonly text\t\n",
    )
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "i.parquet")
    for path in (jsonl, comma, tab, tmp_path / "i.parquet"):
        assert read_items(path).items == EXPECTED, path


def test_columns_can_be_renamed(tmp_path: Path) -> None:
    path = write(tmp_path, "i.csv", "sku,name\n1,cup\n")
    assert read_items(path, columns={"id": "sku", "title": "name"}).items == [Item("1", title="cup")]
    with pytest.raises(BadInput, match="no column nam") as caught:
        read_items(path, columns={"id": "sku", "title": "nam"})
    assert "sku, name" in (caught.value.hint or "")
    with pytest.raises(BadInput, match="no such field"):
        read_items(path, columns={"price": "name"})


def test_the_papers_csv(tmp_path: Path) -> None:
    """Headerless; a blank row, an emoji in a title, an unquoted comma in a content."""
    text = "n1,标题🍲,好吃#火锅[话题]#,n1.jpg,美食\n\n,,,,\nn2,b,one, two,n2.jpg,x\nn3,c\n"
    path = write(tmp_path, "notes.csv", text)
    with pytest.raises(BadInput) as caught:
        read_items(path, format="notellm")
    assert f"{path}:3: blank row" in caught.value.message
    assert f"{path}:5: 2 fields" in caught.value.message
    read = read_items(path, format="notellm", lenient=True)
    assert [i.id for i in read] == ["n1", "n2"]
    assert read["n1"].title == "标题🍲"
    assert read["n2"].content == "one, two"
    assert (read["n2"].image, read["n2"].category) == ("n2.jpg", "x")
    assert len(read.dropped) == 3
    assert [n.split(": ")[0] for n in read.notes] == [f"{path}:4"]


def test_unusable_rows_are_all_named_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "i.csv", "id,title\na,1\n,2\na,3\nb,4\n")
    with pytest.raises(BadInput) as caught:
        read_items(path)
    assert f"{path}:3: no id" in caught.value.message
    assert f"{path}:4: duplicate id 'a', first on line 2" in caught.value.message
    read = read_items(path, lenient=True)
    assert [i.id for i in read] == ["a", "b"]
    assert read["a"].title == "1"
    assert len(read.dropped) == 2


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("i.jsonl", '{"id": "a", "topics": 5}\n{"id": "a"}\n', "i.jsonl:2: duplicate id"),
        ("i.csv", "id,title\na,1\n\nb,2\n", "i.csv:3: blank row"),
        ("i.jsonl", '{"id": "a", "title": {"en": "x"}}\n', "title is a dict"),
        ("i.csv", 'id,title\na,"open\nb,2\n', "not readable as CSV"),
        ("i.csv", "id,title,title\na,b,c\n", "two columns are called 'title'"),
        ("i.jsonl", '{"id": "a"}\n{"id"\n', "i.jsonl:2: not valid JSON"),
        ("i.jsonl", "[1]\n", "i.jsonl:1: not a JSON object"),
        ("i.csv", "name\nx\n", "i.csv:1: no column id"),
        ("i.csv", "id,title\na,b,c\n", "i.csv:2: 3 fields, the header has 2"),
        ("i.csv", "", "no items"),
        ("i.xlsx", "x", "unknown format .xlsx"),
        ("i.parquet", "x", "not a Parquet file"),
    ],
)
def test_broken_files_are_one_clear_error(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        read_items(write(tmp_path, name, content))


def test_a_parquet_file_is_read_for_its_own_columns_alone(tmp_path: Path) -> None:
    """A column that nobody uses may hold what Python cannot: a date after 9999, a text that is no UTF-8."""
    late = pa.array([2**52, 0], pa.timestamp("ms"))
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(struct.pack("<3i", 0, 1, 2)), pa.py_buffer(b"\xffx")]
    )
    table = pa.table({"id": ["a", "b"], "title": ["x", "y"], "sold": late, "note": broken})
    pq.write_table(table, tmp_path / "i.parquet")
    assert [i.title for i in read_items(tmp_path / "i.parquet")] == ["x", "y"]
    for column in ("sold", "note"):
        with pytest.raises(BadInput, match=f"row 1, column '{column}': "):
            read_items(tmp_path / "i.parquet", columns={"content": column})
    with pytest.raises(BadInput, match="no column price"):
        read_items(tmp_path / "i.parquet", columns={"content": "price"})
    pairs = pa.table({"sold": late, "query": ["a", "b"], "note": broken, "target": ["b", "a"], "grade": [1, 2]})
    pq.write_table(pairs, tmp_path / "p.parquet")
    read = read_pairs(tmp_path / "p.parquet", {"a", "b"})
    assert (list(read), read.grades[("b", "a")], read.unread) == ([("a", "b"), ("b", "a")], 2.0, ("sold", "note"))


def test_hints_are_quick_among_many_names() -> None:
    ids = [f"item-{n}" for n in range(200_000)]
    assert "item-77" in (suggest("itme-77", ids) or "")
    assert suggest("lmap", ["lamp", "cup"]) == "did you mean lamp?"
    assert suggest("zz", ids) is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"id": "a"}\n{"id": "b", "id": "c"}\n', "a.jsonl:2: the key 'id' is there twice"),
        ("a.jsonl", '{"id": "a"}\n{"id": "b", "topics": ' + "[" * 200_000 + "}", "a.jsonl:2: nested too deep"),
        ("a.jsonl", '{"id": "a", "topics": [["x"]]}\n', "a.jsonl:1: topics hold a list"),
        ("a.jsonl", '{"id": "a", "topics": {"x": 1}}\n', "a.jsonl:1: topics hold a dict"),
        ("a.csv", "id,title,topics\na,t," + "[" * 100_000 + "\n", "a.csv:2: topics are nested too deep"),
        ("a.csv", 'id,title,topics\na,t,"[{""x"": 1}]"\n', "a.csv:2: topics hold a dict"),
        ("a.csv", "id,title,id\n", "two columns are called 'id'"),
    ],
)
def test_json_in_items_is_read_strictly(name: str, content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        read_items(write(tmp_path, name, content))


def test_many_ids_that_are_there_twice_are_found_in_linear_time(tmp_path: Path) -> None:
    """Where each is compared with all others, this takes minutes."""
    ids = [str(n) for n in range(100_000)]
    header = write(tmp_path, "a.csv", ",".join([*ids, *ids]) + "\n")
    with pytest.raises(BadInput, match="two columns are called '0'"):
        read_items(header)
    vectors = pa.array([[1.0]] * 2 * len(ids), pa.list_(pa.float32(), 1))
    pq.write_table(pa.table({"id": [*ids, *reversed(ids)], "vector": vectors}), tmp_path / "v.parquet")
    with pytest.raises(BadInput, match="id '0' is there twice"):
        read_vectors(tmp_path / "v.parquet")


def test_wrong_encoding_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    path.write_bytes("id,title\na,ok\nb,é\n".encode("latin-1"))
    with pytest.raises(BadInput, match="i.csv:3: not UTF-8"):
        read_items(path)


@pytest.mark.parametrize("header", ["", "query,target\n", "Item_ID,item id\n", "id1,id2\n"])
def test_pairs_with_or_without_header(tmp_path: Path, header: str) -> None:
    path = write(tmp_path, "p.csv", header + "a,b\nb,c\n")
    assert list(read_pairs(path, {"a", "b", "c"})) == [("a", "b"), ("b", "c")]


def test_a_first_row_of_unknown_ids_is_no_header(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="p.csv:1: unknown id 'zz'"):
        read_pairs(write(tmp_path, "p.csv", "zz,qq\na,b\n"), {"a", "b"})


def test_bad_pairs_are_all_named(tmp_path: Path) -> None:
    path = write(tmp_path, "p.csv", "a,b\n\na,zz\na\nb,b\n")
    with pytest.raises(BadInput) as caught:
        read_pairs(path, {"a", "b"})
    for line, what in ((2, "blank row"), (3, "unknown id 'zz'"), (4, "expected two ids"), (5, "paired with itself")):
        assert f"{path}:{line}: " in caught.value.message
        assert what in caught.value.message
    read = read_pairs(path, {"a", "b"}, lenient=True)
    assert list(read) == [("a", "b")]
    assert len(read.dropped) == 4


def test_lenient_reads_past_broken_rows(tmp_path: Path) -> None:
    broken = write(tmp_path, "i.jsonl", '{"id": "a"}\n{"id"\n[1]\n\n{"id": "b"}\n')
    read = read_items(broken, lenient=True)
    assert [i.id for i in read] == ["a", "b"]
    assert [d.split(": ")[0] for d in read.dropped] == [f"{broken}:{n}" for n in (2, 3, 4)]
    with pytest.raises(BadInput, match="no column titel"):
        read_items(write(tmp_path, "j.jsonl", '{"id": "a", "title": "x"}\n'), columns={"title": "titel"})
    quoted = write(tmp_path, "i.tsv", 'id\ttitle\na\t24" screen\nb\tx\n')
    assert [i.title for i in read_items(quoted)] == ['24" screen', "x"]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("query,target\n1,2\n", "unknown id '1'"),
        ("query,target\na,b,c\n", "3 fields, the header has 2"),
        ("query,target,grade,negatives\na,b,1,c,d\n", "5 fields, the header has 4"),
        ("query,target,grade\na,b,\n", "grade '' is no number"),
    ],
)
def test_pairs_of_which_none_can_be_used_say_why(text: str, says: str, lenient: bool, tmp_path: Path) -> None:
    known = {"001": None, "002": None, **dict.fromkeys("abcd")}
    with pytest.raises(BadInput) as caught:
        read_pairs(write(tmp_path, "p.csv", text), known, lenient=lenient, negatives=True)
    assert f"p.csv:2: {says}" in caught.value.message
    assert ("'1' may be '001'" in (caught.value.hint or "")) == ("'1'" in says)


def test_cells_beyond_a_header_cost_their_row_alone(tmp_path: Path) -> None:
    found = read_pairs(write(tmp_path, "p.csv", "query,target\na,b,c\nb,c,,\n"), set("abc"), lenient=True)
    assert (found.pairs, len(found.dropped)) == ([("b", "c")], 1)
    assert len(read_pairs(write(tmp_path, "bare.csv", "a,b,c\nb,c\n"), set("abc"))) == 2


def test_pair_graph_and_ids(tmp_path: Path) -> None:
    read = read_pairs(
        write(tmp_path, "p.jsonl", '{"query": "a", "target": "b"}\n{"q": "a", "t": "c"}\n'), {"a", "b", "c"}
    )
    assert read.graph() == {"a": {"b", "c"}, "b": {"a"}, "c": {"a"}}
    assert read_ids(write(tmp_path, "pool.csv", "id\na\nb\na\n"), {"a", "b"}) == ["a", "b"]


def test_image_paths_stay_inside_their_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    for path in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        with pytest.raises(UnreadableImage, match="outside the images folder"):
            open_image(Item("a", path), tmp_path / "images")


@pytest.mark.parametrize("error", [struct.error("x"), TypeError("x"), RuntimeError("x"), NotImplementedError()])
def test_whatever_a_decoder_raises_is_an_unreadable_image(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: Image.Image) -> None:
        raise error

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(UnreadableImage, match=r"item 'a': image 'a.png': (x|NotImplementedError)"):
        open_image(Item("a", image="a.png"), tmp_path)


def test_formats_that_start_programs_are_not_read(tmp_path: Path) -> None:
    """An EPS under another name would have Pillow start Ghostscript on it."""
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(UnreadableImage, match="not an image of a format that is read"):
        open_image(Item("a", image="a.jpg"), tmp_path)


@pytest.mark.parametrize(("width", "height", "colours"), [(20, 65_536, 0), (65_536, 1, 2), (9_400, 9_400, 6)])
def test_images_that_take_too_much_memory_are_refused_before_they_are_decoded(
    tmp_path: Path, width: int, height: int, colours: int
) -> None:
    """Headers of PNGs, in grey, RGB and RGB with transparency: a side, or the whole, is beyond what is read."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, colours, 0, 0, 0)
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, b"IDAT", b"IEND")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(UnreadableImage, match="too many pixels"):
        open_image(Item("a", image="a.png"), tmp_path)


@pytest.mark.parametrize(("content", "reason"), [(None, "no such file"), (b"text", "not an image"), (b"cut", "a.png")])
def test_unreadable_images_name_the_item(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content == b"cut":
        Image.effect_noise((64, 64), 50).save(tmp_path / "a.png")
        content = (tmp_path / "a.png").read_bytes()[:300]
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImage, match=f"item 'x'.*{reason}"):
        open_image(Item("x", "a.png"), tmp_path)


def test_sixteen_bit_pictures_keep_their_greys(tmp_path: Path) -> None:
    import numpy as np

    Image.fromarray(np.full((4, 4), 128 * 257, np.uint16)).save(tmp_path / "a.png")
    assert open_image(Item("x", "a.png"), tmp_path).getpixel((0, 0)) == (128, 128, 128)
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(UnreadableImage, match="floating-point"):
        open_image(Item("x", "f.tiff"), tmp_path)


def test_paths_that_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in ("loop", "a\0b"):
        with pytest.raises(UnreadableImage, match="item 'x'"):
            open_image(Item("x", path), tmp_path)


def test_headers_name_their_columns(tmp_path: Path) -> None:
    known = {"a", "b"}
    assert list(read_pairs(write(tmp_path, "p.csv", "target,query\na,b\n"), known)) == [("b", "a")]
    assert list(read_pairs(write(tmp_path, "p.jsonl", '{"score": 1, "target": "a", "query": "b"}\n'), known)) == [
        ("b", "a")
    ]
    with pytest.raises(BadInput, match="unknown id 'a1'"):
        read_pairs(write(tmp_path, "p.csv", "a1,b2\na,b\n"), known)


def test_transparency_becomes_white() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("L", (1, 1), 7)).getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("resample", [*Image.Resampling])
@pytest.mark.parametrize("size", [(500, 333), (31, 47), (1, 1), (700, 9)])
def test_the_quick_resize_is_at_most_two_levels_off(fit: Any, resample: int, size: tuple[int, int]) -> None:
    """On noise, which is the worst that there is; the values of 8 bits, before mean and deviation."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    exact = ImageTransform(64, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), fit, 72, int(resample))
    quick = replace(exact, resizer="torch")
    assert (quick(image) - exact(image)).abs().max() < 2.01
    assert quick.id != exact.id  # cached features of the one are none of the other


def test_a_transform_that_was_saved_before_there_was_another_resize_keeps_its_id() -> None:
    assert ImageTransform(30, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).id == "651fad87090a"


def test_an_rgb_image_is_not_copied() -> None:
    image = Image.new("RGB", (3, 3))
    assert to_rgb(image) is image


def test_fits_keep_or_lose_what_they_say() -> None:
    """A wide picture whose ends are red: a crop loses them, pad and squash do not."""
    image = Image.new("RGB", (90, 30), (0, 0, 0))
    image.paste((255, 0, 0), (0, 0, 20, 30))
    image.paste((255, 0, 0), (70, 0, 90, 30))
    red = {fit: ImageTransform(30, (0, 0, 0), (1, 1, 1), fit)(image)[0] for fit in ("crop", "squash", "pad")}  # type: ignore[arg-type]
    assert all(r.shape == (30, 30) for r in red.values())
    assert red["crop"].max() < 0.2
    assert red["squash"].max() > 0.9
    assert red["pad"].max() > 0.9
    assert len({ImageTransform(30, (0, 0, 0), (1, 1, 1), f).id for f in ("crop", "squash", "pad")}) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", "query,target,score\na,b,0.25\nb,c,1e0\n"),
        ("p.tsv", "Similarity\ttarget\tquery\n0.25\tb\ta\n1\tc\tb\n"),
        ("p.csv", "id1,id2,note,Grade\na,b,x,0.25\nb,c,,1\n"),
        ("p.jsonl", '{"label": 0.25, "q": "a", "t": "b"}\n{"q": "b", "t": "c"}\n'),
    ],
)
def test_a_third_column_grades_pairs(tmp_path: Path, name: str, content: str) -> None:
    read = read_pairs(write(tmp_path, name, content), {"a", "b", "c"})
    assert list(read) == [("a", "b"), ("b", "c")]
    assert [read.grade(p) for p in read] == [0.25, 1.0]
    assert read.digest() != Pairs(read.pairs).digest()


def test_pairs_without_grades_are_what_they_were(tmp_path: Path) -> None:
    known = {"a", "b", "c"}
    plain = read_pairs(write(tmp_path, "p.csv", "query,target\na,b\nb,c\n"), known)
    assert plain.digest() == "e0b111281089e017"  # run folders of earlier versions hold it
    unnamed = read_pairs(write(tmp_path, "q.csv", "a,b,0.3\nb,c,far\n"), known)  # no header, no grade
    assert (unnamed.grades, unnamed.digest()) == ({}, plain.digest())


def test_bad_grades_are_all_named(tmp_path: Path) -> None:
    path = write(tmp_path, "p.csv", "query,target,score\na,b,high\na,b,nan\na,b\nb,c,0.5\nb,c,0.5\nb,c,0.7\n")
    with pytest.raises(BadInput) as caught:
        read_pairs(path, {"a", "b", "c"})
    for line, what in (
        (2, "'high' is no number"),
        (3, "'nan' is no"),
        (4, "'' is no"),
        (7, "0.7 for a pair that had 0.5"),
    ):
        assert f"{path}:{line}: grade {what}" in caught.value.message
    read = read_pairs(path, {"a", "b", "c"}, lenient=True)
    assert list(read) == [("b", "c"), ("b", "c")]
    assert len(read.dropped) == 4


def test_a_quote_that_is_never_closed_swallows_no_pairs(tmp_path: Path) -> None:
    items = Items([Item(i, title=i) for i in ("a", "b", 'c"', "d")])
    broken = tmp_path / "pairs.csv"
    broken.write_text('query,target\na,b\na,"d\nb,d\nd,a\n')
    with pytest.raises(
        BadInput, match="1 unusable row\n.*pairs.csv:3: not readable as CSV: a quote is opened and never closed"
    ):
        read_pairs(broken, items)
    read = read_pairs(broken, items, lenient=True)
    assert (read.pairs, len(read.dropped)) == ([("a", "b"), ("b", "d"), ("d", "a")], 1)
    plain = tmp_path / "pairs.tsv"
    plain.write_text('query\ttarget\na\tc"\n')
    assert read_pairs(plain, items).pairs == [("a", 'c"')]
