"""A data folder looked through: sound ones are sound, and what would break a training ends with exit code 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def folder(workspace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workspace, tmp_path / "data"))


def test_a_sound_folder_and_its_page(cli: Any, folder: Path, tmp_path: Path) -> None:
    done = cli("data", "check", folder, "--html", tmp_path / "page.html", "--json")
    found = json.loads(done.out)
    assert (done.code, found["broken"]) == (0, [])
    assert (found["tables"]["items"]["items"], found["tables"]["items"]["picture and text"]) == (24, 24)
    assert found["tables"]["pictures"] == {"opened": 24, "cannot be read": 0, "under 32 pixels": 24}
    assert found["tables"]["train"]["components"] == found["tables"]["train"]["pairs"] == 8
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/webp") == 16
    assert "| items | items | 24 |" in cli("data", "check", folder).out


def test_what_would_break_a_training_is_named(cli: Any, folder: Path) -> None:
    (folder / "images" / "noto_3.png").write_bytes(b"no picture")
    (folder / "test.csv").write_text((folder / "train.csv").read_text() + "noto:1,none\n")
    with (folder / "items.jsonl").open("a") as file:
        file.write('{"id": "noto:1"}\n{"id": "empty"}\n')
    done = cli("data", "check", folder, "--json")
    found = json.loads(done.out)
    assert done.code == 1
    said = "\n".join(found["broken"])
    for what in ("duplicate id 'noto:1'", "noto_3.png", "unknown id 'none'", "8 pairs of the test are in train, too"):
        assert what in said
    assert found["tables"]["on two sides of the split"]["same id"] == 16
    assert any("neither" in remark for remark in found["odd"])
    assert cli("data", "check", folder / "none").code == 2
