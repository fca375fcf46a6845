"""Indexes of every kind, changed by ids: nothing lost, nothing twice, and every item finds itself; filters; the measured choice."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from n2kit.embed.vectors_file import Vectors, write_table
from n2kit.errors import BadInput
from n2kit.index import build_index, load_index, store
from n2kit.index.auto import choose_by_measuring
from n2kit.index.choice import choose_index
from n2kit.index.comparing import kept_by
from n2kit.index.facts import Facts, column_of
from n2kit.index.update import update_index
from n2kit.index.where import holds as evaluate
from n2kit.index.where import parse
from n2kit.index.where_empty import why_empty
from n2kit_cli.index_changes import read_ids

PRINT, WIDTH = "0123456789abcdef", 16
KINDS = ["flat", "sq8", "hnsw:8", "ivf:6", "pq:8", "int8", "binary:20"]


def drawn(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def written(file: Path, ids: list[str], vectors: np.ndarray, fingerprint: str = PRINT) -> Path:
    write_table(Vectors(ids, vectors, fingerprint), file)
    return file


def holds(folder: Path, want: dict[str, np.ndarray], least: float) -> None:
    """The index has just these items, and so many of them find themselves; what it finds nearest is what numpy finds."""
    found = load_index(folder)
    assert sorted(found.ids) == sorted(want)
    vectors = np.stack([want[i] for i in found.ids])
    scores, rows = found.index.search(vectors, 5)
    assert (rows[:, 0] == np.arange(len(vectors))).mean() >= least
    truth = np.argsort(-(vectors @ vectors.T), axis=1, kind="stable")[:, :5]
    same = np.mean([len({*a} & {*b}) for a, b in zip(rows, truth, strict=True)]) / 5
    assert same >= least - 0.3 * (least < 1)
    assert (np.diff(scores, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_after_every_change_and_reopening_the_index_holds_what_it_should(kind: str, tmp_path: Path) -> None:
    least = 1.0 if kind == "flat" else 0.9
    want = {f"i{n}": vector for n, vector in enumerate(drawn(400))}
    folder = tmp_path / "index"
    build_index(written(tmp_path / "v.parquet", list(want), np.stack(list(want.values()))), folder, name=kind)
    holds(folder, want, least)
    gone = [f"i{n}" for n in range(0, 400, 20)]
    done = update_index(folder, delete=gone)
    assert (done.added, done.replaced, done.deleted) == (0, 0, 20)
    want = {i: v for i, v in want.items() if i not in gone}
    holds(folder, want, least)
    new = {f"i{n}": vector for n, vector in zip([*range(1, 11), 0, 1000, 1001], drawn(13, seed=1), strict=True)}
    done = update_index(folder, written(tmp_path / "new.parquet", list(new), np.stack(list(new.values()))))
    assert (done.added, done.replaced, done.deleted) == (3, 10, 0)
    holds(folder, want | new, least)
    assert load_index(folder).made_by.component == kind.partition(":")[0]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    build_index(written(tmp_path / "v.parquet", list("abcdef"), drawn(6)), tmp_path / "index")
    return tmp_path / "index"


def test_what_is_refused(small: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other.parquet", ["x"], drawn(1), "f" * 16)
    narrow = written(tmp_path / "narrow.parquet", ["x"], np.eye(1, 4, dtype=np.float32))
    long = written(tmp_path / "long.parquet", ["x"], 2 * drawn(1))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"vectors": other}, "is of model ffff"),
        ({"vectors": narrow}, "is 16 wide"),
        ({"vectors": long}, "not of unit length"),
        ({"delete": ["a", "z", "y"]}, r"'z' is not in the index \(2 such ids\)"),
        ({"delete": list("abcdef")}, "no item is left"),
    ]
    for options, reason in cases:
        with pytest.raises(BadInput, match=reason):
            update_index(small, **options)
    assert load_index(small).ids == list("abcdef")


def test_a_change_that_is_interrupted_leaves_the_index_as_it_was(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "load_index", stopped)  # the last look, before the new one takes its place
        with pytest.raises(KeyboardInterrupt):
            update_index(small, delete=["a"])
    assert load_index(small).ids == list("abcdef")
    assert update_index(small, delete=["a"]).stored.ids == list("bcdef")


def test_an_id_twice_in_two_pieces_is_refused(tmp_path: Path) -> None:
    class Twice:
        fingerprint, width = PRINT, WIDTH

        def __len__(self) -> int:
            return 4

        def batches(self) -> Any:
            for _ in range(2):
                yield Vectors(["a", "b"], drawn(2), PRINT)

    with pytest.raises(BadInput, match="an id is there twice"):
        store.index_source(Twice(), choose_index("flat"), "v")


def test_the_measured_choice_is_never_one_that_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from n2kit.embed.reading import open_vectors

    source = open_vectors(written(tmp_path / "v.parquet", [f"i{n}" for n in range(3000)], drawn(3000)))
    stored, found = choose_by_measuring(source, "v")
    (taken,) = [one for one in found if one.taken]
    assert taken.name == stored.made_by.component
    assert taken.overlap >= 0.99
    assert next(one.name for one in found) == "flat"
    assert {one.name for one in found} == {"flat", "sq8", "ivf", "hnsw"}
    monkeypatch.setattr("n2kit.index.auto.OVERLAP", 1.1)  # none is good enough
    assert choose_by_measuring(source, "v")[0].made_by.component == "flat"


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_vectors_to_compare_are_no_error(count: int) -> None:
    """A folder from which all items were removed has no batch."""
    batches = [Vectors(["a"], drawn(1), PRINT)][:count]
    source: Any = SimpleNamespace(batches=lambda: iter(batches))
    assert kept_by(source, 8) is None


def test_the_command_line(cli: Any, small: Path, tmp_path: Path) -> None:
    new = written(tmp_path / "new.parquet", ["a", "g"], drawn(2, seed=3))
    (tmp_path / "gone.csv").write_text("id,why\nb,old\nc,old\n")
    done = cli("index", new, "-o", small, "--upsert", "--delete", tmp_path / "gone.csv", "--json")
    assert {k: v for k, v in json.loads(done.out).items() if k != "index"} == {
        "items": 5, "fingerprint": PRINT, "added": 1, "replaced": 1, "deleted": 2, "unnamed": 0
    }  # fmt: skip
    assert load_index(small).ids == list("defag")
    (tmp_path / "gone.txt").write_text("a\n\nd\n")
    assert cli("index", "-o", small, "--delete", tmp_path / "gone.txt").code == 0
    assert (
        f"{tmp_path / 'gone.txt'}: item 'a' is not" in cli("index", "-o", small, "--delete", tmp_path / "gone.txt").err
    )
    assert load_index(small).ids == list("efg")
    measured = json.loads(cli("index", new, "-o", tmp_path / "auto", "--type", "auto", "--json").out)["measured"]
    assert sum(one["taken"] for one in measured) == 1
    one = written(tmp_path / "one.parquet", ["x"], drawn(1))
    (tmp_path / "late.jsonl").write_text(
        '{"item_id": "e"}\n{"id": "a"}\n'
    )  # the column is known from the second row on
    (tmp_path / "v.parquet.parquet").write_bytes(b"PAR1")
    (tmp_path / "broken.jsonl").write_text('{"id": "e"}\n{"id":\n{"id": "e"}\n')
    (tmp_path / "gone.jsonl.gz").write_bytes(gzip.compress(b'{"name": "e"}\n'))
    for arguments, reason in [
        (("-o", small), "no vectors to index"),
        ((new, "-o", small, "--delete", tmp_path / "gone.txt"), "--upsert adds them"),
        ((new, "-o", tmp_path / "none", "--upsert"), "is no index"),
        (("-o", small, "--delete", tmp_path / "none.txt"), "no file of ids"),
        ((new, "-o", tmp_path / "x", "--type", "auto", "--set", "index.m=4"), "measures what the options"),
        ((new, "-o", tmp_path / "x", "--type", "hnsw", "--set", "index.n=4"), "no such option"),
        ((new, "-o", tmp_path / "x", "--type", "pq:7"), "pq:8"),
        ((one, "-o", tmp_path / "x", "--type", "pq"), "two vectors at least"),
        ((new, "-o", small, "--migrate", "--type", "auto"), "leave out --type auto"),
        (("-o", small, "--delete", tmp_path / "late.jsonl"), "late.jsonl:1: no id"),
        (("-o", small, "--delete", tmp_path / "v.parquet.parquet"), "v.parquet.parquet: "),
        (("-o", small, "--delete", tmp_path / "gone.jsonl.gz"), "gone.jsonl.gz:1: no column"),
        (("-o", small, "--delete", tmp_path / "broken.jsonl"), "1 unusable row\n"),
    ]:
        found = cli("index", *arguments)
        assert (found.code, reason in found.err) == (2, True), found.err
    done = cli("index", "-o", small, "--delete", tmp_path / "broken.jsonl", "--lenient")
    assert (done.code, "dropped 1 row: " in done.err, load_index(small).ids) == (0, True, ["f", "g"]), done.err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("g.csv", "id\na\n\nb\na\n"),
        ("g.txt", "id\na\n\nb\n"),
        ("g.csv", "id,name\na,x\nb,y\n,\n"),
        ("g.jsonl", '{"id":"a"}\n\n{"id":"b"}\n'),
    ],
)
def test_ids_to_delete_may_have_blank_lines_between_and_repeat(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert read_ids(tmp_path / name) == ["a", "b"]


def test_a_line_without_an_id_is_told_whatever_the_file_is_called(tmp_path: Path) -> None:
    file = tmp_path / "duplicate ids, blank row.csv"
    file.write_text("id,name\na,x\n,y\na,z\n")
    with pytest.raises(BadInput, match="1 unusable row"):
        read_ids(file)


def test_indexing_needs_no_torch(small: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title,price\na,A,1\n")
    vectors, items, out = (str(tmp_path / name) for name in ("v.parquet", "items.csv", "i"))
    code = (
        "import sys; from pathlib import Path; from n2kit_cli.main import run\n"
        "from n2kit.embed.vectors_file import read_vectors, write_table\n"
        f"write_table(read_vectors(Path({vectors!r})), Path({vectors!r}))\n"
        f"assert run(['index', {vectors!r}, '-o', {out!r}, '--type', 'hnsw', '--items', {items!r}]) == 0\n"
        f"assert run(['recommend', '--index', {str(tmp_path / 'i')!r}, '--id', 'a']) == 0\n"
        "sys.exit(bool({'torch', 'transformers', 'pandas', 'jinja2'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


COLUMNS = {
    "category": np.array(["chair", "sofa", "", "o'clock"], object),
    "price": np.array([10, 20.5, np.nan, -1]),
    "shelf no": np.array(["1", "2", "3", "4"], object),
}


@pytest.mark.parametrize(
    ("condition", "want"),
    [
        ("category = 'chair'", [1, 0, 0, 0]),
        ("category != 'chair'", [0, 1, 0, 1]),
        ("category = 'o''clock'", [0, 0, 0, 1]),
        ("price < 20 and category = 'chair' or price=20.5", [1, 1, 0, 0]),
        ("not price >= 10", [0, 0, 1, 1]),
        ("price > -2 AND NOT (category in ('chair', 'sofa'))", [0, 0, 0, 1]),
        ("category not in ('chair')", [0, 1, 1, 1]),
        ("\"shelf no\" >= '3'", [0, 0, 1, 1]),
        ("price <= 1e1", [1, 0, 0, 1]),
    ],
)
def test_a_condition(condition: str, want: list[int]) -> None:
    assert evaluate(parse(condition, COLUMNS), COLUMNS).astype(int).tolist() == want


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("catgory = 'x'", "no column catgory"),
        ("price = 'x'", "holds numbers"),
        ("category = 3", "holds texts"),
        ("category =", "single quotes, is expected"),
        ("category", "is expected"),
        ("", "a column is expected"),
        ("price < 3 price", "'price' is not expected"),
        ("(price < 3", r"\) is expected"),
        ("price ~ 3", "'~ 3' is not understood"),
        ("(" * 80 + "price < 3" + ")" * 80, "nested too deep"),
        ("__import__('os') = 1", "no column __import__"),
    ],
)
def test_a_condition_that_is_none(condition: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        parse(condition, COLUMNS)


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        ("price = '20.5'", "a number has no quotes: price = 20.5"),
        ("price =", "for example: category = 'chair' and price <= 10"),
        ("category < 3", "'chair' is no number; texts are in single quotes: category = 'chair'"),
        ('"shelf no" = 3', "it holds texts that look like numbers, and they are compared as texts: \"shelf no\" = '1'"),
        ("Preis < 20", "'12,90 €' is no plain number: write all as 12.90 in the file of items, and index it again"),
        ("colour = 'red'", "columns: category, price, shelf no, Preis, id"),
    ],
)
def test_a_hint_of_a_condition_is_in_the_columns_that_are_there(condition: str, hint: str) -> None:
    columns = COLUMNS | {"Preis": np.array(["", "8", "12,90 €", "9"], object), "id": np.array(list("abcd"), object)}
    with pytest.raises(BadInput) as found:
        parse(condition, columns)
    assert found.value.hint == hint
    assert evaluate(parse("product_id = 'b'", columns), columns).tolist() == [
        False,
        True,
        False,
        False,
    ]  # another name of the same field


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("category = 'chairs'", "no item has category = 'chairs' (did you mean chair?)"),
        ("price > 9 and not (price > 9)", "no item has both: price > 9 (2 items) and not (price > 9) (2 items)"),
        ("category in ('a', 'b') and price < 99", "no item has category = 'a' or category = 'b'"),
        (
            "(price < 9 or price > 99) and price > 8",
            "no item has both: (price < 9 or price > 99) (1 item) and price > 8 (2 items)",
        ),
        ("price < 99", None),
    ],
)
def test_a_condition_that_leaves_nothing_is_explained(condition: str, says: str | None) -> None:
    assert why_empty(condition, COLUMNS) == says


@pytest.mark.parametrize(
    ("values", "text", "numbers"),
    [
        (["12", "-1.5", "0.5", "0", None], None, True),
        (["12", "-012"], None, False),
        (["1", "+07"], None, False),
        (["1", "1_000"], None, False),
        (["00042"], False, True),
        (["1", 2, 3.5], True, False),
        (["1", "0_b"], None, False),
        (["1", "01", "x" * 201], None, None),
    ],
)
def test_a_column_is_of_numbers_if_none_of_them_is_a_code(values: list[Any], text: bool | None, numbers: Any) -> None:
    made = column_of(values, text=text)
    assert (made if made is None else made.dtype.kind == "f") is numbers


def test_ids_and_codes_stay_texts_and_amounts_are_said(cli: Any, tmp_path: Path) -> None:
    ids = ["00001", "00002", "1e3"]
    vectors = written(tmp_path / "v.parquet", ids, drawn(3))
    rows = "00001;chair;0042;12,90 €\n00002;sofa;17;8 €\n1e3;desk;3;9\n"
    (tmp_path / "items.csv").write_text("SKU;Name;zip;Preis\n" + rows)
    given = ("--items", tmp_path / "items.csv", "--map", "id=SKU")
    made = cli("index", vectors, "-o", tmp_path / "index", *given)
    assert "note: column Preis stays text, and is compared as such: '12,90 €' is no plain number" in made.err
    facts = load_index(tmp_path / "index").facts
    assert facts is not None
    assert {name: column.tolist() for name, column in facts.columns.items()} == {
        "Name": ["chair", "sofa", "desk"], "zip": ["0042", "17", "3"], "Preis": ["12,90 €", "8 €", "9"]
    }  # fmt: skip
    later = "SKU;Name;zip;Preis;no\n00002;sofa;17;8;7\n"
    for items in (later, later.replace(";7", ";07")):  # a column of numbers stays one
        (tmp_path / "items.csv").write_text(items)
        done = cli(
            "index", written(tmp_path / "v.parquet", ids[1:2], drawn(1)), "-o", tmp_path / "index", "--upsert", *given
        )
        assert done.code == 0, done.err
    facts = load_index(tmp_path / "index").facts
    assert facts is not None
    assert (facts.of(["00002"])["no"].tolist(), facts.of(["00002"])["zip"].tolist()) == ([7.0], ["17"])
    asked = ("recommend", "--index", tmp_path / "index", "--json", "--id")
    for column in ("id", "SKU"):
        found = cli(*asked, "00001", "--where", f"{column} = '00002'")
        assert [one["id"] for one in json.loads(found.out)["neighbours"]] == ["00002"]
    for query, condition, says in [
        ("00001", "id = '1'", "note: --where leaves nothing: no item has id = '1' (did you mean 00001?)"),
        ("00001", "id = '00001'", "note: --where leaves nothing but the item itself"),
        ("1", "zip = '3'", "hint: did you mean 00001?"),
        (" 1E3", "zip = '3'", "hint: did you mean 1e3?"),
    ]:
        assert says in cli(*asked, query, "--where", condition).err


def test_a_first_look_at_codes_is_made_good_by_the_vectors(tmp_path: Path) -> None:
    """int8 finds what numpy finds, with the same scores; binary the more of it, the more is compared again."""
    vectors = written(tmp_path / "v.parquet", [f"i{n}" for n in range(2000)], drawn(2000))
    truth = np.argsort(-(drawn(100) @ drawn(2000).T), axis=1, kind="stable")[:, :10]
    overlap = {}
    for name in ("int8", "binary:2", "binary:50"):
        scores, rows = build_index(vectors, tmp_path / "i", name=name, force=True).index.search(drawn(100), 10)
        overlap[name] = np.mean([len({*a} & {*b}) for a, b in zip(rows, truth, strict=True)]) / 10
        assert np.allclose(scores, np.einsum("qd,qkd->qk", drawn(100), drawn(2000)[rows]), atol=1e-6)
    assert overlap["int8"] == 1
    assert overlap["binary:2"] < overlap["binary:50"] > 0.9


def test_damaged_codes_are_said_to_be_so(tmp_path: Path) -> None:
    from n2kit_faiss.rescored import BinaryIndex

    vectors = written(tmp_path / "v.parquet", list("abcdef"), drawn(6))
    build_index(vectors, tmp_path / "i", name="binary")
    np.save(tmp_path / "i" / "vectors.npy", drawn(5))
    with pytest.raises(BadInput, match="not whole codes"):
        BinaryIndex.load(tmp_path / "i")


def test_the_first_numbers_alone_are_indexed(cli: Any, tmp_path: Path) -> None:
    vectors = written(tmp_path / "v.parquet", list("abcdef"), drawn(6))
    done = cli("index", vectors, "-o", tmp_path / "i", "--dim", "5", "--quantize", "binary", "--set", "index.rescore=3")
    assert done.code == 0, done.err
    stored = load_index(tmp_path / "i")
    short = drawn(6)[:, :5] / np.linalg.norm(drawn(6)[:, :5], axis=1, keepdims=True)
    assert np.allclose(stored.index.vectors(np.arange(6)), short, atol=1e-6)
    assert stored.made_by.options == {"rescore": 3}
    assert np.allclose(stored.fitted(drawn(6)[2]), short[2], atol=1e-6)
    assert "--dim 5 of 16: of 6 items" in done.err
    new = written(tmp_path / "new.parquet", ["g"], drawn(1, seed=1))
    refused = cli("index", new, "-o", tmp_path / "i", "--upsert", "--dim", "6")
    assert (refused.code, "is 5 wide" in refused.err, "hint: --dim 5" in refused.err) == (2, True, True), refused.err
    assert cli("index", new, "-o", tmp_path / "i", "--upsert").code == 0
    assert load_index(tmp_path / "i").dim == 5
    other = written(tmp_path / "other.parquet", list("abcdefg"), drawn(7, seed=2), "f" * 16)
    assert cli("index", other, "-o", tmp_path / "i", "--migrate").code == 0
    assert (load_index(tmp_path / "i").width, load_index(tmp_path / "i").dim) == (5, 5)
    for more, reason in [
        (("--dim", "17"), "have 16 numbers"),
        (("--quantize", "int8", "--type", "sq8"), "an index of its own"),
    ]:
        refused = cli("index", vectors, "-o", tmp_path / "j", *more)
        assert (refused.code, reason in refused.err) == (2, True), refused.err


def test_items_that_are_put_in_without_a_title_are_counted(cli: Any, tmp_path: Path) -> None:
    """Of vectors whose ids are not among the items, and of all where no items are given to an index that remembers some."""
    (tmp_path / "items.csv").write_text("id,title,price\na,A,1\nb,B,2\ng,G,3\n")
    vectors, items = written(tmp_path / "v.parquet", list("ab"), drawn(2)), tmp_path / "items.csv"
    assert cli("index", vectors, "-o", tmp_path / "i", "--items", items).code == 0
    new = written(tmp_path / "new.parquet", list("agh"), drawn(3, seed=1))
    for more, unnamed, reason in [
        (("--items", items), 1, f"of 1 item that was put in nothing is in {items}"),
        ((), 1, "note: of 1 item that was put in the index remembers no title"),
    ]:
        done = cli("index", new, "-o", tmp_path / "i", "--upsert", "--json", *more)
        assert (json.loads(done.out)["unnamed"], reason in done.err) == (unnamed, True), done.err


def test_an_index_migrates_to_another_model_when_its_vectors_are_whole(cli: Any, tmp_path: Path) -> None:
    ids, other = [f"i{n}" for n in range(300)], "f" * 16
    facts = Facts(ids, {"price": np.arange(300, dtype=float)})
    build_index(written(tmp_path / "v.parquet", ids, drawn(300)), tmp_path / "i", name="sq8", facts=facts)
    turned = drawn(300) @ np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    partly = written(tmp_path / "partly.parquet", ids[:250], turned[:250], other)
    before = (tmp_path / "i" / "manifest.json").read_bytes()
    done = cli("index", partly, "-o", tmp_path / "i", "--migrate", "--json")
    assert (done.code, "50 items of" in done.err, "the first 'i250'" in done.err) == (1, True, True), done.err
    told = json.loads(done.out)
    assert (told["missing"], told["switched"]) == (50, False)
    assert told["overlap"] > 0.9  # a rotation changes no neighbour, and sq8 only few
    assert (tmp_path / "i" / "manifest.json").read_bytes() == before
    order = np.random.default_rng(2).permutation(301)
    unlike = np.concatenate([turned[:150], drawn(151, seed=5)])[order]
    whole = written(tmp_path / "whole.parquet", [[*ids, "new"][n] for n in order], unlike, other)
    done = cli("index", whole, "-o", tmp_path / "i", "--migrate", "--json")
    told = json.loads(done.out)
    assert (done.code, told["switched"], told["added"], told["items"]) == (0, True, 1, 301), done.err
    assert 0.1 < told["overlap"] < 0.6
    after = load_index(tmp_path / "i")
    assert (after.fingerprint, after.made_by.component) == (other, "sq8")
    assert after.facts is not None
    assert after.facts.of(["i7", "new"])["price"][0] == 7
    for vectors, reason in [(whole, "of the model that made the index"), (tmp_path / "v.parquet", None)]:
        again = cli("index", vectors, "-o", tmp_path / "i", "--migrate")
        assert (again.code, (reason or "i has no vector") in again.err or reason is None) == (
            2 if reason else 1,
            True,
        ), again.err
    third = written(tmp_path / "third.parquet", after.ids, drawn(301), "e" * 16)
    assert cli("index", third, "-o", tmp_path / "i", "--migrate", "--type", "ivf", "--set", "index.probes=3").code == 0
    assert load_index(tmp_path / "i").made_by.options["probes"] == 3
    refused = cli("index", whole, "-o", tmp_path / "i", "--migrate", "--upsert")
    assert (refused.code, "leave out --upsert" in refused.err) == (2, True), refused.err
