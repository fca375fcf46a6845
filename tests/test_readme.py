"""The README's code runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from n2kit.plugins.catalogue import default_catalogue

README = (Path(__file__).parents[1] / "README.md").read_text("utf8")
BLOCKS = dict(re.findall(r"<!-- tested: (\S+) -->\n```python\n(.*?)```", README, re.S))


def test_python(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").symlink_to(workspace / "images")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS["python"], "README.md", "exec"), {})


def test_every_component_that_the_readme_names_is_there_and_every_one_there_is_named() -> None:
    catalogue = default_catalogue()
    for kind in ("vision", "llm", "mllm", "connector", "fusion", "loss"):
        (row,) = re.findall(rf"^\| `--{kind}` \|(.*)\|$", README, re.M)
        said = {name.partition(":")[0] for name in re.findall(r"`([^`]+)`", row)}
        there = {o.spec.name for o in catalogue.plugins.components(kind)}  # type: ignore[arg-type]
        assert said == there, kind


def test_the_refusal_that_the_readme_shows(cli: Any) -> None:
    (shown,) = re.findall(r"```console\n\$ n2kit (.*)\n((?:.*\n)*?)```", README)
    result = cli(*shown[0].split())
    assert result.code == 2
    assert result.err == shown[1]


def test_every_command_line_of_the_readme_exists() -> None:
    from n2kit_cli.main import make_app

    app = make_app()
    known = {c.name for c in app.registered_commands} | {g.name for g in app.registered_groups}
    used = set(re.findall(r"^n2kit ([\w-]+)", README, re.M))
    assert used
    assert used <= known


def test_variants_of_the_readme_are_the_variants_there_are() -> None:
    from n2kit.recipe.variants import SPECS

    rows = re.findall(r"^\| `(\w+)`[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", README, re.M)
    said = {name: tuple("✓" in cell for cell in cells) for name, *cells in rows}
    assert said == {name: (s.early, s.micl, s.late, s.text) for name, s in SPECS.items()}


def test_the_page_on_training_explains_every_setting() -> None:
    from n2kit.recipe.settings import Train

    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text("utf8")
    switches = " ".join(row.split("|")[1] for row in page.splitlines() if row.startswith("| "))
    flags = {"new_lr": "--lr", "lrs": "--lr", "loggers": "--log-to"}
    drawn = {"topic_share", "topics_held", "eval_steps", "log_steps"}  # in the text
    for name in Train.model_fields.keys() - drawn:
        flag = flags.get(name, f"--{name.replace('_', '-')}")
        assert f"train.{name}" in switches or f"`{flag} " in switches, name
    assert all(f"train.{name}" in page for name in drawn)
