"""n2kit serve: embeddings in every shape, recommendations, items put in and out, limits, and what a stranger may not do."""

from __future__ import annotations

import base64
import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="n2kit[serve] is not installed")

import n2kit
from n2kit.errors import BadInput
from n2kit.serve import ServeOptions
from n2kit.serve.batching import Batcher, Closed
from serving import Live, live


@pytest.fixture(scope="module")
def options(workspace: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> ServeOptions:
    """An index of the workspace's items, with the model that made it."""
    items, images = n2kit.read_items(workspace / "items.jsonl"), workspace / "images"
    folder = tmp_path_factory.mktemp("serve")
    vectors = n2kit.embed(tiny_bundle, items, images=images)
    n2kit.Index.build(vectors, items=items, images=images).save(folder / "main.index")
    return ServeOptions({"main": folder / "main.index"}, (tiny_bundle,), items, images, folder / "votes.csv", "cpu")


@pytest.fixture
def own(options: ServeOptions, tmp_path: Path) -> ServeOptions:
    """The same, of an index that may change."""
    n2kit.Index.load(options.indexes["main"]).save(tmp_path / "own.index")
    return replace(options, indexes={"main": tmp_path / "own.index"})


@pytest.fixture(scope="module")
def server(options: ServeOptions) -> Iterator[Live]:
    with live(options) as running:
        yield running


def data_uri(workspace: Path, name: str = "noto_3.png") -> str:
    return f"data:image/png;base64,{base64.b64encode((workspace / 'images' / name).read_bytes()).decode()}"


def test_every_shape_of_a_text_an_image_and_both_gives_the_models_own_vectors(
    server: Live, workspace: Path, tiny_bundle: Path
) -> None:
    """OpenAI, Jina, vLLM, Infinity, n2kit's own."""
    uri, png = data_uri(workspace), (workspace / "images" / "noto_3.png").read_bytes()
    text, image, both = n2kit.load(tiny_bundle).encode(
        [{"title": "oak"}, {"image": png}, {"title": "oak", "image": png}]
    )
    user = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "oak"}]
    shapes: list[tuple[dict[str, Any], list[np.ndarray]]] = [
        ({"input": "oak"}, [text]),
        ({"input": ["oak", "oak"]}, [text, text]),
        ({"input": [{"text": "oak"}, {"image": uri}, {"text": "oak", "image": uri}]}, [text, image, both]),
        ({"input": [{"image": uri.partition(",")[2]}]}, [image]),
        ({"messages": [{"role": "user", "content": user}]}, [both]),
        ({"messages": [{"role": "user", "content": "oak"}]}, [text]),
        ({"input": [uri], "modality": "image"}, [image]),
        ({"items": [{"title": "oak", "image": uri}], "model": "tiny"}, [both]),
    ]
    for asked, wanted in shapes:
        status, body, _ = server("/v1/embeddings", asked)
        assert status == 200, (asked, body)
        found = np.array([row["embedding"] for row in body["data"]])
        assert np.abs(found - np.stack(wanted)).max() < 1e-5, asked
        assert body["usage"]["prompt_tokens"] > 0


def test_base64_and_bits_are_the_same_vector(server: Live) -> None:
    def ask(**more: str) -> Any:
        return server("/v1/embeddings", {"input": "oak"} | more).body["data"][0]["embedding"]

    vector = np.array(ask(), dtype=np.float32)
    assert np.array_equal(np.frombuffer(base64.b64decode(ask(encoding_format="base64")), np.float32), vector)
    bits = np.unpackbits(np.array(ask(embedding_type="ubinary"), np.uint8))
    assert np.array_equal(bits.astype(bool), vector > 0)
    assert np.array_equal(np.array(ask(embedding_type="binary"), np.int8).view(np.uint8), np.packbits(vector > 0))


