"""stdout is n2kit's: what plug-ins print, in Python and below it, goes to stderr, and floods end."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

import forks
from installed import install

SPEC = """
import os, warnings
print("printed at import")
os.write(1, b"written at import\\n")
from n2kit.contract import ComponentSpec, Preset, VisionCard, hookimpl
from pydantic import BaseModel

N2KIT_PLUGIN_API = (2, 1)

class Options(BaseModel):
    pass

def card(config, locate):
    print("printed in card")
    os.write(1, b"written in card\\n")
    os.system("echo said by a child")
    for n in range(3000):
        warnings.warn(f"warning {n}")
    for n in range(3000):
        print("line", n)
    return VisionCard(tokens=4, token_width=8, pooled_width=8, image_size=16, parameters=0)

@hookimpl
def n2kit_register_components():
    return [ComponentSpec(kind="vision", name="loud", summary="s", target="loud:Options", config="loud:Options",
                          card="loud:card", presets={"tiny": Preset()})]
"""


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a program in which a plug-in that prints is installed."""
    site, cache = tmp_path_factory.mktemp("loud"), tmp_path_factory.mktemp("cache")
    install(site, "loud-dist", {"loud.py": SPEC})
    own = {k: v for k, v in os.environ.items() if not k.startswith("N2KIT_")}
    path = os.pathsep.join(filter(None, (str(site), own.get("PYTHONPATH"))))
    return own | {"PYTHONPATH": path, "N2KIT_CACHE": str(cache)}


def test_json_stays_json(loud: dict[str, str], tmp_path: Path) -> None:
    done = forks.run(["-m", "n2kit_cli.main", "plugins", "list", "--json"], cwd=tmp_path, env=loud)
    assert done.returncode == 0, done.stderr
    assert [p["problem"] for p in json.loads(done.stdout) if p["distribution"] == "loud-dist"] == [None]
    assert "printed at import" in done.stderr
    assert "written at import" in done.stderr


def test_floods_end_and_are_named_once(loud: dict[str, str], tmp_path: Path) -> None:
    plan = ["plan", "--llm", "qwen:tiny", "--vision", "loud:tiny", "--connector", "mlp:2", "--json"]
    done = forks.run(["-m", "n2kit_cli.main", *plan], cwd=tmp_path, env=loud)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == "qwen:tiny+loud:tiny+mlp:2+gate"
    for said in ("printed in card", "written in card", "said by a child", "line 0"):
        assert said in done.stderr
    assert done.stderr.count("UserWarning") == 10
    assert done.stderr.count("note: loud-dist: 10 warnings are shown, and no more of them") == 1
    assert done.stderr.count("note: loud-dist: 200 lines that it prints are shown, and no more of them") == 1
    assert len(done.stderr.splitlines()) < 260


def test_a_reader_that_goes_early_and_a_full_disk_are_still_met(loud: dict[str, str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        running = forks.Popen(["-m", "n2kit_cli.main", "ls", "--json"], stdout=full, cwd=tmp_path, env=loud)
        assert running.wait() == 3
    read, write = os.pipe()
    os.close(read)
    with (tmp_path / "err").open("w+") as err:
        running = forks.Popen(
            ["-m", "n2kit_cli.main", "ls", "--json"], stdout=write, stderr=err, cwd=tmp_path, env=loud
        )
        os.close(write)
        assert running.wait() == 0
        err.seek(0)
        assert "Traceback" not in err.read()


def test_commands_print_by_emit_alone() -> None:
    """`print` goes to stderr while a command runs: data that is printed by it would be lost."""
    cli = Path(__file__).parents[1] / "cli" / "n2kit_cli"
    for file in sorted(cli.glob("*.py")):
        calls = [n for n in ast.walk(ast.parse(file.read_text("utf8"))) if isinstance(n, ast.Call)]
        prints = [ast.unparse(c) for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        elsewhere = [text for text in prints if "file=" not in text and "__version__" not in text]
        assert not elsewhere, f"{file.name}: {elsewhere[0]}: from n2kit_cli.output import emit"
