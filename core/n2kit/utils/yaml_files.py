"""YAML as n2kit reads it: by the fast loader where there is one, and with the line of every value.

YAML takes the last of two equal keys in silence; a file that is read with its lines may not have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from n2kit.errors import BadInput

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, five times as fast
ERRORS = (yaml.YAMLError, ValueError, RecursionError)  # ValueError: a date that no calendar has
TEXTS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")  # tags of a key that is text
MOST_VALUES = 100_000  # a few aliases of aliases make billions
Place = tuple[str | int, ...]  # of a value in a file: ("arms", 0, "name")


class YamlValue(NamedTuple):
    """A value of a file: its place there, its line from 1, and its node, from which `construct` makes it."""

    place: Place
    line: int
    node: yaml.Node


def parse_yaml(text: str) -> Any:
    """Parse a YAML document.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is none; see `ERRORS`.
    """
    return yaml.load(text, Loader=LOADER)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        BadInput: it is none, with the line.
    """
    try:
        return parse_yaml(path.read_text("utf8"))
    except ERRORS as error:
        raise not_yaml(path, error) from None


def read_with_lines(path: Path, *, text_keys: bool = False) -> tuple[yaml.Node | None, list[YamlValue]]:
    """Read a YAML file as its root node (None where it is empty) and all values under it, in the file's order.

    Args:
        text_keys: refuse keys that YAML reads as numbers or the like; otherwise a key is the text that stands there.

    Raises:
        BadInput: no YAML, a key that is no text, or one that is there twice, with the line. `train.lr` and `lr` under `train`
            are the same key.
    """
    first: dict[str, int] = {}  # dotted key → its line
    values = []
    try:
        root = yaml.compose(path.read_text("utf8"), Loader=LOADER)
        for value, named in _walk(root, (), path, text_keys):
            key = ".".join(map(str, value.place))
            if named and key in first:
                raise BadInput(
                    f"{path}:{value.line}: {key} is set twice, first at {path}:{first[key]}", "remove one of them"
                )
            first.setdefault(key, value.line)
            values.append(value)
            if len(values) > MOST_VALUES:
                raise BadInput(f"{path}: has more than {MOST_VALUES:,} values", "write fewer, or fewer aliases")
    except ERRORS as error:
        raise not_yaml(path, error) from None
    return root, values


def construct(node: yaml.Node) -> Any:
    """Make the value of a node.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: there is no such value; see `ERRORS`.
    """
    return yaml.SafeLoader("").construct_object(node, deep=True)


def problem_of(error: BaseException) -> str:
    """Say in one line what is wrong with a document, or with a value."""
    return str(getattr(error, "problem", None) or error).splitlines()[0]


def not_yaml(path: Path, error: BaseException) -> BadInput:
    """Make the error for a file that cannot be parsed, with the line where the parser knows it."""
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    return BadInput(f"{path}{line}: not valid YAML: {problem_of(error)}", "correct the file")


def _walk(node: yaml.Node | None, place: Place, path: Path, text_keys: bool) -> Iterator[tuple[YamlValue, bool]]:
    """Yield every value under a node, and True where it has a name and not a number."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or (text_keys and key.tag not in TEXTS):
                raise BadInput(f"{path}:{line}: a key that is no text", "correct the file")
            yield YamlValue((*place, key.value), line, value), True
            yield from _walk(value, (*place, key.value), path, text_keys)
    elif isinstance(node, yaml.SequenceNode):
        for n, value in enumerate(node.value):
            yield YamlValue((*place, n), value.start_mark.line + 1, value), False
            yield from _walk(value, (*place, n), path, text_keys)
