"""The server's page in a browser: search, walk, upload, compare, vote; every state by its address; nobody shut out."""

from __future__ import annotations

import base64
import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="n2kit[serve] is not installed")

import n2kit
from n2kit.embed.vectors_file import Vectors, write_table
from n2kit.index import build_index
from n2kit.serve import ServeOptions
from serving import Live, live

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
browsing = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]


@pytest.fixture(scope="module")
def server(workspace: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    items, images = n2kit.read_items(workspace / "items.jsonl"), workspace / "images"
    folder = tmp_path_factory.mktemp("page")
    n2kit.Index.build(n2kit.embed(tiny_bundle, items, images=images), items=items, images=images).save(folder / "i")
    with live(
        ServeOptions({"main": folder / "i"}, (tiny_bundle,), items, images, folder / "votes.csv", "cpu")
    ) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, server: Live) -> Iterator[Any]:
    """A page that may ask nobody but the server, and on which nothing goes wrong."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=server.address)
    shown, problems = context.new_page(), []
    shown.on("pageerror", lambda error: problems.append(str(error)))
    shown.on(
        "console", lambda said: problems.append(said.text) if said.type == "error" and "404" not in said.text else None
    )
    shown.on(
        "request",
        lambda asked: None if asked.url.startswith((server.address, "data:", "blob:")) else problems.append(asked.url),
    )
    yield shown
    context.close()
    assert problems == []


def ids(page: Any, column: int = 0) -> list[str]:
    page.wait_for_selector("#results:not([aria-busy]) .cards, #results:not([aria-busy]) .columns")
    lists = page.locator(".cards")
    return (
        []
        if not lists.count()
        else lists.nth(column).locator(".item").evaluate_all("all => all.map(e => e.dataset.id)")
    )


def test_the_page_is_served_whole_and_with_a_policy(server: Live) -> None:
    page = server("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    text = page.body.decode()
    for address in re.findall(r'(?:src|href)="(static/[^"]+)"', text):
        assert server(f"/{address}").status == 200, address
    folder = Path(n2kit.__file__).parent / "serve" / "page"
    for script in folder.glob("*.js"):
        assert server(f"/static/{script.name}").headers["content-type"].startswith("text/javascript")
        assert not re.search(r"https?://", script.read_text("utf8"))
    assert server("/static/../app.py").status == 404


@pytest.mark.parametrize("name", ["light", "dark"])
def test_words_stand_out_from_their_ground(name: str) -> None:
    """The contrast of WCAG AA, 4.5, for every pair of colours that words have; 3 for the edges of what can be pressed."""
    from n2kit.pages.render import style

    own = (Path(n2kit.__file__).parent / "serve" / "page" / "page.css").read_text("utf8")
    colours: dict[str, str] = {}
    for sheet in (style(), own):
        blocks = re.findall(r"(@media \(prefers-color-scheme: dark\) \{\s*)?:root \{([^}]*)\}", sheet)
        for dark, block in blocks:
            if not dark or name == "dark":
                colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))
    for ink, grounds, least in (
        ("ink", ("ground", "card", "main-soft", "right-soft"), 4.5), ("soft", ("ground", "card"), 4.5), ("main", ("ground", "card"), 4.5),
        ("bad", ("ground",), 4.5), ("right", ("card", "right-soft"), 4.5), ("on-main", ("main",), 4.5), ("edge", ("card", "ground"), 3),
    ):  # fmt: skip
        for ground in grounds:
            assert contrast(colours[ink], colours[ground]) >= least, (ink, ground)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


class TestInABrowser:
    pytestmark = browsing

    def test_search_walk_and_the_way_back(self, page: Any) -> None:
        page.goto("/")
        assert len(ids(page)) == 24
        page.fill("#query", "thing 3")
        page.press("#query", "Enter")
        page.wait_for_url("**/?q=thing+3")
        found = ids(page)
        page.locator(".item a").first.click()
        page.wait_for_url(lambda url: "id=" in url)
        assert found[0] not in ids(page)
        second = ids(page)[1]
        page.locator(".item a").nth(1).click()
        page.wait_for_selector("#trail li:nth-child(2)")
        assert f"id={second.replace(':', '%3A')}" in page.url
        assert "from=" in page.url
        state = page.url
        expected = ids(page)
        page.goto("/")
        page.goto(state)
        assert ids(page) == expected
        page.locator("#trail a").nth(1).click()
        page.wait_for_function("() => document.querySelectorAll('#trail li').length === 0")
        assert ids(page)[1] == second
        page.go_back()
        page.wait_for_selector("#trail li:nth-child(2)")
        assert ids(page) == expected

    def test_an_item_is_found_by_its_id(self, page: Any) -> None:
        page.goto("/")
        ids(page)
        page.fill("#query", "noto:5")
        page.press("#query", "Enter")
        page.wait_for_selector("#asked h2")
        assert page.locator("#asked h2").inner_text() == "thing 5"

    def test_a_picture_is_chosen_dropped_or_pasted(self, page: Any, workspace: Path) -> None:
        picture = workspace / "images" / "noto_7.png"
        page.goto("/")
        ids(page)
        page.set_input_files("#picture", picture)
        page.wait_for_selector("#asked img")
        chosen = ids(page)
        assert set(chosen[:2]) & {"noto:7", "twemoji:7"}
        address = page.url
        page.goto("/")
        page.goto(address)
        assert ids(page) == chosen
        for event, holder in (("drop", "dataTransfer"), ("paste", "clipboardData")):
            page.goto("/")
            ids(page)
            page.evaluate(
                """([event, holder, body]) => {
                    const bytes = Uint8Array.from(atob(body), (c) => c.charCodeAt(0));
                    const data = new DataTransfer();
                    data.items.add(new File([bytes], "a.png", { type: "image/png" }));
                    const made = event === "drop" ? new DragEvent(event, { [holder]: data }) : new ClipboardEvent(event, { [holder]: data });
                    window.dispatchEvent(made);
                }""",
                [event, holder, base64.b64encode(picture.read_bytes()).decode()],
            )
            page.wait_for_selector("#asked img")
            assert ids(page) == chosen, event

    def test_views_stand_side_by_side_and_say_why(self, page: Any, server: Live) -> None:
        page.goto("/?id=noto:3")
        ids(page)
        for name in ("text alone", "picture alone"):
            page.get_by_role("checkbox", name=name, exact=True).check()
            page.wait_for_function(
                f"() => [...document.querySelectorAll('.columns h2')].some(e => e.textContent.startsWith('{name}'))"
            )
        page.get_by_role("checkbox", name="why this one?", exact=True).check()
        page.wait_for_selector(".below p")
        for column, view in enumerate(("multimodal", "text", "image")):
            wanted = server("/v1/recommend", {"id": "noto:3", "view": view, "k": 18}).body["neighbours"]
            assert ids(page, column) == [n["id"] for n in wanted]
        assert "Without the picture: rank" in page.locator(".columns").inner_text()
        assert "why=1" in page.url

    def test_thumbs_write_pairs(self, page: Any, server: Live) -> None:
        page.goto("/?id=noto:4")
        up, down = ids(page)[:2]
        page.locator(f".item[data-id='{up}'] [data-vote='1']").click()
        page.wait_for_selector(f".item[data-id='{up}'] [data-vote='1'][aria-pressed=true]")
        page.locator(f".item[data-id='{down}'] a").focus()
        page.keyboard.press("-")
        page.wait_for_selector(f".item[data-id='{down}'] [data-vote='-1'][aria-pressed=true]")
        assert server.state.options.feedback is not None
        assert server.state.options.feedback.read_text().splitlines()[1] == f"noto:4,{up},{down}"
        page.reload()
        page.wait_for_selector(f".item[data-id='{up}'] [data-vote='1'][aria-pressed=true]")

    def test_keys_are_enough(self, page: Any) -> None:
        page.goto("/?id=noto:4")
        found = ids(page)
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "query"
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.closest('.item').dataset.id") == found[1]
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: f"id={found[1].replace(':', '%3A')}" in url)

    def test_a_key_is_asked_for_once_and_pictures_are_shown_with_it(self, browser: Any, server: Live) -> None:
        with live(server.state.options, api_key="secret", feedback=None) as keyed:
            context = browser.new_context(base_url=keyed.address)
            page = context.new_page()
            page.goto("/?id=noto:4")
            page.wait_for_selector("#login[open]")
            page.fill("#key", "secret")
            page.keyboard.press("Enter")
            assert len(ids(page)) == 18
            page.wait_for_function(
                "() => [...document.querySelectorAll('.item img')].slice(0, 3).every(i => i.naturalWidth === 40)"
            )
            assert page.locator(".thumbs").count() == 0
            page.goto("/")
            assert len(ids(page)) == 24
            context.close()

    def test_the_map_leads_to_items(self, page: Any, server: Live) -> None:
        page.goto("/")
        ids(page)
        page.get_by_role("checkbox", name="as a map", exact=True).check()
        page.wait_for_selector(".map canvas")
        assert page.url.endswith("map=1")
        item = next(i for i in server("/v1/map").body["items"] if i["x"] == 1)
        box = page.locator(".map canvas").bounding_box()
        inside = {axis: 0.02 + 0.96 * item[axis] for axis in ("x", "y")}
        page.mouse.move(box["x"] + box["width"] * inside["x"], box["y"] + box["height"] * inside["y"])
        page.wait_for_selector(".seen:not(:empty)")
        page.mouse.down()
        page.mouse.up()
        page.wait_for_selector("#asked h2")
        assert page.locator("#asked h2").inner_text() == item["title"]

    def test_two_indexes_stand_side_by_side(self, browser: Any, server: Live, tmp_path: Path) -> None:
        options = server.state.options
        other = n2kit.Index.load(options.indexes["main"])
        some = other.stored.ids[:12]
        vectors = n2kit.embed(options.bundles[0], [options.items[i] for i in some], images=options.images)
        n2kit.Index.build(vectors).save(tmp_path / "half")
        both = {**options.indexes, "half": tmp_path / "half"}
        with live(options, indexes=both, feedback=None) as two:
            context = browser.new_context(base_url=two.address)
            page = context.new_page()
            page.goto("/?id=noto:4&columns=main!multimodal~half!multimodal")
            every, few = ids(page, 0), ids(page, 1)
            assert len(every) == 18
            assert len(few) == 11
            assert [i for i in every if i in few] == [i for i in few if i in every]
            page.goto("/")
            assert len(ids(page)) == 24
            page.get_by_label("half", exact=True).check()
            page.wait_for_url("**columns=half*")
            assert len(ids(page)) == 12
            context.close()

    def test_how_much_is_shown_stands_in_the_address(self, browser: Any, tmp_path: Path) -> None:
        vectors = np.random.default_rng(0).normal(size=(110, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        write_table(Vectors([f"i{n}" for n in range(110)], vectors, "0123456789abcdef"), tmp_path / "v.parquet")
        build_index(tmp_path / "v.parquet", tmp_path / "i")
        with live(ServeOptions({"i": tmp_path / "i"}, device="cpu")) as bare:
            context = browser.new_context(base_url=bare.address)
            page = context.new_page()
            page.goto("/")
            assert len(ids(page)) == 48
            page.click("#more")
            page.wait_for_url("**shown=96")
            page.reload()
            assert len(ids(page)) == 96
            page.click("#more")
            page.wait_for_selector("#more", state="hidden")
            assert len(ids(page)) == 110
            context.close()

    def test_what_is_left_meanwhile_offers_no_more_of_it(self, page: Any) -> None:
        """The catalogue's answer, as long as a whole page, comes when an item is shown already."""
        asked: list[Any] = []
        page.route(re.compile(r"/v1/items\?.*offset=0"), lambda route: asked.append(route))
        page.goto("/")
        page.wait_for_function("document.getElementById('status').textContent.includes('Choose one')")
        page.evaluate("history.pushState(null, '', '?id=noto:4'); dispatchEvent(new PopStateEvent('popstate'))")
        assert len(ids(page)) == 18
        (late,) = asked
        with page.expect_response(re.compile(r"/v1/items\?.*offset=0")):
            late.fulfill(json={"items": [{"id": f"i{n}", "title": f"i{n}"} for n in range(48)]})
        page.evaluate("new Promise((done) => setTimeout(done, 50))")
        assert page.locator("#more").is_hidden()

    def test_a_phone_scrolls_one_way_and_offers_its_camera(self, browser: Any, server: Live) -> None:
        context = browser.new_context(
            viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, base_url=server.address
        )
        page = context.new_page()
        page.goto("/?id=noto:4&columns=main!multimodal~main!text~main!image&why=1")
        ids(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("#camera").is_visible()
        small = page.evaluate(
            "[...document.querySelectorAll('button, .button')].filter(e => e.offsetHeight && e.offsetHeight < 40).length"
        )
        assert small == 0
        context.close()

    def test_an_error_is_said_and_a_picture_that_is_not_here_too(self, page: Any) -> None:
        page.goto("/?id=nobody")
        page.wait_for_selector("#status.bad")
        assert "'nobody' is not in main" in page.locator("#status").inner_text()
        page.goto("/?picture=gone")
        page.wait_for_selector("#status.bad")
        assert "drop it here again" in page.locator("#status").inner_text()

    @pytest.mark.parametrize("path", ["/", "/?map=1", "/?id=noto:4&columns=main!multimodal~main!image&why=1&fold=1"])
    def test_nobody_is_shut_out(self, page: Any, path: str) -> None:
        """axe-core where npm has brought it; always: names of all that can be pressed, alt texts, one h1, labels, the language."""
        page.goto(path)
        page.wait_for_selector(".item, .map")
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, a, input, select, img")].filter((e) => e.offsetParent && !(
                e.tagName === "IMG" ? e.hasAttribute("alt") : e.textContent.trim() || e.ariaLabel || e.labels?.length
            )).map((e) => e.outerHTML)"""
        )
        assert nameless == []
        assert page.evaluate("[document.querySelectorAll('h1').length, document.documentElement.lang]") == [1, "en"]
        assert page.evaluate(
            "new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === document.querySelectorAll('[id]').length"
        )
        if (axe := axe_core()) is None:
            return
        page.evaluate(axe)  # not by a script tag, which the page's policy forbids
        found = page.evaluate("axe.run({ resultTypes: ['violations'] })")
        assert [(v["id"], [n["html"][:200] for n in v["nodes"]][:3]) for v in found["violations"]] == []


def axe_core() -> str | None:
    """Read axe-core, where `npm install axe-core` has put it: here, above, or for all."""
    import os

    roots = [
        *Path(__file__).resolve().parents,
        Path("/usr/lib"),
        Path("/usr/local/lib"),
        Path("/usr/share/nodejs").parent,
    ]
    places = [Path(os.environ["AXE_CORE"])] if "AXE_CORE" in os.environ else []
    places += [root / "node_modules" / "axe-core" / "axe.min.js" for root in roots]
    file = next((place for place in places if place.is_file()), None)
    return None if file is None else file.read_text("utf8")
