"""Weights from a hub, with a stand-in for it: downloaded once and resumed, pinned, refused with a reason, found without a network."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import n2kit
from hub_standin import Hub, Repository, commit_of
from n2kit.errors import BadInput, N2kitError, Unavailable
from n2kit.plugins.weights import WeightsUri

Serve = Callable[[Mapping[str, Repository]], Hub]
BIG = bytes(range(256)) * 4096


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A hub of repositories, an empty cache, and no way to any other host."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    look_up = socket.getaddrinfo

    def only_here(host: Any, *rest: Any, **how: Any) -> Any:
        assert host in ("127.0.0.1", b"127.0.0.1"), f"asked for {host}"
        return look_up(host, *rest, **how)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    running: list[tuple[Hub, threading.Thread]] = []

    def start(repositories: Mapping[str, Repository]) -> Hub:
        hub = Hub(repositories)
        monkeypatch.setattr(constants, "ENDPOINT", hub.root)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.root + "/{repo_id}/resolve/{revision}/{filename}"
        )
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((hub, thread))
        return hub

    yield start
    for hub, thread in running:
        hub.shutdown()
        hub.server_close()
        thread.join()


def locate(text: str) -> Path:
    folder = WeightsUri.parse(text).locate()
    assert folder is not None
    return folder


def refusal(text: str) -> N2kitError:
    with pytest.raises(N2kitError) as caught:
        locate(text)
    return caught.value


FILES = {"config.json": b"{}", "model.safetensors": BIG, "README.md": b"no weights", "pytorch_model.bin": b"a pickle"}


def test_a_repository_is_downloaded_once_and_found_without_a_network(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve({"org/one": Repository({"main": FILES | {"consolidated.safetensors": BIG}})})
    folder = locate("hf:org/one")
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == BIG
    asked = sum(hub.asked.values())
    assert locate("hf:org/one") == folder
    assert sum(hub.asked.values()) == asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("hf:org/one") == folder
    assert "HF_HUB_OFFLINE is set" in refusal("hf:org/other").message


def test_a_file_that_breaks_off_is_resumed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 12)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub = serve({"org/one": Repository({"main": FILES}, cut={"model.safetensors": len(BIG) // 2})})
    assert (locate("hf:org/one") / "model.safetensors").read_bytes() == BIG
    assert hub.ranges == [f"model.safetensors bytes={len(BIG) // 2}-"]


def test_a_part_of_the_shards_is_no_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next command takes what is missing, with a network; without one it is refused."""
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    shards = {"model-1.safetensors": BIG, "model-2.safetensors": BIG[::-1]}
    files = {"config.json": b"{}", "model.safetensors.index.json": index, **shards}
    hub = serve({"org/two": Repository({"main": files}, lost={"model-1.safetensors"})})
    assert "model-1.safetensors is listed" in refusal("hf:org/two").message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "are not cached" in refusal("hf:org/two").message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.repositories["org/two"].lost.clear()
    folder = locate("hf:org/two")
    assert {name: (folder / name).read_bytes() for name in shards} == shards
    (folder / "model-2.safetensors").unlink()
    for tree in (folder.parents[1] / "trees").glob("*"):  # which older clients do not keep
        tree.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "are not cached" in refusal("hf:org/two").message


