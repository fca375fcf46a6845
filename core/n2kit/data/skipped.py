"""The list of the items and rows that a run could not use, beside its output."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from n2kit.utils.files import atomic_write

HEADER = ("id", "reason")


def write_skipped(out: Path, reasons: Mapping[str, str], dropped: Sequence[str] = ()) -> Path | None:
    """Write id and reason of every item to `OUT.skipped.csv`; without any, remove the list of an earlier run.

    Args:
        dropped: rows that a lenient reading left out; they stand without an id, as `file:line: reason`.

    Return the file, if there is one now. A file of that name that is no such list stays as it is.
    """
    file = out.with_name(f"{out.name}.skipped.csv")
    if file.exists() and not _is_list(file):
        return None
    if not reasons and not dropped:
        file.unlink(missing_ok=True)
        return None
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf8", newline="") as target:
        rows = [*sorted(reasons.items()), *(("", row) for row in dict.fromkeys(dropped))]
        csv.writer(target, lineterminator="\n").writerows([HEADER, *rows])
    return file


def _is_list(file: Path) -> bool:
    """Tell whether a file is a list that this module wrote."""
    try:
        with file.open(encoding="utf8", errors="replace") as lines:
            return lines.readline().rstrip("\n") == ",".join(HEADER)
    except OSError:
        return False
