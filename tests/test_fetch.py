"""Images that are URLs: fetched once, politely, from public hosts alone unless it is allowed, and counted where they fail."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from n2kit.data import fetch
from n2kit.data.fetch import fetch_images
from n2kit.data.image_source import fetched_path, locate
from n2kit.data.images import UnreadableImage, open_image
from n2kit.data.items import Item
from n2kit.errors import BadInput


def picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (4, 4), (200, 10, 10)).save(file, "PNG")
    return file.getvalue()


class Shop(ThreadingHTTPServer):
    """A shop's host: what it was asked for, and how many at a time."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: Counter[str] = Counter()
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.root = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Shop

    def do_GET(self) -> None:
        shop, name = self.server, self.path.partition("?")[0]
        with shop.lock:
            shop.asked[name] += 1
            shop.now += 1
            shop.most = max(shop.most, shop.now)
        time.sleep(0.02)
        code, body, headers = self.answer(name, shop.asked[name])
        with shop.lock:
            shop.now -= 1
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def answer(self, name: str, times: int) -> tuple[int, bytes, dict[str, str]]:
        if name == "/busy.png" and times == 1:
            return 429, b"", {"Retry-After": "0"}
        if name == "/cut.png":
            return 200, picture()[:20], {"Content-Length": "1000"}
        moved = {"/moved.png": "/a.png", "/file.png": "file:///etc/hostname"}
        if name in moved:
            return 302, b"", {"Location": moved[name]}
        known = {"/page.png": b"<html>", "/large.png": picture() + bytes(200_000), "/empty.png": b""}
        if name in known:
            return 200, known[name], {}
        return (404, b"", {}) if "missing" in name else (200, picture(), {})

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(fetch, "MOST_BYTES", 100_000)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Shop() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_images_are_fetched_once_and_found_by_their_url(shop: Shop, tmp_path: Path) -> None:
    urls = [f"{shop.root}/{n}.png" for n in range(12)] + [
        f"{shop.root}/a b.png?size=1",
        f"{shop.root}/moved.png",
        f"{shop.root}/busy.png",
    ]
    failed = fetch_images([*urls, urls[0], f"{shop.root}/missing.png"], tmp_path, private=True)
    assert failed == {f"{shop.root}/missing.png": "HTTP 404 Not Found"}
    assert shop.most <= fetch.PER_HOST
    for url in urls:
        assert open_image(Item("x", url), tmp_path).size == (4, 4)
        assert locate(url, tmp_path).suffix == ".png"
    before = sum(shop.asked.values())
    assert fetch_images(urls, tmp_path, private=True) == {}
    assert sum(shop.asked.values()) == before
    with pytest.raises(UnreadableImage, match="was not fetched: HTTP 404"):
        open_image(Item("x", f"{shop.root}/missing.png"), tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("page.png", "not an image, but a web page"), ("large.png", "larger than"), ("empty.png", "an empty answer"), ("cut.png", "broke off"), ("file.png", "Redirection to url 'file:")],
)  # fmt: skip
def test_what_is_no_image_is_not_kept(name: str, reason: str, shop: Shop, tmp_path: Path) -> None:
    url = f"{shop.root}/{name}"
    assert reason in fetch_images([url], tmp_path, private=True)[url]
    assert not fetched_path(url, tmp_path).exists()


def test_private_addresses_are_not_asked_unless_allowed(shop: Shop, tmp_path: Path) -> None:
    url = f"{shop.root}/a.png"
    for one in (url, url.replace("127.0.0.1", "localhost")):
        assert "private address" in fetch_images([one], tmp_path)[one]
    assert not shop.asked
    for odd in ("http://", "http://[::1"):
        assert fetch_images([odd], tmp_path, private=True)[odd]


def test_a_catalogue_of_urls_is_embedded(shop: Shop, cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    rows = [f"p{n},Chair {n},{shop.root}/{'missing' if n == 3 else n}.png" for n in range(5)]
    items.write_text("sku,name,image_url\n" + "\n".join(rows) + "\n")
    command = (
        "embed",
        tiny_bundle,
        "--items",
        items,
        "-o",
        tmp_path / "v.parquet",
        "--fetch-images",
        tmp_path / "pics",
    )
    private = cli(*command)
    assert private.code == 2
    assert "--fetch-private" in private.err
    done = cli(*command, "--fetch-private")
    assert done.code == 2, done.err
    assert "4 of 5 images are in" in done.err
    assert "item 'p3': image" in done.err
    done = cli(*command, "--fetch-private", "--on-bad-image", "text-only")
    assert done.code == 0, done.err
    assert "(0 skipped, 1 read as text only)" in done.err
    listed = (tmp_path / "v.parquet.skipped.csv").read_text().splitlines()
    assert listed[0] == "id,reason"
    assert listed[1].startswith("p3,")
    assert "HTTP 404" in listed[1]
    shop.shutdown()
    again = cli(
        "embed",
        tiny_bundle,
        "--items",
        items,
        "-o",
        tmp_path / "w.parquet",
        "--images",
        tmp_path / "pics",
        "--on-bad-image",
        "skip",
    )
    assert again.code == 0, again.err


def test_bench_and_neglect_fetch_too(shop: Shop, cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    items, pairs = tmp_path / "items.csv", tmp_path / "pairs.csv"
    items.write_text("sku,name,image_url\n" + "".join(f"p{n},Chair {n},{shop.root}/{n}.png\n" for n in range(6)))
    pairs.write_text("query,target\np0,p1\np2,p3\np4,p5\n")
    fetch = ("--items", items, "--pairs", pairs, "--fetch-images", tmp_path / "pics", "--fetch-private")
    matrix = ("--baselines", "vision", "--vision", "siglip:tiny", "--test-pairs", pairs, "--bootstrap", "0")
    done = cli("bench", *matrix, *fetch, "-o", tmp_path / "bench")
    assert done.code == 0, done.err
    assert "6 of 6 images are in" in done.err
    assert "fetch_images" in (tmp_path / "bench" / "matrix.yaml").read_text()
    asked = sum(shop.asked.values())
    done = cli("neglect", tiny_bundle, *fetch, "--saliency", "0", "--bootstrap", "0")
    assert done.code == 0, done.err
    assert sum(shop.asked.values()) == asked == 6


def test_a_program_fetches_and_is_told_how(shop: Shop, tiny_bundle: Path, tmp_path: Path) -> None:
    import n2kit

    items = [{"id": "a", "image": f"{shop.root}/a.png"}, {"id": "b", "image": f"{shop.root}/missing.png"}]
    with pytest.raises(BadInput) as caught:
        n2kit.load(tiny_bundle).encode(items, images=tmp_path)
    assert "n2kit.fetch_images(items, folder)" in (caught.value.hint or "")
    assert n2kit.fetch_images(items, tmp_path / "pics", private=True) == {"b": "HTTP 404 Not Found"}
    assert n2kit.load(tiny_bundle).encode(items[0], images=tmp_path / "pics").shape == (1, 16)
