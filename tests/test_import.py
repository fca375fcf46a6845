"""Public sets in the formats that they really have, quirks included; every row of each is accounted for."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from n2kit.data.items import read_items
from n2kit.datasets.imports.rows import clean

META_2023 = [
    {"main_category": "Baby", "title": "Bath &amp; Play &quot;Duck&quot;", "price": "$12.99", "features": ["<b>Soft</b>"], "parent_asin": "B0001",
     "description": [], "images": [{"thumb": "t", "large": "https://x.test/1.jpg", "hi_res": None}, {"large": "https://x.test/2.jpg"}],
     "categories": ["Baby", "Toys"], "bought_together": None, "details": {"a": 1}},
    {"main_category": None, "title": "Second", "price": None, "features": [], "parent_asin": "B0002", "description": None, "images": [],
     "categories": [], "bought_together": None},
    {"title": "", "parent_asin": "B0003", "description": [], "images": [], "features": [], "categories": [], "bought_together": None},
    {"title": "again", "parent_asin": "B0001"},
    {"title": "nobody", "parent_asin": None},
]  # fmt: skip
REVIEWS_2023 = [
    {
        "rating": 5.0,
        "asin": "B9",
        "parent_asin": "B0001",
        "user_id": "u1",
        "timestamp": 1588687728923,
        "text": 'a "quote"',
    },
    {"rating": 1.0, "asin": "B0002", "parent_asin": "B0002", "user_id": "u1", "timestamp": 1588687729923},
    {"rating": 1.0, "asin": "B7", "parent_asin": "B7", "user_id": "u2", "timestamp": 1588687729923},
    {"rating": 1.0, "parent_asin": "B0001", "user_id": None, "timestamp": 1},
]
META_2018 = [
    {"asin": "0001", "title": "var aPageStart = (new Date()).getTime();", "description": ["<p>Plain</p>", "more"], "feature": [], "price": "$1,299.00",
     "also_buy": ["0002", "9999", "0001"], "also_view": ["0002"], "imageURL": ["https://x.test/s.jpg"], "imageURLHighRes": ["https://x.test/l.jpg"],
     "category": ["Clothing", "<span>x</span>"], "main_cat": "Fashion"},
    {"asin": "0002", "title": "Two", "description": [], "also_buy": [], "also_view": None},
]  # fmt: skip
LITERALS_2014 = (
    "{'asin': '0001', 'title': 'It\\'s a \"thing\"', 'imUrl': 'http://x.test/1.jpg', 'categories': [['Baby', 'Toys']], 'price': 3.5, "
    "'related': {'also_bought': ['0002', 'B9'], 'bought_together': ['0002']}}\n"
    "{'asin': '0002', 'description': 'plain'}\n"
    "{'asin': broken\n"
)


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def imported(cli: Any, name: str, out: Path, *flags: Any) -> dict[str, Any]:
    done = cli("data", "import", name, "-o", out, *flags, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    for kind in ("items", "events", "pairs"):
        if kind in found:
            assert found[kind]["read"] == found[kind]["written"] + sum(found[kind]["dropped"].values())
            assert found[kind]["written"] == pq.read_table(out / f"{kind}.parquet").num_rows
    return found


def rows_of(out: Path, kind: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{kind}.parquet").to_pylist()
    return rows


def test_amazon_2023_joins_on_the_parent_and_has_no_pairs(cli: Any, tmp_path: Path) -> None:
    meta = write_lines(tmp_path / "meta_Baby.jsonl.gz", META_2023)
    reviews = write_lines(tmp_path / "Baby.jsonl.gz", REVIEWS_2023)
    found = imported(cli, "amazon-2023", tmp_path / "d", "--meta", meta, "--reviews", reviews)
    assert found["items"]["dropped"] == {"an id again": 1, "without a picture and a text": 1, "without an id": 1}
    assert found["events"]["dropped"] == {"an item that is not in the catalogue": 1, "without a user or an item": 1}
    assert "pairs" not in found
    one, two = read_items(tmp_path / "d" / "items.parquet")
    assert (one.id, one.title, one.image, one.content) == (
        "B0001",
        'Bath & Play "Duck"',
        "https://x.test/1.jpg",
        "Soft",
    )
    assert (one.topics, two.image) == (("Baby", "Toys"), "")
    assert rows_of(tmp_path / "d", "items")[0]["more_images"] == ["https://x.test/2.jpg"]
    assert cli("data", "import", "amazon-2023", "--meta", meta, "-o", tmp_path / "d").code == 2
    mined = cli(
        "data",
        "mine",
        "--events",
        tmp_path / "d" / "events.parquet",
        "--items",
        tmp_path / "d" / "items.parquet",
        "-o",
        tmp_path / "d",
    )
    assert mined.code == 0, mined.err
    assert [(r["query"], r["target"], r["score"]) for r in rows_of(tmp_path / "d", "pairs")] == [
        ("B0001", "B0002", 0.5)
    ]


def test_amazon_2018_and_2014_have_pairs(cli: Any, tmp_path: Path) -> None:
    found = imported(cli, "amazon-2018", tmp_path / "a", "--meta", write_lines(tmp_path / "meta.json", META_2018))
    assert rows_of(tmp_path / "a", "pairs") == [{"query": "0001", "target": "0002", "type": "also_buy"}]
    lost = {"an item that is not in the catalogue": 1, "an item with itself": 1, "a pair again": 1}
    assert (found["pairs"]["dropped"], found["items"]["written"]) == (lost, 2)
    one = read_items(tmp_path / "a" / "items.parquet")["0001"]
    assert (one.title, one.content, one.image) == ("", "Plain more", "https://x.test/l.jpg")
    (tmp_path / "meta.json").write_text(LITERALS_2014)
    found = imported(cli, "amazon-2014", tmp_path / "b", "--meta", tmp_path / "meta.json")
    assert found["items"]["dropped"] == {"unreadable row": 1}
    assert read_items(tmp_path / "b" / "items.parquet")["0001"].title == 'It\'s a "thing"'
    assert [r["target"] for r in rows_of(tmp_path / "b", "pairs")] == ["0002"]


ESCAPED_2018 = (
    r'{"asin": "0001", "title": "Emoji \ud83d\ude00, a\/b", "also_buy": ["0002"], "image": ["https:\/\/x.test\/1.jpg"], "description": "plain"}' "\n"
    r'{"asin": "0002", "title": "half \ud83d, nul \u0000 gone", "price": NaN, "also_buy": null}' "\n"
)  # fmt: skip


@pytest.mark.parametrize("year", ["2014", "2018"])
def test_escapes_and_logs_of_amazon_as_they_are_published(year: str, cli: Any, tmp_path: Path) -> None:
    """JSON is no Python: of its escapes that one makes halves of characters. Reviews of 2014 are Python, too; ratings have no header."""
    meta, reviews, ratings = (tmp_path / name for name in ("meta.json", "reviews.json", "ratings.csv"))
    meta.write_text(ESCAPED_2018)
    reviews.write_text(
        "{'reviewerID': 'u1', 'asin': '0001', 'reviewerName': \"O'N\", 'overall': 5.0, 'unixReviewTime': 1252800000}\n"
    )
    row = "u1,0001,5.0,1252800000" if year == "2014" else "0001,u1,5.0,1252800000"
    ratings.write_text(f"{row}\n{row}\n")
    for log, count in ((reviews, 1), (ratings, 2)):
        found = imported(cli, f"amazon-{year}", tmp_path / log.stem, "--meta", meta, "--reviews", log)
        assert found["events"]["written"] == count
        event = {"user": "u1", "item": "0001", "time": "1252800000", "rating": "5.0"}
        assert rows_of(tmp_path / log.stem, "events")[0] == event
    read = read_items(tmp_path / "ratings" / "items.parquet")
    assert [item.title for item in read] == ["Emoji 😀, a/b", "half ?, nul gone"]
    if year == "2018":
        assert read["0001"].image == "https://x.test/1.jpg"


def test_hm_keeps_its_leading_zero(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "articles.csv").write_text(
        'article_id,prod_name,product_type_name,product_group_name,detail_desc\n0108775015,Strap top,Vest top,Upper,"Jersey, soft"\n108775044,Other,,,\n'
    )
    (tmp_path / "transactions_train.csv").write_text(
        "t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-20,c1,0108775015,0.05,2\n2018-09-21,c1,0108775044,0.03,1\n"
    )
    (tmp_path / "images" / "010").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "010" / "0108775015.jpg")
    found = imported(
        cli,
        "hm",
        tmp_path / "d",
        "--items",
        tmp_path / "articles.csv",
        "--events",
        tmp_path / "transactions_train.csv",
        "--images",
        tmp_path / "images",
    )
    assert found["events"]["written"] == 2
    items = read_items(tmp_path / "d" / "items.parquet")
    assert [(i.id, i.image) for i in items] == [("0108775015", "010/0108775015.jpg"), ("0108775044", "")]
    assert (tmp_path / "d" / "images" / "010" / "0108775015.jpg").is_file()


@pytest.mark.parametrize("name", ["microlens", "ninerec", "pixelrec", "recbole", "mmrec"])
def test_sets_of_tables(name: str, cli: Any, tmp_path: Path) -> None:
    items, events = {
        "microlens": ("item,title\n1,First &amp; only\n2,Second\n", "u1\t1 2 9\nu2\n"),
        "ninerec": ("item_id,cn_title,en_title\n1,一,First &amp; only\n2,二,Second\n", "u1\t1 2 9\n"),
        "pixelrec": ("item_id,view_number,title,tag,description\n1,5,First &amp; only,a,\n2,6,Second,b,text\n", "item_id,user_id,timestamp\n1,u1,5\n2,u1,6\n9,u1,7\n"),
        "recbole": ("item_id:token\ttitle:token_seq\tprice:float\n1\tFirst & only\t2\n2\tSecond\t3\n", "user_id:token\titem_id:token\ttimestamp:float\nu1\t1\t5\nu1\t2\t6\nu1\t9\t7\n"),
        "mmrec": ("itemID,asin,title,description\n1,B1,First & only,\n2,B2,Second,\n", "userID\titemID\trating\ttimestamp\tx_label\nu1\t1\t5\t5\t0\nu1\t2\t4\t6\t1\nu1\t9\t4\t7\t2\n"),
    }[name]  # fmt: skip
    (tmp_path / "covers").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "covers" / "1.jpg")
    (tmp_path / "items.csv").write_text(items)
    (tmp_path / "events.tsv").write_text(events) if "\t" in events else (tmp_path / "events.tsv").with_suffix(
        ".csv"
    ).write_text(events)
    log = tmp_path / ("events.tsv" if "\t" in events else "events.csv")
    found = imported(
        cli, name, tmp_path / "d", "--items", tmp_path / "items.csv", "--events", log, "--images", tmp_path / "covers"
    )
    assert found["items"]["written"] == 2
    read = read_items(tmp_path / "d" / "items.parquet")
    first = read["1"] if "1" in read else read["B1"]
    assert first.title == "First & only"
    assert bool(first.image) == (name in ("microlens", "ninerec", "pixelrec"))
    assert found["events"]["written"] == 2
    assert found["events"]["dropped"]["an item that is not in the catalogue"] == 1


# As the sets publish them: no header, a comma that nobody quoted, lists in a text, tokens between spaces, two languages.
PUBLISHED = {
    "microlens": ("1,First &amp; only\n2,\"Second, quoted\"\n3,Third, not quoted\n", "user,item,timestamp\nu1,1,1583378629552\nu1,3,1583378629553\n"),
    "ninerec": ("1,一,First &amp; only\n2,二,\n3,三,Third, too\n", "1,u1,1600000000\n3,u1,1600000001\n"),
    "pixelrec": ("item_id,view_number,title_en,title,description,tag\n1,5,First &amp; only,一,,a\n2,6,,二,text,b\n3,7,Third,三,,c\n", "item_id,user_id,timestamp\n1,u1,5\n3,u1,6\n"),
    "recbole": ("item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq\n1\tFirst & only\t1995\tAnimation Children's\n2\tSecond\t1995\t'Drama', 'Sci Fi'\n3\tThird\t1\t\n", "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu1\t1\t5\t5\nu1\t3\t4\t6\n"),
    "mmrec": ("itemID,asin,title,price,imUrl,related,brand,categories,salesRank,description\n1,B1,First & only,9,http://x.test/1.jpg,\"{'also_bought': ['B2']}\",G,\"[['Sports & Outdoors', 'Hunting'], ['Sports & Outdoors']]\",,text\n2,B2,Second,,,,,[],,\n3,B3,Third,,,,,,,\n", "userID\titemID\trating\ttimestamp\tx_label\nu1\t1\t5.0\t5\t0\nu1\t3\t4.0\t6\t1\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_layouts_as_they_are_published(name: str, cli: Any, tmp_path: Path) -> None:
    items, events = PUBLISHED[name]
    (tmp_path / "items.csv").write_text(items)
    (tmp_path / "events.csv").write_text(events)
    found = imported(cli, name, tmp_path / "d", "--items", tmp_path / "items.csv", "--events", tmp_path / "events.csv")
    assert (found["items"]["written"], found["events"]["written"]) == (3, 2)
    read = read_items(tmp_path / "d" / "items.parquet")
    titles = [item.title for item in read]
    assert titles[0] == "First & only"
    assert titles[1:] == {
        "microlens": ["Second, quoted", "Third, not quoted"], "ninerec": ["二", "Third, too"], "pixelrec": ["二", "Third"],
    }.get(name, ["Second", "Third"])  # fmt: skip
    log = rows_of(tmp_path / "d", "events")
    assert [(row["user"], row["item"]) for row in log] == [("u1", "1"), ("u1", "3")]
    assert all(row["time"] for row in log)
    if name == "recbole":
        assert [item.topics for item in read] == [("Animation", "Children's"), ("Drama", "Sci Fi"), ()]
    if name == "mmrec":
        assert read["1"].topics == ("Sports & Outdoors", "Hunting")
        assert (read["1"].image, read["2"].image) == ("http://x.test/1.jpg", "")


def test_folders_of_pictures(cli: Any, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    (pictures / "cats").mkdir(parents=True)
    for path in ("cats/1.png", "cats/2.png", "3.jpg"):
        Image.new("RGB", (4, 4)).save(pictures / path)
    found = imported(cli, "images", tmp_path / "a", "--images", pictures)
    assert found["items"]["written"] == 3
    assert [(i.id, i.image, i.category) for i in read_items(tmp_path / "a" / "items.parquet")] == [
        ("3", "3.jpg", ""), ("cats/1", "cats/1.png", "cats"), ("cats/2", "cats/2.png", "cats"),
    ]  # fmt: skip
    (pictures / "metadata.jsonl").write_text(
        '{"file_name": "cats/1.png", "text": "a cat"}\n{"file_name": "none.png", "text": "x"}\n'
    )
    found = imported(cli, "hf-folder", tmp_path / "b", "--images", pictures)
    assert found["items"]["dropped"] == {"whose picture is not in the folder": 1, "a picture without a row": 2}
    assert [(i.id, i.image, i.content) for i in read_items(tmp_path / "b" / "items.parquet")] == [
        ("cats/1", "cats/1.png", "a cat")
    ]
    (tmp_path / "table.csv").write_text("sku,name\n3,three\n1,one\n")
    found = imported(cli, "images", tmp_path / "c", "--images", pictures, "--table", tmp_path / "table.csv")
    assert [(i.id, i.title, i.image) for i in read_items(tmp_path / "c" / "items.parquet")] == [
        ("3", "three", "3.jpg"),
        ("1", "one", "cats/1.png"),
    ]


def test_the_papers_own_catalogue(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("n1,Title,content, with a comma,img/1.jpg,food\nn2,short\n")
    found = imported(cli, "notellm", tmp_path / "d", "--items", tmp_path / "notes.csv")
    assert (found["items"]["written"], found["items"]["dropped"]) == (1, {"unreadable row": 1})


def test_bad_imports_get_one_line(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "items.csv").write_text("itemID,title\n1,a thing\n")
    (tmp_path / "log.csv").write_text("userID,itemID,timestamp\nu,2,1\n")
    for flags, said in (
        (("amazon-2032",), "did you mean"),
        (("hm",), "needs its catalogue"),
        (("images",), "is a folder of pictures"),
        (("hm", "--items", tmp_path / "none.csv"), "no file"),
        (("amazon-2023", "--items", tmp_path / "other.csv"), "no item of amazon-2023"),
        (
            ("mmrec", "--items", tmp_path / "items.csv", "--events", tmp_path / "log.csv"),
            f"of the items of {tmp_path / 'items.csv'}?",
        ),
    ):
        failed = cli("data", "import", *flags, "-o", tmp_path / "d")
        assert (failed.code, said in failed.err) == (2, True), failed.err


def test_texts_of_web_pages_are_cleaned() -> None:
    assert clean("A &amp;quot;B&amp;quot;<br/>C <script>x()</script> 1 < 2") == 'A "B" C 1 < 2'
    assert clean(["a", None, "<b>b</b>"]) == "a b"
    assert clean(float("nan")) == ""


def test_emojinotes_comes_with_the_package(cli: Any, tmp_path: Path) -> None:
    done = cli("data", "demo", "emojinotes", "-o", tmp_path / "notes", "--json")
    assert json.loads(done.out)["rows"] == {"items": 4758, "pool": 1586, "test": 478, "train": 2928, "val": 132}
    (tmp_path / "other").mkdir()
    assert cli("data", "demo", "emojinotes", "-o", tmp_path / "other").code == 2
    assert cli("data", "demo", "stamps", "-o", tmp_path / "stamps", "--from", tmp_path / "other").code == 2
