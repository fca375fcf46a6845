"""n2kit hub: a bundle pushed to a stand-in of a hub and pulled again is the same model; what must not go there does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub_of_bundles import Hub, hub
from n2kit.bundle.manifest import read_manifest


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    import huggingface_hub.constants as constants

    with hub(token="secret") as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)  # as HF_ENDPOINT sets it in a new process
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.split("/", 3)[3]
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.address}/{template}")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        monkeypatch.setenv("HF_TOKEN", "secret")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def test_a_bundle_goes_up_with_its_card_and_comes_down_the_same(
    cli: Any, standin: Hub, tiny_bundle: Path, tmp_path: Path
) -> None:
    done = cli("hub", "push", str(tiny_bundle), "shop/items", "--private", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["commit"].startswith(standin.address)
    assert standin.private == {"shop/items"}
    card = standin.repositories["shop/items"]["README.md"].decode()
    assert "n2kit hub pull shop/items -o BUNDLE" in card
    assert read_manifest(tiny_bundle).fingerprint in card
    standin.repositories["shop/items"][".gitattributes"] = b"*.safetensors filter=lfs\n"
    pulled = cli("hub", "pull", "shop/items", "-o", str(tmp_path / "pulled"))
    assert (pulled.code, pulled.out) == (0, f"{tmp_path / 'pulled'}\n"), pulled.err
    assert read_manifest(tmp_path / "pulled") == read_manifest(tiny_bundle)
    again = cli("hub", "pull", "shop/items", "-o", str(tmp_path / "pulled"))
    assert (again.code, "--force" in again.err) == (2, True)
    assert cli("hub", "pull", "shop/items", "-o", str(tmp_path / "pulled"), "--force").code == 0


def test_a_file_that_was_changed_on_the_way_is_refused_and_nothing_is_left(
    cli: Any, standin: Hub, tiny_bundle: Path, tmp_path: Path
) -> None:
    assert cli("hub", "push", str(tiny_bundle), "shop/items").code == 0
    repository = standin.repositories["shop/items"]
    name = next(n for n in repository if n.endswith(".safetensors"))
    repository[name] = repository[name][:-1] + bytes([repository[name][-1] ^ 1])
    done = cli("hub", "pull", "shop/items", "-o", str(tmp_path / "pulled"))
    assert (done.code, "is damaged" in done.err) == (2, True)
    del repository["manifest.json"]
    done = cli("hub", "pull", "shop/items", "-o", str(tmp_path / "pulled"))
    assert (done.code, "is no bundle of n2kit" in done.err) == (2, True)
    assert [p for p in tmp_path.iterdir() if p.name != "pulled.lock" and not p.name.startswith(".")] == []


@pytest.mark.parametrize(("licence", "refused"), [("gemma", True), (None, True), ("Apache-2.0", False)])
def test_weights_that_may_not_be_handed_on_need_a_word(
    cli: Any, standin: Hub, tiny_bundle: Path, tmp_path: Path, licence: str | None, refused: bool
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    manifest["parts"]["llm"] |= {"weights": "hf:some/model", "licence": licence}
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest))
    done = cli("hub", "push", str(tmp_path / "b"), "shop/items")
    assert (done.code, "--i-have-the-right" in done.err, "shop/items" in standin.repositories) == (
        (2, True, False) if refused else (0, False, True)
    )
    assert cli("hub", "push", str(tmp_path / "b"), "shop/items", "--i-have-the-right").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["pull", "shop/none", "-o", "x"], 2, "no repository shop/none"),
        (["pull", "none", "-o", "x"], 2, "names no owner"),
        (["pull", "a//b", "-o", "x"], 2, "is no repository"),
        (["push", "nowhere", "shop/items"], 2, "nowhere"),
    ],
)
def test_names_that_lead_nowhere(
    cli: Any, standin: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("hub", *arguments)
    assert (done.code, says in done.err) == (code, True), done.err


def test_a_hub_that_refuses_or_is_not_there_is_said(
    cli: Any, standin: Hub, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    standin.token = "another"
    done = cli("hub", "push", str(tiny_bundle), "shop/items")
    assert done.code in (2, 3)
    assert "hf auth login" in done.err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = cli("hub", "push", str(tiny_bundle), "shop/items")
    assert (done.code, "switched off" in done.err) == (3, True), done.err
