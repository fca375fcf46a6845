"""n2kit index --upsert and --delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from n2kit.errors import BadInput, counted
from n2kit_cli import options
from n2kit_cli.output import document, emit, say

if TYPE_CHECKING:
    from n2kit.index import Titles
    from n2kit.index.facts import Facts


def change_index(
    out: Path,
    vectors: Path | None,
    delete: Path | None,
    titles: Titles | None,
    facts: Facts | None,
    encoding: str | None,
    *,
    json: bool,
) -> None:
    """Change an index, and say by how much."""
    from n2kit.index.update import update_index

    gone = [] if delete is None else read_ids(delete, encoding)
    done = update_index(out, vectors, delete=gone, titles=titles, facts=facts)
    counts = {"added": done.added, "replaced": done.replaced, "deleted": done.deleted}
    if json:
        document({"index": str(out), "items": len(done.stored.ids), "fingerprint": done.stored.fingerprint} | counts)
    else:
        emit(out)
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    say(f"wrote {out}: {counted(len(done.stored.ids), 'item')} ({said})")


def read_ids(file: Path, encoding: str | None = None) -> list[str]:
    """Read ids: a table with a column of ids, or one id a line.

    Raises:
        BadInput: no such file, or no id in it.
    """
    from n2kit.data.item_stream import ItemStream
    from n2kit.data.text_files import opened

    if not file.is_file():
        raise BadInput(f"no file of ids {file}", "one id a line, or a table with a column id")
    try:
        ids = [item.id for item in ItemStream(file, encoding=encoding)]
    except BadInput:
        with opened(file, encoding) as lines:
            ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise BadInput(f"{file}: no ids", "one id a line, or a table with a column id")
    return list(dict.fromkeys(ids))


def read_facts(items: Path | None, item_format: str, renames: list[str] | None, encoding: str | None) -> Facts | None:
    """Read the columns of a file of items that an index is to remember; None without one."""
    if items is None:
        return None
    from n2kit.data.item_stream import ItemStream
    from n2kit.index.facts import read_facts as read

    columns = options.columns(renames)[0]
    return read(ItemStream(items, columns=columns, format=item_format, encoding=encoding, every_column=True))
