"""The scaffold of `n2kit plugins new`: a complete plug-in package that works as it is written."""

from __future__ import annotations

import importlib.util
import os
import re
from importlib import resources
from pathlib import Path

from n2kit.contract.hookspecs import PLUGIN_API
from n2kit.contract.kinds import BACKBONES, KINDS, Kind
from n2kit.errors import BadInput
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.specs import LONGEST_NAME
from n2kit.plugins.weights import SCHEMES
from n2kit.utils.folders import ensure_outside_bundles
from n2kit.utils.locks import output_lock

TEMPLATES = resources.files("n2kit.scaffold").joinpath("templates")
SCAFFOLDS: tuple[Kind, ...] = tuple(kind for kind in KINDS if TEMPLATES.joinpath(f"model_{kind}.py.j2").is_file())
RESERVED_NAMES = {*SCHEMES, "random", "none", "tests", "cli"}
_IMPORTED = {
    "Any", "BaseModel", "Callable", "Field", "Mapping", "Path", "Saved", "Self", "Tensor", "Tokenizer", "True", "False",
}  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def _owner(name: str) -> str | None:
    """Return what has a name already, of any kind: a component, an entry of the catalogue, a known plug-in."""
    catalogue = default_catalogue()
    if name in catalogue.known:
        return f"plug-in {catalogue.known[name].distribution}, which n2kit plugins known lists"
    return next((f"{kind} that n2kit ls {name} shows" for kind in KINDS if name in catalogue.names(kind)), None)


def _class_name(name: str, kind: str) -> str:
    """Make the name of a component's class: one that is no word of Python, and that its module does not import."""
    import n2kit.contract

    made = "".join(part.capitalize() for part in name.split("-"))
    return made + kind.capitalize() if made in {*n2kit.contract.__all__, *_IMPORTED} else made


def write_package(name: str, kind: str, folder: Path) -> list[str]:
    """Write the package of a component called `name` into `folder`; return the paths of its files, relative to it.

    Raises:
        BadInput: a name that cannot be one, a kind without a scaffold, or a folder that is not empty.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    from n2kit.utils.version import VERSION

    if kind not in SCAFFOLDS:
        raise BadInput(f"no package to write for kind {kind!r}", f"--kind {', '.join(SCAFFOLDS)}")
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        hint = f"lower-case letters, digits and single dashes, at most {LONGEST_NAME}: my-tower"
        raise BadInput(f"{name!r} is no name for a component", hint)
    if name in RESERVED_NAMES or importlib.util.find_spec("n2kit_" + name.replace("-", "_")) is not None:
        raise BadInput(f"{name!r} is taken: by n2kit, a weight source, or an installed module", "another name")
    if owner := _owner(name):
        raise BadInput(f"{name!r} is taken: by the {owner}", "another name")
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists and is not empty", "give another -o")
    ensure_outside_bundles(folder)
    module = "n2kit_" + name.replace("-", "_")
    facts = {
        "name": name,
        "kind": kind,
        "module": module,
        "distribution": f"n2kit-{name}",
        "class": _class_name(name, kind),
        "api": PLUGIN_API,
        "version": VERSION.partition("+")[0],
        "suite": {"llm": "LLM", "mllm": "MLLM"}.get(kind, kind.capitalize()) + "Suite",
        "backbone": kind in BACKBONES,
    }
    loader = FunctionLoader(lambda template: TEMPLATES.joinpath(template).read_text("utf8"))
    environment = Environment(
        loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, autoescape=False
    )
    written = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"{module}/__init__.py": "init.py.j2",
        f"{module}/plan.py": f"plan_{kind}.py.j2",
        f"{module}/model.py": f"model_{kind}.py.j2",
        f"{module}/py.typed": "empty.j2",
        f"tests/test_{module}.py": "test.py.j2",
        ".gitignore": "gitignore.j2",
        ".github/workflows/test.yaml": "workflow.yaml.j2",
        "LICENSE": "licence.j2",
    }
    with output_lock(folder):
        for file, template in written.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(environment.get_template(template).render(facts), "utf8")
    return sorted(written)
