"""Writing so that nothing half-written is ever seen, and nothing of the user's is ever replaced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from n2kit.errors import BadInput


def write_json(path: Path, content: Any) -> None:
    """Write aside and rename."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf8")
    aside.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Raises BadInput if the file is no JSON object."""
    try:
        content = json.loads(path.read_text("utf8"))
    except ValueError as error:
        raise BadInput(f"{path}: not valid JSON: {error}", "the file is damaged: make it again") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: not a JSON object", "the file is damaged: make it again")
    return content


def check_free(folder: Path, marker: str, *, force: bool) -> None:
    """Whether a folder may be written: it is not there, empty, or with `force` one of our own (it has `marker`).

    Raises:
        BadInput: something is in the way.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / marker).is_file():
        raise BadInput(f"{folder} exists, and n2kit did not make it", "give another -o")
    if not force:
        raise BadInput(f"{folder} exists", "give another -o, or --force to replace it")


def move_into_place(staged: Path, folder: Path) -> None:
    """Replace `folder`, which `check_free` allowed, by a finished one beside it."""
    if folder.exists():
        shutil.rmtree(folder)
    staged.replace(folder)