def test_a_hub_that_goes_away_is_one_line(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = serve({"org/one": Repository({"main": FILES})})

    def gone(*_: Any) -> None:
        hub.socket.close()  # whoever asks again finds nobody
        raise ConnectionAbortedError

    monkeypatch.setattr("hub_standin.Answer.send_file", gone)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the client's own attempts
    problem = refusal("hf:org/one")
    assert isinstance(problem, Unavailable)
    assert problem.message.startswith("downloading hf:org/one failed: ")
    assert problem.hint == "run the same command again to go on"


@pytest.mark.parametrize("ill", ["503", "429", "a page to sign in"])
def test_a_hub_that_is_ill_is_one_line(ill: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve({"org/one": Repository({"main": FILES})})

    def answer(to: Any) -> None:
        if ill.isdigit():
            to.refuse(int(ill), "Busy")
        else:
            to.send(200, b"<!doctype html><html>Sign in</html>", {"Content-Type": "text/html"})

    monkeypatch.setattr("hub_standin.Answer.answer", answer)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    problem = refusal("hf:org/one")
    assert isinstance(problem, Unavailable)
    assert "\n" not in problem.message
    assert "<html" not in problem.message


def test_a_revision_is_pinned_and_recorded(serve: Serve, tmp_path: Path) -> None:
    from n2kit.bundle.manifest import read_manifest

    n2kit.build("qwen:tiny", "siglip:tiny", connector="qformer:tiny", settings={"head.width": 16}).llm.save(tmp_path)
    files = {
        file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file() and file.name != "n2kit.json"
    }
    hub = serve({"org/tiny": Repository({"main": files, "v1.0": files})})
    for text, commit in (("hf:org/tiny", "main"), ("hf:org/tiny@v1.0", "v1.0")):
        source = WeightsUri.parse(text)
        assert str(source.pinned(locate(text))) == f"hf:org/tiny@{commit_of(commit)}"
    model = n2kit.build("hf:org/tiny@v1.0", variant="text_only", settings={"head.width": 16})
    model.save(tmp_path / "bundle", by_reference=True)
    (reference,) = read_manifest(tmp_path / "bundle").sources.values()
    assert reference.weights == f"hf:org/tiny@{commit_of('v1.0')}"
    before = sum(hub.asked.values())
    again = n2kit.load(tmp_path / "bundle").encode(["x"])
    assert abs(again - model.encode(["x"])).max() == 0
    assert sum(hub.asked.values()) == before


def test_pickles_alone_are_not_opened(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old repositories are read from the hub's own conversion; without one they are refused."""
    pickled = {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}
    old = Repository({"main": pickled, "refs/pr/7": FILES}, offers=["7"])
    hub = serve({"org/old": old, "org/pickled": Repository({"main": pickled})})
    problem = refusal("hf:org/pickled")
    assert isinstance(problem, Unavailable)
    assert "holds no safetensors weights, and n2kit opens no pickles" in problem.message
    folder = locate("hf:org/old")
    assert folder.name == commit_of("refs/pr/7")
    assert WeightsUri.parse("hf:org/old").locate(["config.json"]) == folder.parent / commit_of("main")
    assert not any("bin" in asked for asked in hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("hf:org/old") == folder


def test_what_the_hub_refuses_is_said_with_the_way_out(serve: Serve) -> None:
    gated = Repository({"main": FILES}, gated=True)
    lost = Repository({"main": FILES}, lost={"model.safetensors"})
    hub = serve({"org/gated": gated, "org/lost": lost})
    problem = refusal("hf:org/gated")
    assert isinstance(problem, Unavailable)
    assert "is gated" in problem.message
    assert f"agree on {hub.root}/org/gated, then `hf auth login`" in (problem.hint or "")
    problem = refusal("hf:org/none")
    assert isinstance(problem, BadInput)
    assert "the hub has no org/none, or it is private" in problem.message
    assert "hf auth login" in (problem.hint or "")
    problem = refusal("hf:org/lost@v9")
    assert isinstance(problem, BadInput)
    assert "org/lost has no revision v9" in problem.message
    problem = refusal("hf:org/lost")
    assert isinstance(problem, Unavailable)
    assert "model.safetensors is listed, and the hub does not have it" in problem.message
    assert isinstance(refusal("hf:not a name"), BadInput)


def test_a_command_downloads_and_says_no_traceback(serve: Serve, cli: Any, tmp_path: Path) -> None:
    serve({"org/gated": Repository({"main": FILES}, gated=True)})
    refused = cli("build", "--llm", "qwen@hf:org/gated", "--variant", "text_only", "-o", tmp_path / "m")
    assert refused.code == 3, refused.err
    assert refused.out == ""
    assert "error: hf:org/gated is gated" in refused.err
