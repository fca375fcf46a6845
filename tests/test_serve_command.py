"""The command `n2kit serve`: what it says, how it stops and reloads, what it refuses before it loads anything."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="n2kit[serve] is not installed")

import forks
import n2kit


@pytest.fixture(scope="module")
def index(workspace: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    items, folder = n2kit.read_items(workspace / "items.jsonl"), tmp_path_factory.mktemp("command") / "shop.index"
    n2kit.Index.build(n2kit.embed(tiny_bundle, items, images=workspace / "images"), items=items).save(folder)
    return folder


def post(address: str, body: Any) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return json.load(answer)


def until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_it_says_where_reloads_on_a_signal_and_finishes_what_it_took(
    tiny_bundle: Path, index: Path, tmp_path: Path
) -> None:
    arguments = [
        "serve",
        "--index",
        f"shop={index}",
        "--bundle",
        str(tiny_bundle),
        "--port",
        "0",
        "--json",
        "--batch-wait",
        "900",
    ]
    log = tmp_path / "log"
    with (
        log.open("w") as file,
        forks.Popen(["-m", "n2kit_cli.main", *arguments], stdout=subprocess.PIPE, stderr=file, text=True) as running,
    ):
        assert running.stdout is not None
        ready = json.loads(running.stdout.readline())
        assert ready["event"] == "ready"
        n2kit.Index.load(index).save(index, force=True)
        os.kill(running.pid, signal.SIGHUP)
        until(lambda: "reloaded: shop 24" in log.read_text())
        answers: list[Any] = []
        asking = threading.Thread(
            target=lambda: answers.append(post(f"{ready['address']}/v1/embeddings", {"input": "oak"}))
        )
        asking.start()
        time.sleep(0.3)  # it waits for company now
        os.kill(running.pid, signal.SIGTERM)
        asking.join(30)
        assert len(answers[0]["data"][0]["embedding"]) == 16
        assert running.wait(30) == 0
    said = log.read_text()
    assert f"serving at {ready['address']}" in said
    assert "interrupted" not in said
    assert "Traceback" not in said
    assert any(json.loads(line).get("route") == "/v1/embeddings" for line in said.splitlines() if line.startswith("{"))


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(cli: Any, index: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = cli("serve", "--index", str(index), "--port", str(other.getsockname()[1]))
    assert (done.code, "give another --port" in done.err) == (3, True), done.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "nothing to serve"),
        (["--index", "nowhere"], 2, "nowhere is no index"),
        (["--index", "a=INDEX", "--index", "a=INDEX"], 2, "two indexes are called 'a'"),
        (["--index", "INDEX", "--host", "no.such.host.invalid"], 2, "--host no.such.host.invalid"),
        (["--index", "INDEX", "--feedback", "votes.txt"], 2, "pairs are written as .csv or .jsonl"),
        (["--index", "INDEX", "--bundle", "nowhere"], 2, "nowhere"),
        (["--index", "INDEX", "--bundle", "OTHER"], 2, "made none of the indexes"),
    ],
)
def test_what_cannot_be_served_is_said(
    cli: Any, index: Path, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    if "OTHER" in arguments:
        n2kit.build("qwen:tiny", variant="text_only", settings={"head.width": 16}).save(tmp_path / "other")
    given = [a.replace("INDEX", str(index)).replace("OTHER", str(tmp_path / "other")) for a in arguments]
    done = cli("serve", *given, "--port", "0")
    assert (done.code, says in done.err) == (code, True), done.err


def test_without_its_libraries_it_says_what_to_install(cli: Any, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [n for n in sys.modules if n == "uvicorn" or n.startswith("n2kit.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = cli("serve", "--index", str(index))
    assert (done.code, "pip install 'n2kit[serve]'" in done.err) == (3, True), done.err