def test_the_official_client_of_openai_works(server: Live) -> None:
    openai = pytest.importorskip("openai", reason="the openai client is not installed")
    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)
    done = client.embeddings.create(model="tiny", input=["oak chair", "lamp"])
    assert [len(row.embedding) for row in done.data] == [16, 16]
    assert [model.id for model in client.models.list()] == ["tiny"]
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.embeddings.create(model="gpt", input="oak")
    with pytest.raises(openai.BadRequestError, match="dimensions 8: the model was trained for 16"):
        client.embeddings.create(model="tiny", input="oak", dimensions=8)


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({}, 400, "give one of input, messages and items"),
        ({"input": []}, 400, "input is empty"),
        ({"input": [" "]}, 400, "input.0 is empty"),
        ({"input": [[1, 2]]}, 400, "token ids"),
        ({"input": ["oak", "data:image/png;base64,AAAA"]}, 400, "input.1: a picture in place of a text"),
        ({"input": "a", "wise": 1}, 400, "wise"),
        ({"input": "a", "normalized": False}, 400, "normalized"),
        ({"input": ["a"] * 257}, 413, "257 inputs, at most 256"),
        ({"items": [{"titel": "a"}]}, 400, "did you mean title"),
        ({"items": [{"category": "x"}]}, 400, "neither an image nor a text"),
        ({"input": [{"image": "noto_3.png"}]}, 400, "paths mean nothing to the server"),
        ({"input": [{"image": "/etc/passwd"}]}, 400, "paths mean nothing|not an image"),
        ({"input": [{"image": "file:///etc/passwd"}]}, 400, "paths mean nothing"),
        ({"input": [{"image": f"content:{'0' * 64}"}]}, 400, "paths mean nothing"),
        ({"input": [{"image": "data:image/svg+xml;base64,PHN2Zy8+"}]}, 400, "not an image of a format that is read"),
        ({"input": [{"image": "http://127.0.0.1:1/a.png"}]}, 400, "images of this host are not fetched"),
        ({"messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "a"}]}, 400, "the model's own prompt"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 400, "a part of type 'input_audio'"),
    ],
)  # fmt: skip
def test_what_cannot_be_embedded_is_said_in_openais_form(server: Live, asked: Any, status: int, says: str) -> None:
    import re

    answer = server("/v1/embeddings", asked)
    assert answer.status == status, answer.body
    assert re.search(says, answer.body["error"]["message"])


