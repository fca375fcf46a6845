"""The house: no import circle, no import upward, plug-ins by the front door, and docs/architecture.md true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf8")
CORE = ROOT / "core" / "n2kit"
FRONT_DOOR = {"n2kit.contract", "n2kit.errors", "n2kit.testing"}  # what a plug-in imports


def module_of(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def files_of(root: Path, package: str) -> dict[str, Path]:
    return {module_of(f, root): f for f in sorted((root / package).rglob("*.py"))}


def imports(source: str, known: set[str], package: str) -> Iterator[str]:
    """Yield the modules of `package` that a source imports when it runs, also within functions; for types alone is no import."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.ImportFrom) and child.module:
                assert child.level == 0, "imports are absolute"
                for name in child.names:
                    whole = f"{child.module}.{name.name}"
                    yield whole if whole in known else child.module
            elif isinstance(child, ast.Import):
                yield from (name.name for name in child.names)
            yield from walk(child)

    return (name for name in walk(ast.parse(source)) if name.partition(".")[0] == package)


def graph(root: Path, package: str) -> dict[str, set[str]]:
    """Module → the modules of the same package that it imports."""
    files = files_of(root, package)
    return {
        module: set(imports(file.read_text("utf8"), set(files), package)) - {module} for module, file in files.items()
    }


def room(module: str) -> str:
    """The room of a module: `n2kit.train.step` → `train`; the package's own face → `n2kit`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


PACKAGES = [("core", "n2kit"), ("cli", "n2kit_cli"), *(("plugins", f.name) for f in (ROOT / "plugins").iterdir())]


@pytest.mark.parametrize(("folder", "package"), [p for p in PACKAGES if (ROOT / p[0] / p[1] / "__init__.py").is_file()])
def test_no_files_import_each_other_in_a_circle(folder: str, package: str) -> None:
    TopologicalSorter(graph(ROOT / folder, package)).prepare()  # raises CycleError, which names the circle


def test_a_circle_is_seen() -> None:
    source = "def f():\n    from n2kit.embed import encode\n"
    assert list(imports(source, {"n2kit.embed", "n2kit.embed.encode"}, "n2kit")) == ["n2kit.embed.encode"]
    assert not list(imports("if TYPE_CHECKING:\n    from n2kit.embed import encode\n", set(), "n2kit"))


def rooms() -> list[str]:
    """The rooms as docs/architecture.md orders them, the ground first."""
    table = PAGE.partition("## The rooms")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_the_page_names_every_room_once() -> None:
    there = {p.stem for p in CORE.iterdir() if (p.is_dir() and any(p.glob("*.py"))) or p.suffix == ".py"} - {"__init__"}
    assert sorted(rooms()) == sorted(there)


def test_no_room_imports_one_that_stands_above_it() -> None:
    order = {name: n for n, name in enumerate(rooms())}
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph(ROOT / "core", "n2kit").items()
        for target in targets
        if module != "n2kit" and order[room(module)] < order.get(room(target), len(order))
    ]
    assert not wrong


def test_plug_ins_come_in_by_the_front_door() -> None:
    own = [f for folder in ("plugins", "examples") for f in (ROOT / folder).rglob("*.py")]
    written = list((CORE / "scaffold" / "templates").glob("*.py.j2"))
    assert len(own) > 40
    assert len(written) > 8
    wrong = [
        f"{file.relative_to(ROOT)}: {module}"
        for file in own + written
        for module in re.findall(r"^\s*(?:from|import) (n2kit(?:\.\w+)*)\b", file.read_text("utf8"), re.MULTILINE)
        if module not in FRONT_DOOR
    ]
    assert not wrong


def test_data_needs_no_torch() -> None:
    names = [m for m in files_of(ROOT / "core", "n2kit") if room(m) == "data"]
    code = f"import sys, {', '.join(names)}\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_file_that_the_page_names_is_there() -> None:
    named = re.findall(r"`((?:[\w*]+/)*[\w*]+\.(?:py|yaml)|(?:\w+/)+[\w*]*)`", PAGE)
    assert len(named) > 50
    missing = [n for n in named if not any(any(base.glob(n.rstrip("/"))) for base in (ROOT, CORE))]
    assert not missing


def test_the_page_of_the_public_api_is_that_of_the_code() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from make_api import PAGE as API
        from make_api import page
    finally:
        sys.path.pop(0)
    assert API.read_text("utf8") == page(), "python docs/make_api.py"


OPENERS = ("What", "Whether", "How", "Which")


@pytest.mark.parametrize("folder", ["core", "cli", "plugins", "tests", "benchmarks", "examples", "docs"])
def test_no_docstring_opens_with_a_question(folder: str) -> None:
    wrong = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if text.split(maxsplit=1)[:1] and text.split(maxsplit=1)[0] in OPENERS:
                    wrong.append(f"{file.relative_to(ROOT)}: {text.splitlines()[0]}")
    assert not wrong
