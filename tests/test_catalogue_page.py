"""docs/catalogue.md is run: its commands work in their order."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "catalogue.md").read_text("utf8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


def test_the_commands_in_their_order(
    cli: Any, workspace: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(workspace, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    shutil.copytree(tiny_bundle, "models/mine")
    lines = Path("items.jsonl").read_text().splitlines()
    Path("changed.jsonl").write_text(lines[3].replace("thing", "other") + "\n")
    Path("gone.txt").write_text("noto:5\n")
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "n2kit"
        done = cli(*arguments)
        assert done.code == 0, (command, done.err)
    assert "wrote catalogue.index: 23 items (0 added, 1 replaced, 1 deleted)" in done.err
    assert pq.read_metadata("neighbours.parquet").num_rows == 24 * 5
