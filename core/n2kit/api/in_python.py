"""Errors of the library in a program's words: arguments, where the command line has flags."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from n2kit.errors import N2kitError
from n2kit.plugins.blame import blaming

P = ParamSpec("P")
R = TypeVar("R")
_SET = re.compile(r"--set ([\w.]+)=(\S+?)(?=[,;)]|$|\s)")
_FLAG = re.compile(
    r"--([a-z][a-z0-9-]*)(?:[ =](?:(?:([A-Z][A-Z.]+)|((?:skip|text-only|\|)+))\b|((?:[\w-]+@)?(?:file:|hf:|pkg:|/)[^\s;,)]+)))?"
)
# A whole command line stays one.
_COMMAND = re.compile(r"(n2kit [a-z][a-z-]*(?: [^\s,;:)-][^\s,;:)]*){0,3}?(?: --?[a-z][\w-]*(?:[ =][^\s,;)]+)?)+)")
SWITCHES = {
    "lenient",
    "force",
    "by_reference",
    "allow_no_images",
    "allow_no_texts",
    "private",
}  # which the command line takes without a value
NAMES = {"map": "columns", "fetch_private": "private"}  # flags that are called otherwise
CALLS = {"fetch_images": "n2kit.fetch_images(items, folder)"}  # flags that are functions


def in_python(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function's errors speak of arguments: `images=…` for `--images DIR`, `settings={"train.lr": …}` for `--set train.lr=…`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with blaming():
                return function(*args, **kwargs)
        except N2kitError as problem:
            problem.message = reworded(problem.message)
            problem.hint = None if problem.hint is None else reworded(problem.hint)
            problem.args = (f"{problem.message} ({problem.hint})" if problem.hint else problem.message,)
            raise

    return call


def reworded(text: str) -> str:
    """Write the flags of a text as arguments, but for those of whole commands."""
    parts = _COMMAND.split(text)
    parts[::2] = map(_as_arguments, parts[::2])
    return "".join(parts)


def _as_arguments(text: str) -> str:
    text = _SET.sub(lambda found: f'settings={{"{found[1]}": {found[2]}}}', text)
    return re.sub(r"(?<![\w-])-o\b", "out", _FLAG.sub(_argument, text))


def _argument(flag: re.Match[str]) -> str:
    name = flag[1].replace("-", "_")
    name = NAMES.get(name, name)
    if name in CALLS:
        return CALLS[name]
    if flag[3]:  # values of --on-bad-image
        return f"{name}=" + " or ".join(f'"{value}"' for value in flag[3].split("|"))
    if flag[4]:  # a checkpoint, or a path
        return f'{name}="{flag[4]}"'
    return f"{name}=True" if name in SWITCHES else f"{name}=…" if flag[2] else f"{name}="
