"""Readers of item files that plug-ins bring, chosen by the file's ending."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from n2kit.data.tables import KINDS, NumberedRow
from n2kit.errors import BadInput, N2kitError, Unavailable
from n2kit.plugins.blame import advice, lacks_memory
from n2kit.plugins.registries import Entry, one, registered

HOOK = "n2kit_register_item_readers"


def item_reader(path: Path) -> Entry | None:
    """Find the plug-in's reader of a file; None for a file that n2kit reads itself, or that nobody registered.

    Raises:
        BadInput: two packages read such files.
    """
    ending = path.suffix.lower()
    if not ending or ending in KINDS or ending == ".gz":
        return None
    entries = registered(HOOK).get(ending)
    return one(entries, f"the item format {ending}") if entries else None


def plugged_rows(path: Path, reader: Entry) -> Iterator[NumberedRow]:
    """Yield the rows that a plug-in's reader gives, numbered from 1.

    Raises:
        BadInput: the file is no such file, as the reader says (`ValueError`). Unavailable: the reader fails otherwise.
    """
    read = reader.load()
    try:
        for number, row in enumerate(read(path), 1):
            if not isinstance(row, Mapping):
                raise TypeError(f"gives {type(row).__name__}, no mapping")
            yield number, row
    except (N2kitError, KeyboardInterrupt, GeneratorExit):
        raise
    except ValueError as error:
        raise BadInput(f"{path}: {error}".partition("\n")[0], "check the file") from error
    except BaseException as error:  # an exit, too
        if lacks_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise Unavailable(
            f"item reader {reader.target} of {reader.distribution}: {reason}", advice(reader.distribution)
        ) from error
