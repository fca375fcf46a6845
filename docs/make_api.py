"""Write docs/api.md: the public names with their signatures and docstrings.

    python docs/make_api.py

A test holds the page against the code: after a change of a public docstring, run this again.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

PAGE = Path(__file__).with_name("api.md")
HEAD = """# Public API

What may be relied on: these names, and the command line. Everything else may move between versions.
This page is written by `python docs/make_api.py` from the docstrings.
"""
SECTIONS = re.compile(r"^(Args|Raises|Returns|Yields|Attributes)( \([^)]*\))?:$")
MODULES = {
    "n2kit": "The library: from a table of items to a trained, evaluated and indexed model; docs/python.md shows it in one go.",
    "n2kit.contract": "What a plug-in imports.",
    "n2kit.testing": "The conformance kit that plug-ins inherit their tests from.",
}


def page() -> str:
    """Return the whole page as Markdown."""
    parts = [HEAD]
    for name, summary in MODULES.items():
        module = importlib.import_module(name)
        parts.append(f"## `{name}`\n\n{summary}\n")
        parts += [
            entry(f"{name}.{member}", getattr(module, member)) for member in sorted(module.__all__, key=str.lower)
        ]
    return "\n".join([*parts, commands()])


def entry(name: str, thing: Any) -> str:
    """Return one name as Markdown: its signature, its docstring, and a class's own public methods."""
    if inspect.ismodule(thing):  # a package that is called as the function of its name
        thing = thing.__wrapped__
    if inspect.isclass(thing):
        lines = [f"### `{name}`\n", f"{_text(thing)}\n"]
        lines += [f"- {line}" for line in _methods(thing)]
        return "\n".join(lines) + ("\n" if lines[2:] else "")
    if callable(thing):
        return f"### `{name}`\n\n```python\n{name.rpartition('.')[2]}{_signature(thing)}\n```\n\n{_text(thing)}\n"
    if options := get_args(thing):
        return f"### `{name}`\n\nOne of {', '.join(f'`{option}`' for option in options)}.\n"
    return f"### `{name}`\n\nA constant of type `{type(thing).__name__}`.\n"


def _methods(cls: type) -> Iterator[str]:
    """Yield a class's own public methods and properties, a line each."""
    for name, member in vars(cls).items():
        plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name.startswith("_") or not (inspect.isfunction(plain) or isinstance(plain, property)):
            continue
        summary = (inspect.getdoc(getattr(cls, name)) or "").partition("\n\n")[0].replace("\n", " ")
        signature = "" if isinstance(plain, property) else _signature(plain)
        yield f"`{name}{signature}`" + (f": {summary}" if summary else "")


def _signature(function: Any) -> str:
    """Return a function's parameters and result as they are written in its source."""
    signature = inspect.signature(function)
    parameters = [p for name, p in signature.parameters.items() if name not in ("self", "cls")]
    return str(signature.replace(parameters=parameters)).replace("'", "")


def _text(thing: Any) -> str:
    """Return a docstring as Markdown, its sections as lists."""
    lines: list[str] = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        if SECTIONS.match(line):
            lines += [f"**{line.removesuffix(':')}**", ""]
        elif re.match(r"^    \S", line):
            lines.append(f"- {line.strip()}")
        else:
            lines.append(line if re.match(r"^\s*$|^\S", line) else f"  {line.strip()}")
    return "\n".join(lines).strip()


def commands() -> str:
    """Return the table of the program's commands; `n2kit COMMAND --help` tells the rest."""
    import typer

    from n2kit_cli.main import make_app

    program: Any = typer.main.get_command(make_app())
    rows = ["## The command line\n", "| command | what it does |", "|---|---|"]
    for name, command in program.commands.items():
        below = getattr(command, "commands", None)
        several = {f"{name} {inner}": c for inner, c in below.items()} if below else {name: command}
        rows += [f"| `n2kit {n}` | {(c.help or '').partition(chr(10))[0]} |" for n, c in several.items()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.path[:0] = [str(PAGE.parents[1] / folder) for folder in ("core", "cli", "plugins")]  # of this checkout
    PAGE.write_text(page(), encoding="utf8")
