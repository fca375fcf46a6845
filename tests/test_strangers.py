"""Packages of people who never saw this code: written by `plugins new`, built, installed beside n2kit's wheel, used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import forks
from n2kit.errors import BadInput
from n2kit.scaffold import SCAFFOLDS, write_package
from wheels import install

ROOT = Path(__file__).parents[1]
HELLO = ROOT / "examples" / "plugin-hello"
Run = Callable[..., str]
N2KIT = ("-m", "n2kit_cli.main")
PACKAGES = [*(f"n2kit-my-{kind}" for kind in SCAFFOLDS), "n2kit-hello"]


BUILD = """
import importlib, os, sys, tomllib
from pathlib import Path
out, *projects = sys.argv[1:]
for project in projects:
    os.chdir(project)
    backend = tomllib.loads(Path("pyproject.toml").read_text("utf8"))["build-system"]["build-backend"]
    importlib.import_module(backend).build_wheel(out)
"""


def build(projects: list[Path], out: Path) -> list[Path]:
    """Build the projects' wheels by the backend that each names, as pip does, in one process."""
    out.mkdir()
    done = forks.run(["-c", BUILD, out, *projects])
    assert done.returncode == 0, done.stderr
    made = sorted(out.glob("*.whl"))
    assert len(made) == len(projects)
    return made


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A fresh environment with wheels of n2kit, of one generated package a kind, and of the example; runs its Python.

    Torch and the other dependencies are those of this environment, by a path file: they are 6 GB.
    """
    root = tmp_path_factory.mktemp("elsewhere")
    for kind in SCAFFOLDS:
        write_package(f"my-{kind}", kind, root / f"n2kit-my-{kind}")
    wheels = build([ROOT, HELLO, *(root / f"n2kit-my-{kind}" for kind in SCAFFOLDS)], root / "wheels")
    venv.create(root / "venv", with_pip=False)
    site = next((root / "venv" / "lib").glob("python*")) / "site-packages"
    install(wheels, site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("N2KIT_", "PYTHON"))}
    environment |= {"N2KIT_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}

    server = forks.Server(root / "venv" / "bin" / "python", environment)

    def run(*arguments: str | Path, cwd: Path | None = None) -> str:
        done = forks.run(arguments, cwd=cwd or root, env=environment, of=server)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    yield run
    server.end()


@pytest.fixture(scope="module")
def checked(elsewhere: Run) -> dict[str, Any]:
    """Return what `plugins check` finds in each of the packages."""
    return {
        found["distribution"]: found for found in json.loads(elsewhere(*N2KIT, "plugins", "check", *PACKAGES, "--json"))
    }


@pytest.mark.slow
@pytest.mark.xdist_group("strangers")
def test_installed_from_wheels(elsewhere: Run) -> None:
    found = {p["distribution"]: p for p in json.loads(elsewhere(*N2KIT, "plugins", "list", "--json"))}
    for kind in SCAFFOLDS:
        plugin = found[f"n2kit-my-{kind}"]
        assert plugin["problem"] is None
        assert plugin["components"] == [f"{kind}:my-{kind}"]
    assert found["n2kit-hello"]["components"] == ["vision:hello"]
    assert "/venv/lib/" in elsewhere("-c", "import n2kit; print(n2kit.__file__)")


@pytest.mark.slow
@pytest.mark.xdist_group("strangers")
@pytest.mark.parametrize("name", PACKAGES)
def test_passes_plugins_check(checked: dict[str, Any], name: str) -> None:
    assert checked[name]["problems"] == []
    assert checked[name]["hints"] == []
    assert checked[name]["laws"] >= ({"n2kit-my-index": 4, "n2kit-my-mllm": 5}.get(name, 9))


@pytest.mark.slow
@pytest.mark.xdist_group("strangers")
def test_their_own_tests_pass(elsewhere: Run, tmp_path: Path) -> None:
    for kind in SCAFFOLDS:
        write_package(f"my-{kind}", kind, tmp_path / kind)
    done = elsewhere("-m", "pytest", "-v", "--import-mode=importlib", "-p", "no:cacheprovider", tmp_path, cwd=tmp_path)
    assert all(f"{kind}/tests/" in done for kind in SCAFFOLDS)


@pytest.mark.slow
@pytest.mark.xdist_group("strangers")
def test_they_build_train_and_embed(elsewhere: Run, workspace: Path, tmp_path: Path) -> None:
    """One by one, beside parts of n2kit, and all together; in one interpreter, since torch takes seconds."""
    usual = {"llm": "qwen:tiny", "vision": "clip:tiny", "connector": "mlp:4", "fusion": "gate", "loss": "notellm2"}
    strangers = {kind: f"my-{kind}" for kind in SCAFFOLDS if kind not in ("index", "mllm")}
    choices = {name: usual | {kind: name} for kind, name in strangers.items()}
    choices |= {"whole": {"mllm": "my-mllm", "fusion": "gate", "loss": "notellm2"}}
    choices |= {"all": strangers, "hello": usual | {"vision": "hello"}}
    data = ["--items", workspace / "items.jsonl", "--images", workspace / "images", "--device", "cpu"]
    pairs = ["--pairs", workspace / "train.csv", "--max-steps", "1", "--batch-size", "4"]
    lines = ["from n2kit_cli.main import run"]
    for name, chosen in choices.items():
        flags = [word for kind, reference in chosen.items() for word in (f"--{kind}", reference)]
        for command in (
            ["build", *flags, "--set", "prompt.body_tokens=400", "-o", f"{name}/bundle"],
            ["train", f"{name}/bundle", *data, *pairs, "-o", f"{name}/run"],
            ["embed", f"{name}/run/bundle", *data, "-o", f"{name}/v.parquet"],
        ):
            lines.append(f"assert run({[str(word) for word in command]}) == 0")
    lines.append("assert run(['index', 'all/v.parquet', '-o', 'i', '--type', 'my-index:7']) == 0")
    elsewhere("-c", "\n".join(lines), cwd=tmp_path)
    assert json.loads((tmp_path / "i" / "manifest.json").read_text())["options"] == {"chunk": 7}
    assert all((tmp_path / name / "v.parquet").is_file() for name in choices)


def test_the_example_is_small() -> None:
    sources = [f.read_text("utf8") for f in HELLO.rglob("*.py")]
    assert len(sources) == 3
    assert sum(bool(line.strip()) for source in sources for line in source.splitlines()) < 60


def test_names_that_cannot_be(tmp_path: Path) -> None:
    for name, kind in (
        ("Grid", "vision"),
        ("a_b", "vision"),
        ("", "vision"),
        ("../x", "vision"),
        ("grid", "reranker"),
        ("resnet", "vision"),
        ("sum", "loss"),
        ("hello", "llm"),
        ("a" * 65, "loss"),
    ):
        with pytest.raises(BadInput):
            write_package(name, kind, tmp_path / "p")
    write_package("grid", "vision", tmp_path / "p")
    with pytest.raises(BadInput, match="not empty"):
        write_package("grid", "vision", tmp_path / "p")


@pytest.mark.parametrize("name", ["my-part", "true", "tensor", "loss-out"])
def test_what_is_written_is_sound_python_whatever_its_name(name: str, tmp_path: Path) -> None:
    """As the package's own workflow asks for it: compiled, linted and formatted."""
    for kind in SCAFFOLDS:
        write_package(name, kind, tmp_path / kind)
        for file in (tmp_path / kind).rglob("*.py"):
            compile(file.read_text("utf8"), file, "exec")
        for command in (["check"], ["format", "--check"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
                cwd=tmp_path / kind,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout
