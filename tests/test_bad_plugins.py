"""Fourteen bad plug-ins, installed together as wheels: each is named with its reason, and harms nobody else."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import forks
from wheels import fusion, install, wheel

VISION = """
from n2kit.contract import ComponentSpec, Preset, VisionCard, hookimpl
N2KIT_PLUGIN_API = (2, 0)
@hookimpl
def n2kit_register_components():
    return [ComponentSpec(kind="vision", name="{name}", summary="s", target="{target}", config="{module}:Config",
            card="{module}:card", presets={presets})]
def card(config, locate):
    return VisionCard(16, 32, 32, 32, 10)
from pydantic import BaseModel
class Config(BaseModel):
    pass
"""
TINY = '{"tiny": Preset(card=VisionCard(16, 32, 32, 32, 10))}'


def _vision(name: str, target: str, presets: str) -> str:
    filled = VISION.replace("{name}", name).replace("{target}", target).replace("{presets}", presets)
    return filled.replace("{module}", f"bad_{name}")


def _good(before: str = "", **changes: str) -> str:
    text = fusion("bad", "x")["bad.py"]
    for old, new in changes.items():
        text = text.replace({"api": "(2, 0)", "hook": "n2kit_register_components", "body": "    return ["}[old], new)
    return before + text


# case → (module's source, what `plugins list` says of it, or what `plugins check` does)
LISTED = {
    "import-error": (_good("import nothing_like_this\n"), "No module named 'nothing_like_this'"),
    "system-exit": (_good("import sys\nsys.exit(3)\n"), "SystemExit: 3"),
    "abort": (_good("import os\nos.write(2, b'\\xff')\nos.abort()\n"), "killed the process by SIGABRT"),
    "no-version": (_good().replace("N2KIT_PLUGIN_API = (2, 0)", ""), "states no N2KIT_PLUGIN_API"),
    "newer": (_good(api="(3, 0)"), "written for plug-in API 3.0; this n2kit has 2.1: it needs a newer n2kit"),
    "older": (
        _good(api="(1, 0)").replace("Preset", "Variant"),
        "written for plug-in API 1.0; this n2kit has 2.1: variants are called presets now, see docs/plugins.md",
    ),
    "wrong-hook": (_good(hook="n2kit_register_component"), "there is no hook n2kit_register_component; did you mean"),
    "hook-raises": (_good(body="    raise ValueError('no luck')\n    return ["), "ValueError: no luck"),
    "wrong-type": (_good(body="    return 'x' or ["), "returned str, not a list of ComponentSpec"),
    "heavy": (_good("import torch\n"), "imports torch"),
}
CHECKED = {
    "no-target": (_vision("no_target", "bad_nowhere:Part", TINY), "cannot import bad_nowhere:Part"),
    "no-tiny": (_vision("no_tiny", "n2kit_clip.vision:ClipVision", "{}"), "none called tiny"),
}
NAMESAKES = {
    "same-plugin": "plug-in name 'good' is also that of good-dist",
    "same-component": "fusion 'gate' also in n2kit",
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def n2kit(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The program, in an environment where all of them are installed, and a good one beside them."""
    root = tmp_path_factory.mktemp("bad")
    (root / "wheels").mkdir()
    made = []
    for case, (source, _) in (LISTED | CHECKED).items():
        module = f"bad_{case.replace('-', '_')}"
        made.append(wheel(root / "wheels", f"{case}-dist", {f"{module}.py": source}, point=case, module=module))
    for dist, point, module, name in (
        ("good-dist", "good", "good_mod", "plain"),
        ("same-plugin-dist", "good", "same_mod", "other"),
        ("same-component-dist", "twin", "twin_mod", "gate"),
    ):
        made.append(wheel(root / "wheels", dist, fusion(module, name), point=point, module=module))
    install(made, root / "site")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("N2KIT_")}
    environment |= {"PYTHONPATH": str(root / "site"), "N2KIT_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = forks.run(["-m", "n2kit_cli.main", *arguments], cwd=root, env=environment | more)
        assert "Traceback" not in done.stderr
        return done

    return run


def test_there_are_fourteen() -> None:
    assert len(LISTED) + len(CHECKED) + len(NAMESAKES) == 14


@pytest.mark.slow
@pytest.mark.xdist_group("bad plugins")
def test_each_is_listed_with_its_distribution_and_reason(n2kit: Run) -> None:
    done = n2kit("plugins", "list", "--json")
    assert done.returncode == 0
    found = {p["distribution"]: p for p in json.loads(done.stdout)}
    for case, (_, reason) in LISTED.items():
        assert reason in (found[f"{case}-dist"]["problem"] or ""), case
        assert found[f"{case}-dist"]["components"] == []
    for case, reason in NAMESAKES.items():
        assert found[f"{case}-dist"]["problem"] is None
        assert any(reason in w for w in found[f"{case}-dist"]["warnings"]), case
    assert found["good-dist"]["problem"] is None
    own = [p for p in json.loads(done.stdout) if p["distribution"] == "n2kit"]
    assert own
    assert all(p["problem"] is None for p in own)


@pytest.mark.slow
@pytest.mark.xdist_group("bad plugins")
def test_check_names_each_and_fails(n2kit: Run) -> None:
    """A check tries all imports anew: one call says it all."""
    checked = {**LISTED, **CHECKED, "same-component": ("", NAMESAKES["same-component"])}
    done = n2kit("plugins", "check", *(f"{case}-dist" for case in checked), "--json")
    assert done.returncode == 1
    results = {r["distribution"]: r["problems"] for r in json.loads(done.stdout)}
    for case, (_, reason) in checked.items():
        assert any(reason in p for p in results[f"{case}-dist"]), (case, results[f"{case}-dist"])


@pytest.mark.slow
@pytest.mark.xdist_group("bad plugins")
def test_the_others_keep_working(n2kit: Run) -> None:
    plan = ["plan", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--connector", "mlp:4", "--json"]
    done = n2kit(*plan)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == "qwen:tiny+clip:tiny+mlp:4+gate"  # nobody asked for another gate
    done = n2kit(*plan, "--fusion", "plain")
    assert json.loads(done.stdout)["id"].endswith("+plain")
    done = n2kit(
        "build", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--connector", "mlp:4", "--fusion", "plain", "-o", "b"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("bad plugins")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--fusion", "gate"], 2, "fusion 'gate' is provided by two installed packages"),
        (["--fusion", "same-component-dist/gate"], 0, ""),
        (["--fusion", "abort"], 3, "plug-in abort-dist/abort is broken: killed the process by SIGABRT"),
        (["--fusion", "wrong-hook-dist/wrong-hook"], 3, "is broken: TypeError: there is no hook"),
        (["--vision", "heavy"], 3, "plug-in heavy-dist/heavy is broken: imports torch"),
        (["--vision", "clib:tiny"], 2, "unknown vision 'clib'"),
    ],
)
def test_asking_for_a_bad_one(n2kit: Run, arguments: list[str], code: int, message: str) -> None:
    done = n2kit("plan", "--llm", "qwen:tiny", "--vision", "clip:tiny", *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("bad plugins")
def test_a_target_that_does_not_exist_is_found_at_use(n2kit: Run) -> None:
    done = n2kit("build", "--llm", "qwen:tiny", "--vision", "no_target:tiny", "-o", "c")
    assert done.returncode == 3
    assert "no-target-dist: cannot import bad_nowhere:Part" in done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("bad plugins")
def test_plugins_can_be_left_out(n2kit: Run) -> None:
    done = n2kit(
        "--disable-plugin",
        "same-component-dist",
        "plan",
        "--llm",
        "qwen:tiny",
        "--vision",
        "clip:tiny",
        "--fusion",
        "gate",
    )
    assert done.returncode == 0, done.stderr
    done = n2kit("plan", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--fusion", "gate", N2KIT_PLUGINS="n2kit")
    assert done.returncode == 0, done.stderr
    done = n2kit("plugins", "list", "--json", N2KIT_PLUGINS="-abort,-n2kit/timm")
    states = {p["name"]: p["disabled"] for p in json.loads(done.stdout)}
    assert [name for name, off in states.items() if off] == ["abort", "timm"]
    done = n2kit("plan", "--llm", "qwen:tiny", "--vision", "timm:tiny", N2KIT_PLUGINS="-timm")
    assert done.returncode == 3
    assert "plug-in n2kit/timm is disabled" in done.stderr
    done = n2kit("--disable-plugin", "nobody", "plugins", "list")
    assert done.returncode == 2
    assert "'nobody'" in done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("bad plugins")
def test_an_import_is_probed_once(n2kit: Run, tmp_path: Path) -> None:
    """A verdict that its files decide is remembered; a plug-in that could not be imported is tried again each time."""
    n2kit("plugins", "list", N2KIT_CACHE=str(tmp_path))
    kept = json.loads((tmp_path / "plugins.json").read_text())
    n2kit("plugins", "list", N2KIT_CACHE=str(tmp_path))
    assert json.loads((tmp_path / "plugins.json").read_text()) == kept
    unkept = ("import-error", "system-exit", "abort", "newer", "older")  # the last two are not imported at all
    assert len(kept) == 3 + len(CHECKED) + len(LISTED) - len(unkept)  # the heavy one among them, with its reason
