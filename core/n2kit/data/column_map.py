"""`columns.yaml`: the columns of a folder's files as `--map` names them, written once and read by every command.

items.csv: {title: name, image: photo}
train.csv: {query: left, target: right}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from n2kit.errors import BadInput, suggest
from n2kit.utils.files import write_text

FILE = "columns.yaml"


def mapped_columns(path: Path, fields: Collection[str]) -> dict[str, str]:
    """Read what `columns.yaml` beside a file says of it: field → column; nothing without one.

    Raises:
        BadInput: it is no such file; it names a field that is none.
    """
    found = _read(path.parent / FILE).get(path.name, {})
    if unknown := [name for name in found if name not in fields]:
        hint = suggest(unknown[0], fields) or f"fields: {', '.join(fields)}"
        raise BadInput(f"{path.parent / FILE}: {path.name}: no such field {unknown[0]!r}", hint)
    return found


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
