"""Readers of item files that plug-ins bring, chosen by the file's ending, or by `--format`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from n2kit.data.tables import KINDS, NumberedRow
from n2kit.errors import BadInput, suggest
from n2kit.plugins.registries import Entry, one, registered

READER = "item reader"
AUTO, NOTELLM = "auto", "notellm"  # formats of n2kit's own: by the file, and the paper's headerless CSV


def item_reader(path: Path, item_format: str = AUTO) -> Entry | None:
    """Find the plug-in's reader of a file; None for a file that n2kit reads itself, or that nobody registered.

    Args:
        item_format: the name of a reader (`sqlite` is the one of `.sqlite`), or `auto`: the one of the file's ending.

    Raises:
        BadInput: no such format, or two packages read such files.
    """
    if item_format != AUTO:
        there = registered(READER)
        names = {name.removeprefix("."): name for name in there}
        known = (AUTO, NOTELLM, *names)
        if item_format not in names:
            hint = suggest(item_format, known) or f"there are: {', '.join(known)}"
            raise BadInput(f"unknown format of items {item_format!r}", hint)
        return one(there[names[item_format]], f"the item format {item_format}")
    ending = path.suffix.lower()
    if not ending or ending in KINDS or ending == ".gz":
        return None
    entries = registered(READER).get(ending)
    return one(entries, f"the item format {ending}") if entries else None


def plugged_rows(path: Path, reader: Entry) -> Iterator[NumberedRow]:
    """Yield the rows that a plug-in's reader gives, numbered from 1.

    Raises:
        BadInput: the file is no such file, as the reader says (`ValueError`). Unavailable: the reader fails otherwise.
    """
    read = reader.load()
    try:
        with reader.attribute_errors(ValueError):
            for number, row in enumerate(read(path), 1):
                if not isinstance(row, Mapping):
                    raise TypeError(f"gives {type(row).__name__}, no mapping")
                yield number, row
    except ValueError as error:
        raise BadInput(f"{path}: {error}".partition("\n")[0], "check the file") from error
