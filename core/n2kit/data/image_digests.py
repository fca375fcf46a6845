"""Hashes of images by their content, which identify a folder of images wherever it lies."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from n2kit.data.image_source import GivenImage, NotFound, locate
from n2kit.utils.digests import file_digests

if TYPE_CHECKING:
    from n2kit.data.items import Item

_BY_SIZE = re.compile("[0-9a-f]{16}")  # a digest of images as versions before made it
OF_SIZES = "was written by an earlier version, which could not tell images of the same size from each other"


def images_digest(items: Iterable[Item], folder: Path | None) -> str:
    """Hash the content of all items' image files, which identifies a folder of images wherever it lies."""
    names = [item.image for item in items]
    digest = hashlib.sha256()
    for name, content in zip(names, image_contents(names, folder), strict=True):
        digest.update(json.dumps([name, content]).encode())
    return f"content:{digest.hexdigest()[:16]}"


def image_contents(names: Sequence[str], folder: Path | None) -> list[str | None]:
    """Hash the content of the file behind each image's name; None where there is none, or the name says the content itself."""
    files = [image_file(name, folder) for name in names]
    contents = file_digests(file for file in files if file is not None)
    return [None if file is None else next(contents) for file in files]


def image_file(name: str, folder: Path | None) -> Path | None:
    """Find the file whose content an image's name stands for; None if there is none, or the name says the content itself."""
    if isinstance(name, GivenImage):
        return name.source if isinstance(name.source, Path) else None
    if not name or folder is None or name.startswith("content:"):
        return None
    try:
        plain = folder / name
        return plain if plain.is_file() else locate(name, folder)
    except (NotFound, OSError, ValueError, RuntimeError):
        return None


def is_of_sizes(digest: object) -> bool:
    """Tell whether a digest of images was made by a version that hashed the sizes of the files, and not their content."""
    return isinstance(digest, str) and _BY_SIZE.fullmatch(digest) is not None
