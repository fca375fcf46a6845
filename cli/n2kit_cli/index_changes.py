"""n2kit index --upsert and --delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.errors import BadInput, Failed, counted
from n2kit_cli import options
from n2kit_cli.output import document, emit, say

if TYPE_CHECKING:
    from n2kit.data.item_stream import ItemStream
    from n2kit.index import Titles
    from n2kit.index.facts import Facts


TABLES = (".parquet", ".jsonl", ".json", ".tar")  # whose lines are no ids


def change_index(
    out: Path,
    vectors: Path | None,
    delete: Path | None,
    items: Path | None,
    titles: Titles | None,
    facts: Facts | None,
    encoding: str | None,
    *,
    lenient: bool,
    dim: int | None,
    json: bool,
) -> None:
    """Change an index, and say by how much."""
    from n2kit.index.update import update_index

    gone = [] if delete is None else read_ids(delete, encoding, lenient=lenient)
    where = "" if delete is None else str(delete)
    done = update_index(out, vectors, delete=gone, titles=titles, facts=facts, dim=dim, deletions=where)
    if done.unnamed:
        what = (
            f"of {counted(done.unnamed, 'item')} that was put in"
            if done.unnamed == 1
            else f"of {done.unnamed:,} items that were put in"
        )
        where = "the index remembers no title, and --items was not given" if items is None else f"nothing is in {items}"
        say(f"note: {what} {where}")
    counts = {"added": done.added, "replaced": done.replaced, "deleted": done.deleted}
    if json:
        told = {"index": str(out), "items": len(done.stored.ids), "fingerprint": done.stored.fingerprint}
        document(told | counts | {"unnamed": done.unnamed})
    else:
        emit(out)
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    say(f"wrote {out}: {counted(len(done.stored.ids), 'item')} ({said})")


def migrate_index(
    out: Path,
    vectors: Path,
    name: str | None,
    own: dict[str, Any],
    titles: Titles | None,
    facts: Facts | None,
    *,
    dim: int | None,
    json: bool,
) -> None:
    """Compare an index with another model's vectors, say how alike they are, and switch if they are whole.

    Raises:
        Failed: an item of the index is missing.
    """
    from n2kit.index.comparing import K
    from n2kit.index.migrate import migrate

    done = migrate(out, vectors, name=name, options=own, titles=titles, facts=facts, dim=dim)
    k = min(K, done.compared - 1)
    told = vars(done) | {"missing": len(done.missing), "index": str(out), "k": k}
    if json:
        document(told)
    else:
        emit(out)
    say(
        f"model {done.before} → {done.after}: of {counted(done.compared, 'item')} the first {k} neighbours agree to {done.overlap:.1%}, "
        f"the nearest to {done.first:.1%}"
    )
    if done.missing:
        what = (
            f"{counted(len(done.missing), 'item')} of {out} have no vector in {vectors}, the first {done.missing[0]!r}"
        )
        raise Failed(f"{what}: nothing is switched", "embed them too, or --delete them first")
    short = "" if done.dim is None else f", the first {done.dim} numbers"
    say(f"wrote {out}: {counted(done.items, 'item')} of model {done.after}{short} ({done.added:,} added)")


def read_ids(file: Path, encoding: str | None = None, *, lenient: bool = False) -> list[str]:
    """Read ids: a table with a column of ids, or one id a line; an id may be there twice, and lines may be blank.

    Raises:
        BadInput: no such file, no id in it, or a row that cannot be read, unless `lenient`.
    """
    from n2kit.data.item_stream import ItemStream
    from n2kit.data.items import raise_row_errors
    from n2kit.data.text_files import opened

    if not file.is_file():
        raise BadInput(f"no file of ids {file}", "one id a line, or a table with a column id")
    table = ItemStream(file, encoding=encoding)
    try:
        ids = _ids_of_table(table)
    except BadInput:
        if Path(file.name.lower().removesuffix(".gz")).suffix in TABLES:
            raise
        with opened(file, encoding) as lines:
            ids = [line.strip() for line in lines if line.strip()]
    else:
        lost = [problem for problem in table.dropped if problem not in table.idle]
        raise_row_errors(lost, lenient)
        options.dropped(file, lost)
    if not ids:
        raise BadInput(f"{file}: no ids", "one id a line, or a table with a column id")
    return list(dict.fromkeys(ids))


def _ids_of_table(items: ItemStream) -> list[str]:
    from n2kit.data.item_stream import ColumnsChangedError

    while True:
        try:
            return [item.id for item in items]
        except ColumnsChangedError:  # the next pass knows the column
            continue


def read_facts(
    items: Path | None, item_format: str, renames: list[str] | None, encoding: str | None, index: Path | None = None
) -> Facts | None:
    """Read the columns of a file of items that an index is to remember; None without one.

    Args:
        index: that they are put into, whose columns keep their types.
    """
    if items is None:
        return None
    from n2kit.data.item_stream import ItemStream
    from n2kit.index.facts import read_facts as read
    from n2kit.index.folder import typed_columns
    from n2kit.index.where_hints import amounts

    columns = options.columns(renames)[0]
    known = None if index is None else typed_columns(index)
    facts = read(ItemStream(items, columns=columns, format=item_format, encoding=encoding, every_column=True), known)
    for name, value in amounts(facts.columns):
        say(f"note: column {name} stays text, and is compared as such: {value!r} is no plain number, as 12.90 is")
    return facts
