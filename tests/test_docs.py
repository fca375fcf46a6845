"""docs/plugins.md is run: its files are a plug-in that keeps the laws, its commands work in their order."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import forks
from n2kit.errors import BadInput
from n2kit.plugins.manager import manager
from n2kit.testing import suites
from n2kit_cli.main import make_app

PAGE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text("utf8")
FILES = dict(re.findall(r"<!-- tested: (\S+) -->\n```python\n(.*?)```", PAGE, re.S))
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


def installed(folder: Path, distribution: str, module: str, point: str) -> None:
    """Write what `pip install -e` leaves for importlib.metadata to find."""
    info = folder / f"{module}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[n2kit]\n{point} = {module}\n")


def run(arguments: list[str], folder: Path, *paths: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("N2KIT_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "N2KIT_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = forks.run(["-m", *arguments], cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


@pytest.mark.slow
def test_the_commands_in_their_order(tmp_path: Path) -> None:
    package = tmp_path / "n2kit-grid"
    assert len(COMMANDS) == 6
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "pip":
            assert arguments == ["install", "-e", "n2kit-grid"]
            installed(package, "n2kit-grid", "n2kit_grid", "grid")
        else:
            run([{"n2kit": "n2kit_cli.main"}.get(program, program), *arguments], tmp_path, package)
    assert (tmp_path / "models" / "grid" / "manifest.json").is_file()


@pytest.mark.slow
def test_the_files_are_a_plugin_that_keeps_the_laws(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    installed(tmp_path, "n2kit-colour", "n2kit_colour", "colour")
    (found,) = json.loads(run(["n2kit_cli.main", "plugins", "check", "n2kit-colour", "--json"], tmp_path, tmp_path))
    assert (found["problems"], found["hints"]) == ([], [])
    assert "passed" in run(["pytest", "-q", "-p", "no:cacheprovider", "test_colour.py"], tmp_path, tmp_path)


def test_the_registries_of_the_page_work(
    tmp_path: Path, workspace: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import n2kit
    from installed import install, on_path

    package = tmp_path / "n2kit_letters"
    package.mkdir()
    for name in ("__init__", "compute"):
        (package / f"{name}.py").write_text(FILES[f"n2kit_letters/{name}.py"])
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "site").mkdir()
    entry = "from n2kit_letters import *\nfrom n2kit_letters import N2KIT_PLUGIN_API\n"
    install(tmp_path / "site", "n2kit-letters", {"entry_letters.py": entry})
    with on_path(tmp_path / "site", monkeypatch):
        data = ("--items", workspace / "items.jsonl", "--pairs", workspace / "train.csv")
        done = cli(
            "bench", "--baselines", "letters", *data, "--test-pairs", workspace / "test.csv", "-o", tmp_path / "b"
        )
        assert done.code == 0, done.err
        assert "## Slowest trainings" in (tmp_path / "b" / "results.md").read_text()
        (vectors,) = (tmp_path / "b").rglob("vectors.parquet")
        found = n2kit.evaluate(vectors, str(workspace / "test.csv"), metrics=["half-found"])
        assert 0 <= found.figures["half-found"].value <= 1
        template = ("plan", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--set", "prompt.template=terse", "--json")
        assert cli(*template).code == 0


def test_what_the_page_names_is_there() -> None:
    """Suites, spec fields, commands, hooks."""
    from n2kit.contract import ComponentSpec, hookspecs

    for name in re.findall(r"`(\w+Suite)`", PAGE):
        assert hasattr(suites, name), name
    for name in ("shorthand", "wildcard", "model_types", "requires", "capabilities", "extra"):
        assert name in ComponentSpec.__dataclass_fields__
    for name in re.findall(r"`(n2kit_\w+)`", PAGE):
        assert hasattr(hookspecs, name), name
    groups: dict[str, Any] = {g.name or "": g.typer_instance for g in make_app().registered_groups}
    for group, command in re.findall(r"`n2kit (plugins|card) (\w+)", PAGE):
        assert command in {c.name or c.callback.__name__.rstrip("_") for c in groups[group].registered_commands}


def test_fields_of_a_language_model_without_a_class() -> None:
    """The spec that the page gives for a model that transformers knows is how ours are written."""
    spec = next(s for p in manager().plugins for s in p.specs if s.name == "qwen" and s.kind == "llm")
    assert f'target="{spec.target}"' in PAGE
    assert f'config="{spec.config}"' in PAGE
    assert f'card="{spec.card}"' in PAGE


def test_unknown_kind_of_package_says_which_there_are(tmp_path: Path) -> None:
    from n2kit.scaffold import write_package

    with pytest.raises(BadInput, match="no package to write for kind 'reranker'"):
        write_package("x", "reranker", tmp_path)
