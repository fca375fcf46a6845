"""The README's code runs as it stands there."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from n2kit.manager import Manager
from n2kit.testing.probe import problems_of

README = (Path(__file__).parents[1] / "README.md").read_text("utf8")
BLOCKS = dict(re.findall(r"<!-- tested: (\S+) -->\n```python\n(.*?)```", README, re.S))


def test_python(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").symlink_to(workspace / "images")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS["python"], "README.md", "exec"), {})


def test_adding_a_backbone(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import n2kit
    from n2kit import bundle, registry

    for name in ("n2kit_grid.py", "n2kit_grid_model.py"):
        (tmp_path / name).write_text(BLOCKS[name])
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("grid", "n2kit_grid", "n2kit")

    class Dist:
        name, version = "n2kit-grid", "0.1"

    vars(point).update(dist=Dist())
    made = Manager([point, *entry_points(group="n2kit")])
    assert not made.broken()
    (plugin,) = (p for p in made.plugins if p.name == "grid")
    assert problems_of(plugin) == []
    monkeypatch.setattr(registry, "registry", lambda: registry.Registry(made, []))
    monkeypatch.setattr("n2kit.plan.registry", lambda: registry.Registry(made, []))
    monkeypatch.setattr(bundle, "manager", lambda: made)
    model = n2kit.build("qwen:tiny", "grid", connector="mlp:tiny")
    items = [{"title": "a", "image": "noto_1.png"}]
    vectors = model.encode(items, images=workspace / "images")
    model.save(tmp_path / "b")
    assert (n2kit.load(tmp_path / "b").encode(items, images=workspace / "images") == vectors).all()
    assert sys.modules["n2kit_grid_model"].Grid().card.parameters == sum(
        p.numel() for p in model.parts.vision.parameters()
    )  # type: ignore[union-attr]


def test_every_command_line_of_the_readme_exists() -> None:
    from n2kit_cli.main import app

    known = {c.name for c in app.registered_commands} | {g.name for g in app.registered_groups}
    used = set(re.findall(r"^n2kit (\w+)", README, re.M))
    assert used
    assert used <= known


def test_variants_of_the_readme_are_the_variants_there_are() -> None:
    from n2kit.variants import SPECS

    rows = re.findall(r"^\| `(\w+)`[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", README, re.M)
    said = {name: tuple("✓" in cell for cell in cells) for name, *cells in rows}
    assert said == {name: (s.early, s.micl, s.late, s.text) for name, s in SPECS.items()}
