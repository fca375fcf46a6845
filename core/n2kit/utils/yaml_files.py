"""YAML as n2kit reads it: by the fast loader where there is one, and with the line of every value.

Refused are what YAML allows and no file of settings needs: aliases (half a page of them makes billions of values), the second of
two equal keys (which would count in silence), tags of other types, and more depth or length than people write.
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
MOST_CHARACTERS = 4_000_000
MOST_DEPTH = 50
# Tags that may be written out. Others make what no setting is: a date, bytes, a set, an object of Python's.
TAGS = {
    yaml.ScalarEvent: {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")},
    yaml.SequenceStartEvent: {"tag:yaml.org,2002:seq"},
    yaml.MappingStartEvent: {"tag:yaml.org,2002:map"},
}
Place = tuple[str | int, ...]  # of a value in a file: ("arms", 0, "name")


class YamlValue(NamedTuple):
    """A value of a file: its place there, its line from 1, and its node, from which `construct` makes it."""

    place: Place
    line: int
    node: yaml.Node


def parse_yaml(text: str) -> Any:
    """Parse a YAML document.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is none that n2kit reads; see `ERRORS`.
    """
    root = _compose(text)
    _refuse_repeated_keys(root)
    return None if root is None else construct(root)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        BadInput: it is none that n2kit reads, with the line.
    """
    try:
        return parse_yaml(_text_of(path))
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
        root = _compose(_text_of(path))
        for value, named in _walk(root, (), path, text_keys):
            key = ".".join(map(str, value.place))
            if named and key in first:
                raise BadInput(
                    f"{path}:{value.line}: {key} is set twice, first at {path}:{first[key]}", "remove one of them"
                )
            first.setdefault(key, value.line)
            values.append(value)
    except ERRORS as error:
        raise not_yaml(path, error) from None
    return root, values


def _text_of(path: Path) -> str:
    if path.stat().st_size > 4 * MOST_CHARACTERS:
        raise ValueError(f"longer than {MOST_CHARACTERS:,} characters")
    return path.read_text("utf8")


def _compose(text: str) -> yaml.Node | None:
    """Make the nodes of a document that has nothing which n2kit refuses; None of an empty one."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"longer than {MOST_CHARACTERS:,} characters")
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):  # before any node: a parser of nodes recurses
        problem = None
        if isinstance(event, yaml.AliasEvent):
            problem = f"the alias *{event.anchor}: write the value out"
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            depth += isinstance(event, yaml.CollectionStartEvent)
            tag = getattr(event, "tag", None)
            if depth > MOST_DEPTH:
                problem = f"nested deeper than {MOST_DEPTH} levels"
            elif tag is not None and tag not in TAGS[type(event)]:
                problem = f"the tag {tag.replace('tag:yaml.org,2002:', '!!')}: there is no such type here"
        if problem:
            mark: Any = event.start_mark  # of libyaml, or of Python: both have a line
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
    return yaml.compose(text, Loader=LOADER)


def _refuse_repeated_keys(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated_keys(value)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in first:
                    problem = f"{key.value} is set twice, first on line {first[key.value]}"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                first[key.value] = key.start_mark.line + 1
            _refuse_repeated_keys(key)
            _refuse_repeated_keys(value)


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
