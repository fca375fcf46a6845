"""Indexes in stores: changed in place, filtered by the store, found again by whoever opens them; words; what is refused."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from n2kit.data.images import open_image
from n2kit.data.items import Item, Items, read_items
from n2kit.datasets.pack import pack
from n2kit.embed.vectors_file import Vectors, write_table
from n2kit.errors import BadInput, Unavailable
from n2kit.index import build_index, load_index
from n2kit.index.facts import Facts
from n2kit.index.folder import StoredIndex
from n2kit.index.in_store import InStore
from n2kit.index.neighbours import all_neighbours
from n2kit.index.search import SearchOptions, match, search
from n2kit.index.store_building import close
from n2kit.index.titles import Titles
from n2kit.index.update import update_index
from n2kit.index.where import holds as evaluate
from n2kit.index.where import parse

PRINT, WIDTH, COUNT = "0123456789abcdef", 16, 300
STORES = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed"))
    for name, package in (("lancedb", "lancedb"), ("milvus", "pymilvus"))
]
IDS = [*(f"i{n}" for n in range(COUNT - 3)), "it's", 'a "b" \\', "中文"]
COLUMNS: dict[str, np.ndarray] = {
    "kind": np.array([["x", "y's", "", '"z"'][n % 4] for n in range(COUNT)], object),
    "price": np.array([float(n) if n % 3 else np.nan for n in range(COUNT)]),
    "two words": np.array([f"w{n % 2}" for n in range(COUNT)], object),
    "颜色": np.array([["红", "蓝\\"][n % 2] for n in range(COUNT)], object),
    "id": np.array(IDS, object),
    "like": np.arange(COUNT, dtype=float),
}
CONDITIONS = [
    "kind = 'x'", "kind = 'y''s' and price < 100", "not kind = 'x'", "not (price < 100)", "kind != 'x'", "price >= 4.5 or kind = '\"z\"'",
    "\"two words\" = 'w1' and 颜色 = '蓝\\'", "kind in ('x', 'nothing')", "kind not in ('x', '')", "id = 'it''s'", "price in (1, 2, 4)",
    "kind = ''", "like < 7", "like in (7, 8)", "not (kind = '' or price = 1)", "price != 1 and price > -1e3",
]  # fmt: skip


def drawn(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def written(file: Path, ids: list[str], vectors: np.ndarray, fingerprint: str = PRINT) -> Path:
    write_table(Vectors(ids, vectors, fingerprint), file)
    return file


def titles() -> Titles:
    return Titles(Items([Item(i, title=f"thing {n} 红色 椅子", image=f"{n}.png") for n, i in enumerate(IDS)]))


@pytest.fixture(scope="module", params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def stored(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("stores")
    made = build_index(
        written(folder / "v.parquet", IDS, drawn(COUNT)), folder / "index", name=kind, titles=titles(), facts=Facts(IDS, COLUMNS)
    )  # fmt: skip
    yield made
    close(made)


def test_a_store_gives_back_what_it_was_given(stored: StoredIndex) -> None:
    assert sorted(stored.ids) == sorted(IDS)
    rows = np.array([stored.position[i] for i in IDS])
    np.testing.assert_array_equal(stored.index.vectors(rows), drawn(COUNT))
    assert stored.titles is not None
    assert stored.facts is not None
    assert stored.titles.title("it's") == f"thing {COUNT - 3} 红色 椅子"
    assert COLUMNS.keys() - stored.facts.columns.keys() == {"id"}  # which are the ids
    for name, column in stored.facts.of(IDS).items():
        np.testing.assert_array_equal(column, COLUMNS[name])
    assert (stored.index.search(drawn(COUNT)[[0]], COUNT + 5)[1][0, COUNT:] == -1).all()


def test_a_packed_picture_is_found_again_and_called_by_its_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / "d" / "images").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "d" / "images" / "frog.png")
    (tmp_path / "d" / "items.jsonl").write_text('{"id": "a", "image": "frog.png", "title": "a frog"}\n')
    pack(tmp_path / "d", tmp_path / "p")
    known = Titles(read_items(tmp_path / "p" / "items"))
    made = build_index(written(tmp_path / "v.parquet", ["a"], drawn(1)), tmp_path / "index", name=kind, titles=known)
    close(made)
    again = load_index(tmp_path / "index")
    close(again)
    assert again.titles is not None
    assert (again.titles.image("a"), again.titles.title("a"), again.titles.whole) == ("frog.png", "a frog", frozenset())
    assert open_image(again.titles.items["a"], None).size == (40, 30)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_store_filters_as_numpy_does(stored: StoredIndex, condition: str) -> None:
    allowed = evaluate(parse(condition, COLUMNS), COLUMNS)
    scores = np.where(allowed, drawn(COUNT) @ drawn(COUNT)[0], -9)
    want = [IDS[n] for n in np.argsort(-scores, kind="stable")[: min(10, int(allowed.sum()))]]
    assert [n.id for n in search(stored, drawn(COUNT)[0], 10, SearchOptions(condition))] == want


def test_many_alternatives_are_no_problem(stored: StoredIndex) -> None:
    listed = ", ".join(f"'v{n}'" for n in range(3000))
    assert len(search(stored, drawn(1)[0], 5, SearchOptions(f"kind in ({listed}, 'x')"))) == 5


def test_more_neighbours_than_a_store_gives_are_compared(stored: StoredIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    want = search(stored, drawn(1)[0], 40, SearchOptions("price > 10"), without=["i20"])
    assert isinstance(stored.index, InStore)
    monkeypatch.setattr(type(stored.index.store), "MOST", 10)
    found = search(stored, drawn(1)[0], 40, SearchOptions("price > 10"), without=["i20"])
    assert [n.id for n in found] == [n.id for n in want]
    assert [n.score for n in found] == pytest.approx([n.score for n in want], abs=1e-5)


def test_changes_are_there_when_it_is_opened_again(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    build_index(
        written(tmp_path / "v.parquet", IDS, drawn(COUNT)), folder, name=kind, titles=titles(), facts=Facts(IDS, COLUMNS, {"category": "kind"}),
    )  # fmt: skip
    first = all_neighbours(folder, tmp_path / "n.parquet", 3)
    assert first.computed == COUNT
    new = ["i3", "new", "it's"]
    facts = Facts(new[:2], {"sort": np.array(["n", "n"], object), "size": np.array([1.0, 2.0])}, {"category": "sort"})
    named = Titles(Items([Item("new", title="brand new")]))
    more = written(tmp_path / "new.parquet", new, drawn(3, seed=1))
    with pytest.raises(BadInput, match="column price holds numbers in the index, and texts"):
        update_index(folder, more, facts=Facts(["new"], {"price": np.array(["dear"], object)}))
    done = update_index(folder, more, delete=["i4", 'a "b" \\', "i3"], titles=named, facts=facts)
    assert (done.added, done.replaced, done.deleted) == (1, 2, 2)
    after = load_index(folder)
    assert set(after.ids) == {*IDS, "new"} - {"i4", 'a "b" \\'}
    np.testing.assert_array_equal(np.stack([after.vector_of(i) for i in new]), drawn(3, seed=1))
    assert after.titles is not None
    assert [after.titles.title(i) for i in ("new", "i3")] == ["brand new", "thing 3 红色 椅子"]
    assert after.facts is not None
    assert after.facts.fields["category"] == "kind"  # a field is one column, whatever the new items' file calls it
    known = after.facts.of(["i3", "new", "it's", "i5"])
    assert known["kind"].tolist() == ["n", "n", COLUMNS["kind"][COUNT - 3], "y's"]
    np.testing.assert_array_equal(known["size"], [1, 2, np.nan, np.nan])
    assert [n.id for n in search(after, drawn(1)[0], 9, SearchOptions("size > 1"))] == ["new"]
    close(after)
    with pytest.raises(BadInput, match="of another index"):
        all_neighbours(folder, tmp_path / "n.parquet", 3)


def test_a_killed_change_is_finished_by_the_same_command(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from n2kit.index import store_building

    folder = tmp_path / "index"
    close(build_index(written(tmp_path / "v.parquet", IDS, drawn(COUNT)), folder, name=kind))
    ids = [f"i{n}" for n in range(20, 320)]
    more = written(tmp_path / "new.parquet", ids, drawn(300, seed=1))
    monkeypatch.setattr(store_building, "AT_ONCE", 100)
    finish, left = store_building.rows_of, iter([1, 1])

    def killed(*given: Any) -> Any:
        next(left)  # runs out: a StopIteration in the third piece
        return finish(*given)

    with monkeypatch.context() as patch:
        patch.setattr(store_building, "rows_of", killed)
        with pytest.raises(StopIteration):
            update_index(folder, more, delete=["i1"])
    half = load_index(folder)
    assert set(IDS) <= set(half.ids)
    close(half)
    after = update_index(folder, more, delete=["i1"]).stored
    assert set(after.ids) == {*IDS, *ids} - {"i1"}
    np.testing.assert_array_equal(np.stack([after.vector_of(i) for i in ids]), drawn(300, seed=1))
    close(after)


@pytest.mark.parametrize("search", ["ivf_flat", "hnsw"])
def test_searches_by_lists_find_most(kind: str, search: str, tmp_path: Path) -> None:
    name = {"lancedb": {"hnsw": "ivf_hnsw_sq"}}.get(kind, {}).get(search, search)
    vectors = written(tmp_path / "v.parquet", [f"i{n}" for n in range(600)], drawn(600))
    made = build_index(vectors, tmp_path / "index", name=f"{kind}:{name}")
    found = made.index.search(drawn(600), 1)[1][:, 0]
    assert (np.array([made.position[f"i{n}"] for n in range(600)]) == found).mean() > 0.95
    close(made)


def test_what_is_refused(kind: str, tmp_path: Path) -> None:
    vectors = written(tmp_path / "v.parquet", list("abcdef"), drawn(6))
    folder = tmp_path / "index"
    close(build_index(vectors, folder, name=kind))
    for options, reason in [
        ({"vectors": written(tmp_path / "other.parquet", ["x"], drawn(1), "f" * 16)}, "is of model ffff"),
        ({"vectors": written(tmp_path / "long.parquet", ["x"], 2 * drawn(1))}, "not of unit length"),
        ({"delete": ["z", "y"]}, r"'z' is not in the index \(2 such ids\)"),
        ({"delete": list("abcdef")}, "no item is left"),
    ]:
        with pytest.raises(BadInput, match=reason):
            update_index(folder, **options)  # type: ignore[arg-type]
    assert sorted(load_index(folder).ids) == list("abcdef")
    with pytest.raises(BadInput, match="exists"):
        build_index(vectors, folder, name=kind)
    close(build_index(vectors, folder, name=kind, force=True))
    (folder / "mine.txt").touch()
    with pytest.raises(BadInput, match="which n2kit did not write"):
        build_index(vectors, folder, name=kind, force=True)


def test_a_deletion_that_was_cut_short_is_finished_by_the_same_command(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    close(build_index(written(tmp_path / "v.parquet", list("abcdef"), drawn(6)), folder, name=kind))
    close(update_index(folder, delete=["a", "b"]).stored)  # the part that was done
    done = update_index(folder, delete=["a", "b", "c"])
    close(done.stored)
    assert (done.deleted, sorted(done.stored.ids)) == (1, list("def"))


@pytest.mark.parametrize("damage", ["store", "manifest"])
def test_a_damaged_store_is_said_to_be_so(kind: str, damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    close(build_index(written(tmp_path / "v.parquet", list("abcdef"), drawn(6)), folder, name=kind))
    if damage == "store":
        (folder / "store").rename(tmp_path / "gone")
    else:
        content = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(content | {"width": "wide"}))
    with pytest.raises(BadInput):
        load_index(folder)


def test_a_missing_package_is_named_with_its_pip_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from n2kit.index import choose_index
    from n2kit.plugins import manager

    monkeypatch.setattr(manager, "_installed", lambda name: None)
    with pytest.raises(Unavailable) as found:
        choose_index(kind)
    assert f"n2kit[{kind}]" in str(found.value.hint)


def test_words_find_titles(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    folder = tmp_path / "index"
    build_index(
        written(tmp_path / "v.parquet", IDS, drawn(COUNT)), folder, name="lancedb", titles=titles(), facts=Facts(IDS, COLUMNS)
    )  # fmt: skip
    stored = load_index(folder)
    assert match(stored, "thing 77", 1)[0].id == "i77"
    assert len(match(stored, "椅子", 5)) == 5
    assert {n.id for n in match(stored, "thing", COUNT, "price < 3")} == {"i1", "i2"}
    new = written(tmp_path / "new.parquet", ["new"], drawn(1))
    update_index(folder, new, titles=Titles(Items([Item("new", title="a crimson lamp")])), delete=["i77"])
    stored = load_index(folder)
    assert [n.id for n in match(stored, "crimson", 5)] == ["new"]
    assert "i77" not in {n.id for n in match(stored, "thing 77", COUNT)}
    with pytest.raises(BadInput, match="no words"):
        match(stored, " ", 5)
    flat = build_index(new, tmp_path / "flat")
    with pytest.raises(BadInput, match="index flat finds no words"):
        match(flat, "thing", 5)


def test_a_table_elsewhere_is_named_by_its_url(cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    vectors = written(tmp_path / "v.parquet", list("abcdef"), drawn(6))
    elsewhere = f"index.url={(tmp_path / 'bucket').as_uri()}"
    (tmp_path / "bucket").mkdir()
    made = ("index", vectors, "--type", "lancedb", "--set", elsewhere)
    done = cli(*made, "-o", tmp_path / "one")
    assert done.code == 0, done.err
    assert [file.name for file in (tmp_path / "one").rglob("*") if file.is_file()] == ["manifest.json"]
    assert sorted(load_index(tmp_path / "one").ids) == list("abcdef")
    again = cli(*made, "-o", tmp_path / "two")
    assert (again.code, "there is a table items" in again.err) == (2, True), again.err
    assert cli(*made, "-o", tmp_path / "two", "--set", "index.table=others").code == 0
    assert cli(*made, "-o", tmp_path / "one", "--force").code == 0


def test_a_scalar_index_on_the_ids_is_refused(tmp_path: Path) -> None:
    """With one, LanceDB may lose updates (#3177, #3515)."""
    lancedb = pytest.importorskip("lancedb")
    folder = tmp_path / "index"
    build_index(written(tmp_path / "v.parquet", IDS, drawn(COUNT)), folder, name="lancedb")
    table = lancedb.connect(str(folder / "store")).open_table("items")
    table.create_scalar_index("id")
    with pytest.raises(BadInput, match="a scalar index id_idx on its ids"):
        update_index(folder, written(tmp_path / "new.parquet", ["i1"], drawn(1, seed=1)))
    table.drop_index("id_idx")
    assert update_index(folder, written(tmp_path / "new.parquet", ["i1"], drawn(1, seed=1))).replaced == 1


def test_a_file_of_milvus_that_a_server_holds_is_answered_with_its_routes(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pymilvus = pytest.importorskip("pymilvus")

    def taken(*_: Any, **__: Any) -> None:
        raise pymilvus.MilvusException(message="another process")

    monkeypatch.setattr(pymilvus, "MilvusClient", taken)
    vectors = written(tmp_path / "v.parquet", IDS, drawn(COUNT))
    done = cli("index", vectors, "-o", tmp_path / "index", "--type", "milvus")
    assert (done.code, "POST and DELETE /v1/items" in done.err) == (3, True), done.err


def test_a_milvus_that_is_not_there_is_named(cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    vectors = written(tmp_path / "v.parquet", list("abcdef"), drawn(6))
    done = cli("index", vectors, "-o", tmp_path / "index", "--type", "milvus", "--set", "index.url=http://127.0.0.1:9")
    assert (done.code, "http://127.0.0.1:9 cannot be reached" in done.err) == (3, True), done.err
    assert not (tmp_path / "index").exists()


def test_the_command_line(kind: str, cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    given = ("--items", "items.jsonl", "--images", "images")
    assert cli("embed", tiny_bundle, *given, "-o", tmp_path / "v.parquet").code == 0
    index = tmp_path / "index"
    done = cli("index", tmp_path / "v.parquet", "-o", index, "--type", kind, *given, "--json")
    assert done.code == 0, done.err
    count = json.loads(done.out)["items"]
    near = cli("recommend", "--index", index, "--id", "noto:3", "-k", "4", "--where", "title != 'thing 3'", "--json")
    assert len(json.loads(near.out)["neighbours"]) == 4, near.err
    (tmp_path / "gone.txt").write_text("noto:3\n")
    changed = json.loads(cli("index", "-o", index, "--delete", tmp_path / "gone.txt", "--json").out)
    assert (changed["items"], changed["deleted"]) == (count - 1, 1)
    all_of_them = cli("neighbours", index, "-k", "3", "--exclude-same", "title", "-o", tmp_path / "n.parquet", "--json")
    assert json.loads(all_of_them.out)["items"] == count - 1, all_of_them.err
    words = cli("recommend", "--index", index, "--words", "thing 4", "-k", "2", "--json")
    if kind == "lancedb":
        assert "thing 4" in {n["title"] for n in json.loads(words.out)["neighbours"]}, words.err
    else:
        assert (words.code, "index milvus finds no words" in words.err) == (2, True), words.err
    assert cli("export", index, tmp_path / "v2.parquet", "--to", "parquet").code == 0


def test_a_server_writes_items_into_a_store_while_it_answers(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    from n2kit.serve.changes import Change, write_changes

    folder = tmp_path / "index"
    close(build_index(written(tmp_path / "v.parquet", list("abcdef"), drawn(6)), folder, name=kind))
    served = load_index(folder)
    new = Item("g", title="taken by the server", content="all of it", category="c", image="data:image/png;base64,AA==")
    after = write_changes(folder, served, [Change("g", new, drawn(1, seed=1)[0]), Change("a")])
    assert served.near_item("b", 9)[0].id in set("acdef")  # the old one answers on
    assert sorted(after.ids) == list("bcdefg")
    for found in (after, load_index(folder)):
        assert found.titles is not None
        assert found.titles.items["g"].content == "all of it"
        assert found.titles.whole == {"g"}
        close(found)
    plain = Item("g", title="oak")
    for columns in (
        {"price": 7, "shelf": "a"},
        {},
        {"price": "8", "shelf": 8},
    ):  # without items, too, a column keeps its type
        after = write_changes(folder, after, [Change("g", plain, drawn(1)[0], columns)])
    assert after.facts is not None
    assert {name: column[0] for name, column in after.facts.of(["g"]).items()} == {
        "category": "",
        "price": 8.0,
        "shelf": "8",
    }
    close(after)
    close(served)


def test_tables_of_an_object_store_are_listed_by_its_own_tokens() -> None:
    """A table's name is no token there: S3 refuses it."""
    from n2kit_lancedb.store import _names

    class Database:
        pages: ClassVar = {None: (["a", "b"], "opaque"), "opaque": (["c"], None)}

        def list_tables(self, page_token: str | None) -> Any:
            tables, token = self.pages[page_token]
            return SimpleNamespace(tables=tables, page_token=token)

    assert _names(Database()) == set("abc")
