"""`columns.yaml`: columns of a folder's files as `--map` names them, and `--encoding`; written once and read by every command.

items.csv: {title: name, image: photo, encoding: cp1252}
train.csv: {query: left, target: right}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from n2kit.errors import BadInput, suggest
from n2kit.utils.files import write_text

FILE = "columns.yaml"
ENCODING = "encoding"  # the key beside those of fields


def mapped_columns(path: Path, fields: Collection[str]) -> dict[str, str]:
    """Read what `columns.yaml` beside a file says of it: field → column; nothing without one.

    Raises:
        BadInput: it is no such file; it names a field that is none.
    """
    own = _read(path.parent / FILE).get(path.name, {})
    found = {name: column for name, column in own.items() if name != ENCODING}
    if unknown := [name for name in found if name not in fields]:
        hint = suggest(unknown[0], fields) or f"fields: {', '.join(fields)}"
        raise BadInput(f"{path.parent / FILE}: {path.name}: no such field {unknown[0]!r}", hint)
    return found


def mapped_encoding(path: Path) -> str | None:
    """Read which encoding `columns.yaml` beside a file says that it has."""
    return _read(path.parent / FILE).get(path.name, {}).get(ENCODING)


def lost_files(path: Path, *, unless_named: bool = False) -> list[str]:
    """Say of which files `columns.yaml` beside a file speaks, though they are not there: nobody reads that.

    unless_named: say nothing where it speaks of this file.
    """
    content = _read(path.parent / FILE)
    lost = [name for name in content if not (path.parent / name).exists()]
    if not lost or (unless_named and path.name in content):
        return []
    alike = path.name not in content and any(suggest(_stem(name), [_stem(path.name)]) for name in lost)
    near = f" (did you mean {path.name}?)" if alike else ""
    return [f"{path.parent / FILE} speaks of {', '.join(lost)}, which is not there{near}"]


def _stem(name: str) -> str:
    """Return a file's name without its endings, by which all tables are alike."""
    return name.lower().partition(".")[0]


def copied_columns(folder: Path, names: Collection[str]) -> dict[str, dict[str, str]]:
    """Read what a folder's `columns.yaml` says of these files."""
    return {name: own for name, own in _read(folder / FILE).items() if name in names}


def write_columns(folder: Path, columns: Mapping[str, Mapping[str, str]]) -> Path:
    """Write file → field → column into a folder's `columns.yaml`; what it says of other files and fields stays."""
    import yaml

    file = folder / FILE
    merged = _read(file)
    for name, own in columns.items():
        merged[name] = merged.get(name, {}) | dict(own)
    write_text(file, yaml.safe_dump(merged, allow_unicode=True, sort_keys=False))
    return file


def _read(file: Path) -> dict[str, dict[str, str]]:
    if not file.is_file():
        return {}
    from n2kit.utils.yaml_files import read_yaml

    content: Any = read_yaml(file) or {}
    for name, own in content.items() if isinstance(content, dict) else [("it", None)]:
        if not isinstance(own, dict) or not all(isinstance(t, str) and t for pair in own.items() for t in pair):
            raise BadInput(
                f"{file}: {name} is no mapping of fields to columns", "items.csv: {title: name, image: photo}"
            )
    return content  # type: ignore[no-any-return]