def bomb(side: int) -> str:
    """A PNG of side × side white pixels in a few kilobytes, or what claims to be one."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def test_decompression_bombs_and_half_images_are_refused(server: Live) -> None:
    from PIL import Image

    for side in (8000, 60_000):
        answer = server("/v1/embeddings", {"input": [{"image": bomb(side)}]})
        assert (answer.status, "more than 50,000,000 pixels" in answer.body["error"]["message"]) == (400, True)
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(file, "PNG")
    half = base64.b64encode(file.getvalue()[:9000]).decode()
    answer = server("/v1/embeddings", {"input": [{"image": half}, "a text"]})
    assert answer.status == 400
    assert "item 'input.0'" in answer.body["error"]["message"]


def test_an_allowed_host_that_is_private_is_refused_all_the_same(options: ServeOptions) -> None:
    with live(options, image_hosts=("127.0.0.1:1", "localhost:1")) as server:
        for host in ("127.0.0.1", "localhost"):
            answer = server("/v1/embeddings", {"input": [{"image": f"http://{host}:1/a.png"}]})
            assert answer.status == 400
        listening = server.address.removeprefix("http://")
    with live(options) as other, live(options, image_hosts=(other.address.removeprefix("http://"),)) as server:
        assert listening
        answer = server("/v1/embeddings", {"input": [{"image": f"{other.address}/v1/image?id=noto:1f600"}]})
        assert "private address" in answer.body["error"]["message"]


def test_an_image_of_an_allowed_host_is_fetched_and_a_redirect_elsewhere_is_not(server: Live, workspace: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from n2kit.data.fetch import fetch_image

    class Images(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302 if "away" in self.path else 200)
            self.send_header("Location", f"{server.address}/v1/image?id=noto:1f600")
            self.end_headers()
            self.wfile.write(b"picture")

        def log_message(self, *_: Any) -> None:
            pass

    web = HTTPServer(("127.0.0.1", 0), Images)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{web.server_port}"
    assert fetch_image(f"http://{host}/a.png", [host], private=True) == b"picture"
    with pytest.raises(BadInput, match="images of this host are not fetched"):
        fetch_image(f"http://{host}/away.png", [host], private=True)
    with pytest.raises(BadInput, match="larger than"):
        fetch_image(f"http://{host}/a.png", [host], private=True, max_bytes=3)
    web.shutdown()
    web.server_close()


def ids(answer: Any) -> list[str]:
    assert answer.status == 200, answer.body
    return [n["id"] for n in answer.body["neighbours"]]


def test_neighbours_are_those_of_the_index(
    server: Live, options: ServeOptions, workspace: Path, tiny_bundle: Path
) -> None:
    folder = options.indexes["main"]
    wanted = [r.id for r in n2kit.recommend(folder, "noto:3", k=5)]
    assert ids(server("/v1/recommend", {"id": "noto:3", "k": 5})) == wanted
    new = {"title": "thing 3", "image": data_uri(workspace)}
    given = {"title": "thing 3", "image": (workspace / "images" / "noto_3.png").read_bytes()}
    assert ids(server("/v1/recommend", {"item": new, "k": 5})) == [
        r.id for r in n2kit.recommend(folder, given, model=tiny_bundle, k=5)
    ]
    both = ids(server("/v1/recommend", {"ids": ["noto:3", "noto:4"], "k": 24}))
    assert len(both) == 22
    assert not {"noto:3", "noto:4"} & set(both)


def test_an_upload_finds_what_its_picture_finds(server: Live, workspace: Path) -> None:
    picture = (workspace / "images" / "noto_3.png").read_bytes()
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + picture,
        b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"k": 3}',
        b"--b--\r\n",
    ]
    answer = server(
        "/v1/recommend/upload", b"\r\n".join(parts), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert ids(answer) == ids(server("/v1/recommend", {"item": {"image": data_uri(workspace)}, "k": 3}))


def test_filters_folds_and_diversity(server: Live) -> None:
    every = ids(server("/v1/recommend", {"id": "noto:3", "k": 23}))
    assert ids(server("/v1/recommend", {"id": "noto:3", "filter": {"category": "x"}, "k": 23})) == every
    assert ids(server("/v1/recommend", {"id": "noto:3", "filter": {"category": ["y"]}})) == []
    assert ids(server("/v1/recommend", {"id": "noto:3", "exclude": every[:2], "k": 3})) == every[2:5]
    folded = server("/v1/recommend", {"id": "noto:3", "k": 23, "fold": 0.999}).body["neighbours"]
    assert sorted([*(n["id"] for n in folded), *(i for n in folded for i in n["folded"])]) == sorted(every)
    (best,) = ids(server("/v1/recommend", {"id": "noto:3", "k": 1, "fold": 0.0}))
    assert best == every[0]
    diverse = ids(server("/v1/recommend", {"id": "noto:3", "k": 5, "diversify": 0.9}))
    assert diverse[0] == every[0]
    assert diverse != every[:5]


def test_a_view_is_the_query_by_its_text_or_picture_alone(
    server: Live, options: ServeOptions, workspace: Path, tiny_bundle: Path
) -> None:
    model = n2kit.load(tiny_bundle)
    text = model.encode([{"title": "thing 3", "topics": ["topic3"], "category": "x"}])[0]
    wanted = [r.id for r in n2kit.recommend(options.indexes["main"], text, k=24) if r.id != "noto:3"]
    answer = server("/v1/recommend", {"id": "noto:3", "view": "text", "k": 23, "explain": True})
    assert ids(answer) == wanted
    why = answer.body["neighbours"][4]["why"]
    assert why["text"]["rank"] == 5
    assert why.keys() == {"multimodal", "text", "image"}
    nothing = server("/v1/recommend", {"item": {"title": "oak"}, "view": "image"})
    assert (nothing.status, nothing.body["error"]["message"]) == (422, "item 'item 0' has no picture")


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({}, 400, "give id, ids, item or items"),
        ({"id": "noto:33"}, 404, "did you mean noto:3"),
        ({"id": "noto:3", "k": 0}, 400, "k: "),
        ({"id": "noto:3", "index": "other"}, 404, "there are: main"),
        ({"id": "noto:3", "filter": {"colour": "x"}}, 400, "filter"),
        ({"id": "noto:3", "where": "colour = 'x'"}, 400, "where: no column colour"),
    ],
)
def test_what_cannot_be_recommended_is_said(server: Live, asked: Any, status: int, says: str) -> None:
    answer = server("/v1/recommend", asked)
    assert answer.status == status
    assert says in answer.body["error"]["message"]


def test_items_are_put_in_replaced_and_taken_out_and_a_new_server_has_them_so(
    own: ServeOptions, workspace: Path
) -> None:
    uri, new = data_uri(workspace), {"title": "thing 3", "topics": ["topic3"], "category": "it's new"}
    with live(own) as server:
        assert server("/v1/items", {"items": [{"title": "no id"}]}).status == 400
        put = server("/v1/items", {"items": [{"id": "new", "image": uri} | new]})
        assert (put.status, put.body["items"]) == (200, 25), put.body
        assert set(ids(server("/v1/recommend", {"id": "noto:3", "k": 2}))) == {"new", "twemoji:3"}  # both are alike
        server("/v1/items", {"items": [{"id": "noto:3", "title": "something else", "content": "a text"}]})
        before = server("/v1/recommend", {"id": "new", "k": 23}).body
    with live(own) as server:
        assert server("/v1/recommend", {"id": "new", "k": 23}).body == before
        assert server("/v1/items?id=noto:3").body["items"][0]["content"] == "a text"
        shown = server("/v1/items?id=new").body["items"][0]
        assert shown == {"id": "new", "content": "", "picture": True, "columns": {}} | new
        assert server("/v1/image?id=new").headers["content-type"] == "image/webp"
        assert ids(server("/v1/recommend", {"id": "new", "view": "image", "k": 3}))
        found = server("/v1/recommend", {"id": "noto:4", "filter": {"category": "it's new"}})
        assert (ids(found), "note" in found.body) == (["new"], False)
        found = server("/v1/recommend", {"id": "noto:4", "filter": {"category": "its new"}})
        assert found.body["note"].endswith("no item has category = 'its new' (did you mean it's new?)"), found.body
        assert ids(server("/v1/recommend", {"id": "noto:4", "where": "category != 'x'"})) == ["new"]
        assert server("/v1/catalogue").body["indexes"][0]["categories"] == {"x": 23, "it's new": 1}
        gone = server("/v1/items?id=new&id=noto:3", method="DELETE")
        assert gone.body["items"] == 23
        assert server("/v1/recommend", {"id": "noto:3"}).status == 404
    with live(own) as server:
        assert not {"new", "noto:3"} & set(ids(server("/v1/recommend", {"id": "noto:4", "k": 30})))
        for item in server("/v1/items?limit=200").body["items"][1:]:
            assert server(f"/v1/items?id={item['id']}", method="DELETE").status == 200
        last = server("/v1/items").body["items"]
        refused = server(f"/v1/items?id={last[0]['id']}", method="DELETE")
        assert (refused.status, len(last)) == (400, 1)
        assert "no item is left" in refused.body["error"]["message"]


def test_every_route_works_on_the_index_that_is_named_and_says_which(own: ServeOptions, tmp_path: Path) -> None:
    n2kit.Index.load(own.indexes["main"]).save(tmp_path / "b.index")
    item, vote = {"items": [{"id": "new", "title": "oak"}]}, {"query": "noto:4", "target": "noto:3", "vote": 1}
    with live(own, indexes={**own.indexes, "b": tmp_path / "b.index"}) as server:
        for path, body in (
            ("/v1/items", item), ("/v1/items?limit=1", None), ("/v1/items?id=new", None), ("/v1/map", None), ("/v1/recommend", {"id": "new"}),
            ("/v1/feedback", vote), ("/v1/items?id=new", "DELETE"),
        ):  # fmt: skip
            ask = {"method": "DELETE"} if body == "DELETE" else {"body": body}
            mark = "&" if "?" in path else "?"
            found = server(f"{path}{mark}index=b", **ask)
            assert (found.status, found.body["index"]) == (200, "b"), path
            assert server(f"{path}{mark}index=c", **ask).status == 404, path
            odd = server(f"{path}{mark}inedx=b", **ask)
            assert (odd.status, "did you mean index" in odd.body["error"]["message"]) == (400, True), path
            if isinstance(body, dict):
                assert server(path, body | {"index": "b"}).body["index"] == "b"
                assert server(f"{path}?index=b", body | {"index": "main"}).status == 400
        assert len(server.state.catalogues["main"]) == len(server.state.catalogues["b"])
    for folder in (own.indexes["main"], tmp_path / "b.index"):
        assert "new" not in n2kit.Index.load(folder).stored.ids


def test_columns_of_ones_own_are_put_in_checked_and_found_by_a_new_server(
    own: ServeOptions, workspace: Path, cli: Any
) -> None:
    from n2kit.embed.vectors_file import Vectors, write_table
    from n2kit.index import load_index

    def put(**columns: Any) -> Any:
        return server("/v1/items", {"items": [{"id": "new", "title": "oak", "category": "x"} | columns]})

    with live(own) as server:
        made = put(price=12.5, shelf="007")
        assert (made.status, made.body["new_columns"]) == (200, ["price", "shelf", "category"])
        for columns, says in (
            ({"price": "cheap"}, "item 'new': column 'price' holds numbers, and 'cheap' is none"),
            ({"price": float("inf")}, "column 'price' is neither a text nor a number"),
            ({"price": "inf"}, "column 'price' holds numbers, and 'inf' is none"),
            ({"shelf": True}, "item 'new': column 'shelf' holds texts, and true is none"),
            ({"shelf": ["a"]}, "items.0: column 'shelf' is neither a text nor a number"),
            ({"shelf": "a" * 201}, "more than 200 characters"),
            ({"titel": "oak"}, "did you mean title?"),
        ):
            refused = put(**columns)
            assert (refused.status, says in refused.body["error"]["message"]) == (400, True), refused.body
        assert put(price="7", shelf=7.0).body["new_columns"] == []
    with live(own) as server:
        assert server("/v1/items?id=new").body["items"][0]["columns"] == {"price": 7.0, "shelf": "7"}
        assert ids(server("/v1/recommend", {"id": "noto:4", "where": "price < 10 and shelf = '7'"})) == ["new"]
        found = server("/v1/recommend", {"id": "noto:4", "where": "price >= 10"})
        assert (ids(found), found.body["note"]) == ([], "the condition leaves nothing: no item has price >= 10")
        found = server("/v1/recommend", {"id": "new", "where": "price < 10"})
        assert found.body["note"] == "the condition leaves nothing but the items that are asked for or excluded"
        assert put().status == 200  # whole: what is not given is there no longer
        assert ids(server("/v1/recommend", {"id": "noto:4", "where": "price > 0 or shelf != ''"})) == []
        for price, found in (("12 €", "price = '12 €'"), (12.5, "price > 12")):  # a column without items is of any type
            assert put(price=price).body["new_columns"] == []
            assert ids(server("/v1/recommend", {"id": "noto:4", "where": found})) == ["new"]
            assert put().status == 200
    (workspace / "more.jsonl").write_text('{"id": "noto:4", "shelf": "008", "price": 3}')
    vectors = workspace / "more.parquet"
    stored = load_index(own.indexes["main"])
    write_table(Vectors(["noto:4"], stored.vector_of("noto:4")[None], stored.fingerprint), vectors)
    upsert = ("index", vectors, "-o", own.indexes["main"], "--upsert", "--items")
    assert cli(*upsert, workspace / "more.jsonl").code == 0
    facts = load_index(own.indexes["main"]).facts
    assert facts is not None
    assert facts.of(["noto:4"])["shelf"].tolist() == ["008"]
    (workspace / "more.jsonl").write_text('{"id": "noto:4", "price": "dear"}')
    refused = cli(*upsert, workspace / "more.jsonl")
    assert (refused.code, "column price holds numbers in the index" in refused.err) == (2, True)


def test_a_field_goes_to_the_column_that_the_catalogue_has_it_in(own: ServeOptions, tmp_path: Path, cli: Any) -> None:
    from n2kit.embed.vectors_file import Vectors, write_table
    from n2kit.index import load_index

    stored, folder = load_index(own.indexes["main"]), tmp_path / "mapped.index"
    vectors = tmp_path / "v.parquet"
    write_table(Vectors(["noto:4"], stored.vector_of("noto:4")[None], stored.fingerprint), vectors)
    (tmp_path / "waren.csv").write_text("id,Ware,Kategorie\nnoto:4,Stuhl,alt\n")
    mapped = ("--items", tmp_path / "waren.csv", "--map", "category=Kategorie", "--map", "title=Ware")
    assert cli("index", vectors, "-o", folder, *mapped).code == 0
    with live(own, indexes={"main": folder}, items=None, images=None) as server:

        def put(item_id: str, **item: Any) -> Any:
            return server("/v1/items", {"items": [{"id": item_id} | item]})

        assert put("a", title="oak", category="new", price=3).body["new_columns"] == ["price"]
        assert put("b", Ware="oak", Kategorie="new").body["new_columns"] == []
        both = put("c", title="oak", Kategorie="new", category="new").body["error"]["message"]
        assert "'Kategorie' and 'category' are both its category" in both
        for asked in ({"filter": {"category": "new"}}, {"where": "Kategorie = 'new' and Ware = 'oak'"}):
            assert sorted(ids(server("/v1/recommend", {"id": "noto:4"} | asked))) == ["a", "b"]
        shown = server("/v1/items?id=a&id=b").body["items"]
        assert [(one["title"], one["columns"]) for one in shown] == [("oak", {"price": 3.0}), ("oak", {})]
        assert server("/v1/catalogue").body["indexes"][0]["categories"] == {"new": 2, "alt": 1}
    (tmp_path / "more.csv").write_text("id,name,category\nnoto:4,Hocker,neu\n")
    assert cli("index", vectors, "-o", folder, "--upsert", "--items", tmp_path / "more.csv").code == 0
    facts = load_index(folder).facts
    assert facts is not None
    assert list(facts.columns) == ["Ware", "Kategorie", "price"]
    assert (facts.of(["noto:4"])["Kategorie"][0], facts.of(["noto:4"])["Ware"][0]) == ("neu", "Hocker")


def test_a_category_is_a_column_as_the_index_has_it() -> None:
    """Of numbers, of texts, or none; and none is made where no item has a category."""
    from n2kit.index.facts import Facts
    from n2kit.serve.columns import facts_of
    from n2kit.serve.problems import Problem

    def made(known: dict[str, Any], category: str) -> Any:
        facts = facts_of({"new": {}}, [category], Facts(["old"], {n: np.array(v) for n, v in known.items()}))
        assert facts is not None
        return {name: (column.dtype.kind, column.tolist()) for name, column in facts.columns.items()}

    assert made({"category": [3.0]}, "7") == {"category": ("f", [7.0])}
    assert made({"category": np.array(["x"], object)}, "7") == {"category": ("O", ["7"])}
    assert made({"price": [1.5]}, "x")["category"] == ("O", ["x"])
    assert list(made({"price": [1.5]}, "")) == ["price"]
    with pytest.raises(Problem, match="'category' holds numbers, and 'oak' is none"):
        made({"category": [3.0]}, "oak")


def test_changes_of_many_clients_are_all_kept_and_none_suffers_from_another(own: ServeOptions, tmp_path: Path) -> None:
    with live(own) as server, ThreadPoolExecutor(8) as pool:
        put = [pool.submit(server, "/v1/items", {"items": [{"id": f"n{n}", "title": f"oak {n}"}]}) for n in range(16)]
        assert {done.result().status for done in put} == {200}
        held, write = threading.Event(), server.state._changes["main"]._work
        server.state._changes["main"]._work = lambda changes: held.wait(20) and write(changes)  # type: ignore[assignment,return-value]
        first = pool.submit(server, "/v1/items?id=n0", method="DELETE")
        while server.state._changes["main"].waiting or not server.state.catalogues:
            time.sleep(0.01)
        later = [pool.submit(server, f"/v1/items?id=n{n}", method="DELETE") for n in (1, 2, 3)]
        held.set()
        assert {done.result().status for done in [first, *later]} == {200}
        assert len(ids(server("/v1/recommend", {"id": "n5", "k": 40}))) == 24 + 16 - 4 - 1
    assert set(n2kit.Index.load(own.indexes["main"]).stored.ids) >= {f"n{n}" for n in range(4, 16)}


def test_the_command_line_finds_what_a_server_was_given(own: ServeOptions, workspace: Path, tiny_bundle: Path) -> None:
    with live(own) as server:
        server("/v1/items", {"items": [{"id": "new", "title": "oak chair", "image": data_uri(workspace)}]})
    found = n2kit.recommend(own.indexes["main"], {"title": "oak chair"}, model=tiny_bundle, k=25)
    assert next(r.title for r in found if r.id == "new") == "oak chair"


def test_an_index_is_read_only_where_it_is_asked_for_strangers_may_call_or_its_folder_cannot_be_written(
    options: ServeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    from n2kit.serve.state import State

    said: list[str] = []
    with live(options, read_only=True) as server:
        assert server("/v1/catalogue").body["indexes"][0]["read_only"] == "--read-only"
        for refused in (
            server("/v1/items", {"items": [{"id": "n", "title": "a"}]}),
            server("/v1/items?id=noto:3", method="DELETE"),
        ):
            assert (refused.status, "main is read-only" in refused.body["error"]["message"]) == (403, True)
    no_bundle = replace(options, bundles=(), feedback=None)
    State(replace(no_bundle, host="0.0.0.0"), said.append).close()
    assert "main is read-only: anybody who reaches 0.0.0.0 could change it: --api-key" in said
    monkeypatch.setattr(
        tempfile, "mkdtemp", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    State(no_bundle, said.append).close()
    assert "cannot be written: Permission denied" in said[-2]


def test_a_reload_shows_a_new_index_keeps_the_old_one_if_it_cannot_and_drops_no_request(
    options: ServeOptions, workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    items, images = n2kit.read_items(workspace / "items.jsonl"), workspace / "images"
    vectors = n2kit.embed(tiny_bundle, items.items[:12], images=images)
    n2kit.Index.build(vectors).save(tmp_path / "i")
    with live(options, indexes={"main": tmp_path / "i"}) as server, ThreadPoolExecutor(8) as pool:
        assert server("/v1/catalogue").body["indexes"][0]["items"] == 12
        asking = [pool.submit(server, "/v1/recommend", {"id": items.items[0].id, "k": 3}) for _ in range(100)]
        n2kit.Index.load(options.indexes["main"]).save(tmp_path / "i", force=True)
        reloaded = server("/v1/reload", {})
        assert (reloaded.status, reloaded.body) == (200, {"items": {"main": 24}})
        assert {done.result().status for done in asking} == {200}
        (tmp_path / "i" / "ids.json").write_text("[]")
        assert server("/v1/reload", {}).status == 400
        assert server("/v1/catalogue").body["indexes"][0]["items"] == 24
        assert b'n2kit_reloads_total{outcome="failed"} 1.0' in server("/metrics").body


def test_votes_become_pairs_with_hard_negatives_that_training_reads(options: ServeOptions, tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    with live(options, feedback=file) as server:

        def vote(query: str, target: str, vote: int) -> Any:
            return server("/v1/feedback", {"query": query, "target": target, "vote": vote})

        assert vote("noto:3", "twemoji:5", -1).body == {"index": "main", "up": 0, "down": 1, "waiting": 1}
        assert not file.exists()
        vote("noto:3", "twemoji:3", 1)
        vote("noto:4", "twemoji:4", 1)
        assert vote("twemoji:4", "noto:4", 0).body == {"index": "main", "up": 1, "down": 1, "waiting": 0}
        assert vote("noto:3", "nobody", 1).status == 404
        assert vote("noto:3", "noto:3", 1).status == 400
        assert server("/v1/feedback?query=twemoji:3").body["votes"] == {"noto:3": 1}
    from n2kit.data.pairs import read_pairs

    pairs = read_pairs(file, options.items, negatives=True)
    assert (list(pairs), pairs.negatives) == ([("noto:3", "twemoji:3")], {("noto:3", "twemoji:3"): ("twemoji:5",)})
    with live(options, feedback=file) as server:  # goes on where it was
        assert server("/v1/catalogue").body["feedback"] == {"up": 1, "down": 1, "waiting": 0}
    (tmp_path / "mine.csv").write_text("query,target\n")
    with pytest.raises(BadInput, match="its votes are not beside it"), live(options, feedback=tmp_path / "mine.csv"):
        pass


def test_a_key_is_asked_for_where_there_is_one(options: ServeOptions) -> None:
    with live(options, api_key="secret") as server:
        assert server("/health").status == 200
        assert server("/").status == 200
        for path in ("/v1/models", "/v1/catalogue", "/metrics", "/openapi.json"):
            assert server(path).status == 401, path
            assert server(path, headers={"Authorization": "Bearer secre"}).status == 401
            assert server(path, headers={"Authorization": "Bearer secret"}).status == 200


def test_pages_of_strangers_may_not_call(server: Live, options: ServeOptions) -> None:
    body, here = {"id": "noto:4"}, server.address
    assert server("/v1/recommend", body, headers={"Origin": "http://evil.example"}).status == 403
    assert server("/v1/recommend", body, headers={"Origin": here}).status == 200
    assert server("/v1/recommend", b'{"id": "noto:4"}', headers={"Content-Type": "text/plain"}).status == 400
    assert server("/health", headers={"Host": "rebound.example"}).status == 400
    assert "access-control-allow-origin" not in server("/v1/models", headers={"Origin": "http://evil.example"}).headers
    with live(options, origins=("http://shop.example",)) as other:
        answer = other("/v1/recommend", body, headers={"Origin": "http://shop.example"})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "http://shop.example")


def test_too_many_and_too_much_are_refused(options: ServeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    with live(options, max_concurrent=2, max_body=2000) as server, ThreadPoolExecutor(6) as pool:
        engine = next(iter(server.state.engines.values()))
        held, slow = threading.Event(), engine.batcher._work
        monkeypatch.setattr(engine.batcher, "_work", lambda items: held.wait(20) and slow(items))
        asking = [pool.submit(server, "/v1/embeddings", {"input": f"oak {n}"}) for n in range(6)]
        while sum(one.done() for one in asking) < 4:
            time.sleep(0.01)
        assert server("/health").status == 200
        held.set()
        answers = [one.result() for one in asking]
        assert sorted(a.status for a in answers) == [200, 200, 429, 429, 429, 429]
        assert next(a for a in answers if a.status == 429).headers["retry-after"] == "1"
        assert server("/v1/embeddings", {"input": "x" * 3000}).status == 413
        assert b"n2kit_refused_total 4.0" in server("/metrics").body


def test_a_server_without_a_model_answers_for_its_items(options: ServeOptions) -> None:
    with live(options, bundles=(), items=None, images=None, feedback=None) as server:
        assert len(ids(server("/v1/recommend", {"id": "noto:3", "k": 4}))) == 4
        assert server("/v1/items?query=THING%207").body["items"][0]["title"] == "thing 7"
        for path, body in (
            ("/v1/embeddings", {"input": "a"}),
            ("/v1/recommend", {"item": {"title": "a"}}),
            ("/v1/feedback", {"query": "a", "target": "b", "vote": 1}),
        ):
            assert server(path, body).status == 501, path
        assert server("/v1/recommend", {"id": "noto:3", "view": "text"}).status == 501
        assert server("/v1/recommend", {"id": "noto:3", "filter": {"category": "x"}}).status == 400


def test_the_log_has_no_words_of_items_and_metrics_count(
    options: ServeOptions, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    caplog.set_level(logging.INFO, "n2kit.serve")
    with live(options) as server:
        server("/v1/embeddings", {"input": "a secret title"})
        server("/v1/items?query=hidden")
        metrics = server("/metrics").body.decode()
    lines = [json.loads(r.message) for r in caplog.records if r.name == "n2kit.serve"]
    assert [(line["route"], line["status"]) for line in lines[:2]] == [("/v1/embeddings", 200), ("/v1/items", 200)]
    assert not any(word in json.dumps(lines) for word in ("secret", "hidden"))
    assert 'n2kit_requests_total{route="/v1/embeddings",status="200"} 1.0' in metrics
    assert "n2kit_encoded_items_total 1.0" in metrics


def test_openapi_names_every_route(server: Live) -> None:
    paths = server("/openapi.json").body["paths"]
    assert {
        "/v1/embeddings",
        "/v1/recommend",
        "/v1/items",
        "/v1/models",
        "/health",
        "/ready",
        "/metrics",
    } <= paths.keys()
    assert set(paths["/v1/items"]) == {"get", "post", "delete"}


def test_the_map_has_every_item_between_0_and_1(server: Live) -> None:
    items = server("/v1/map").body["items"]
    assert len({item["id"] for item in items}) == server("/v1/catalogue").body["indexes"][0]["items"]
    for axis in ("x", "y"):
        assert (min(i[axis] for i in items), max(i[axis] for i in items)) == (0, 1)


def test_pictures_are_shown_small_and_those_outside_the_folder_not_at_all(server: Live) -> None:
    from PIL import Image

    shown = server("/v1/image?id=noto:4&side=160")
    assert Image.open(io.BytesIO(shown.body)).size == (40, 30)
    assert server("/v1/image?id=noto:4&side=5000").status == 400
    assert server("/v1/image?id=../../etc/passwd").status == 404


ODD: tuple[Any, ...] = (
    None, True, 0, -1, 10**30, 1e308, "", " ", "\ud800", "\x00", "a" * 5000, "é😀", [], {}, [[]], [None], {"a": 1}, ["a", 1], [{"text": None}],
    [{"text": "a", "image": 1}], "data:", "data:image/png;base64,", "data:image/png;base64,AAAA", "http://", "http://[", "HTTP://a:b/", "../../x",
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "valid"),
    [
        ("/v1/embeddings", {"input": "a", "messages": None, "items": None, "model": None, "encoding_format": "float", "dimensions": 16, "modality": "text"}),
        ("/v1/embeddings", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/embeddings", {"items": [{"title": "a"}]}),
        ("/v1/recommend", {"id": "noto:4", "ids": [], "item": None, "items": [], "index": None, "k": 3, "view": "multimodal", "where": None, "filter": None, "exclude": [], "fold": None, "diversify": 0, "explain": False}),
        ("/v1/recommend", {"item": {"title": "a"}}),
        ("/v1/items", {"items": [{"id": "odd", "title": "a"}], "index": None}),
        ("/v1/feedback", {"query": "noto:4", "target": "twemoji:4", "vote": 0, "index": None}),
    ],
)  # fmt: skip
def test_nothing_that_is_sent_is_a_bug_of_the_server(own: ServeOptions, path: str, valid: dict[str, Any]) -> None:
    """Every field with every odd value: an answer, or an error that says what is wrong."""
    with live(own) as server:
        send_odd(server, path, valid)


def send_odd(server: Live, path: str, valid: dict[str, Any]) -> None:
    assert server(path, valid).status == 200
    odd = [{**valid, name: value} for name in valid for value in ODD]
    odd += [
        {**valid, "item": {field: value}}
        for field in ("title", "image", "topics", "id")
        for value in ODD
        if "item" in valid
    ]
    odd += [
        {**valid, "items": [{"id": "odd", "title": "a", field: value}]}
        for field in ("id", "image", "topics")
        for value in ODD
        if "items" in valid
    ]
    for body in [*odd, [], "a", 1, None]:
        answer = server(path, b"null" if body is None else body)
        assert answer.status < 500, (body, answer.body)
        assert answer.status == 200 or answer.body["error"]["message"], body
    for raw in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"id": NaN}'):
        assert server(path, raw).status == 400


# The queue.


def test_requests_that_arrive_together_share_a_call_and_none_suffers_from_another() -> None:
    calls: list[int] = []

    def work(items: list[int]) -> list[int]:
        time.sleep(0.05)
        if 13 in items:
            raise ValueError("unlucky")
        calls.append(len(items))
        return [2 * i for i in items]

    batcher = Batcher(work, lambda item: 1, most=8, wait=0.02)
    asked = [batcher.submit([n]) for n in range(12, 24)]
    assert [f.result() for f in asked if f is not asked[1]] == [[2 * n] for n in range(12, 24) if n != 13]
    with pytest.raises(ValueError, match="unlucky"):
        asked[1].result()
    assert max(calls) > 1
    assert max(calls) <= 8
    last = batcher.submit([1, 2])
    batcher.close()
    assert last.result() == [2, 4]
    with pytest.raises(Closed):
        batcher.submit([3])


def test_clients_whom_one_call_answered_share_the_next_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come back one after the other; a client alone is not kept waiting for others."""
    from n2kit.serve import batching

    monkeypatch.setattr(batching, "PAUSE", 1000)
    gate, calls = threading.Event(), list[list[int]]()

    def work(items: list[int]) -> list[int]:
        calls.append(items)
        gate.wait()
        time.sleep(0.02)
        return items

    batcher = Batcher(work, lambda item: 1, most=2, wait=0.001)
    first = [batcher.submit([0])]
    while not calls:
        time.sleep(0.001)
    first += [batcher.submit([1]), batcher.submit([2])]
    gate.set()
    for answer in first:
        answer.result()
    late = [batcher.submit([3])]
    time.sleep(0.05)
    late.append(batcher.submit([4]))
    for answer in late:
        answer.result()
    batcher.close()
    assert calls[-1] == [3, 4]
