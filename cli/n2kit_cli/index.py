"""n2kit index."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit.errors import BadInput, counted
from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.index_changes import change_index, migrate_index, read_facts
from n2kit_cli.output import document, emit, say
from n2kit_cli.pages import read_titles

if TYPE_CHECKING:
    from n2kit.index import StoredIndex
    from n2kit.index.auto import Measured
    from n2kit.index.comparing import Compared


class Quantize(StrEnum):
    int8 = "int8"
    binary = "binary"


IndexSets = Annotated[
    list[str] | None, typer.Option("--set", help="An option of the index: --set index.NAME=VALUE. Repeatable.")
]


@takes_data()
def index(
    out: Annotated[Path, typer.Option("-o", "--out", help="The index's folder.")],
    vectors: Annotated[Path | None, typer.Argument(help="A file or a folder that n2kit embed wrote.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--type", help="NAME or NAME:VALUE of n2kit ls index, flat by default; auto: the best by measurement."
        ),
    ] = None,
    sets: IndexSets = None,
    quantize: Annotated[
        Quantize | None,
        typer.Option(help="Codes in memory, a byte or a bit a number; the best are compared again by vectors on disk."),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(min=1, help="Index the first numbers alone, of a model trained with loss matryoshka.")
    ] = None,
    items: Annotated[
        Path | None, typer.Option("--items", help="Items, whose titles and columns the index is to remember.")
    ] = None,
    images: options.Images = None,
    upsert: Annotated[
        bool,
        typer.Option(
            "--upsert", help="Put the vectors into the index that is there, in place of those of the same ids."
        ),
    ] = False,
    delete: Annotated[
        Path | None,
        typer.Option("--delete", help="Ids to delete from the index that is there: one a line, or a column id."),
    ] = None,
    migrate: Annotated[
        bool,
        typer.Option(
            "--migrate",
            help="Compare the index that is there with VECTORS of another model, and build it of them if none of its items is missing.",
        ),
    ] = False,
    item_format: options.Format = options.AUTO,
    renames: options.Map = None,
    encoding: options.Encoding = None,
    lenient: options.Lenient = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Index vectors for search.

    \b
    Examples:
      n2kit index vectors.parquet -o catalogue.index
      n2kit index vectors.parquet -o with-titles.index --items items.jsonl --images images
      n2kit index vectors.parquet -o exact.index --type flat --json
      n2kit index vectors.parquet -o small.index --quantize binary --set index.rescore=20
      n2kit index vectors.parquet -o exact.index --upsert
      n2kit index trained.parquet -o exact.index --migrate
    """
    from n2kit.index import build_index, choose_index
    from n2kit.index.auto import AUTO

    own = _options(sets or [])
    if quantize is not None and kind is not None:
        raise BadInput(f"--quantize is an index of its own, and --type {kind} is another", "give one of them")
    asked = quantize.value if quantize is not None else kind
    kind = asked or "flat"
    if kind != AUTO and not (migrate and asked is None):
        choose_index(kind, own)  # before anything is read
    elif own:
        raise BadInput("--type auto measures what the options are to be", "leave out --set, or name a type")
    if not upsert and delete is None and vectors is None:
        raise BadInput("no vectors to index", "n2kit index VECTORS -o INDEX")
    if vectors is not None and delete is not None and not upsert:
        raise BadInput("--delete changes the index that is there, and VECTORS would make it anew", "--upsert adds them")
    if migrate and kind == AUTO:
        raise BadInput("--migrate builds the type that is there, or one that is named", "leave out --type auto")
    if migrate and (upsert or delete is not None or vectors is None):
        raise BadInput("--migrate puts VECTORS of another model in place of all", "leave out --upsert and --delete")
    facts = read_facts(items, item_format, renames, encoding, out if upsert or migrate else None)
    titles = read_titles(items, images, item_format, renames, lenient, encoding, facts)
    if upsert or delete is not None:
        change_index(out, vectors, delete, items, titles, facts, encoding, lenient=lenient, dim=dim, json=json)
        return
    assert vectors is not None
    kept = None if dim is None else _kept(vectors, dim)
    if migrate:
        migrate_index(out, vectors, asked, own, titles, facts, dim=dim, json=json)
        return
    measured: list[Measured] = []
    if kind == AUTO:
        stored = _measured(vectors, out, titles, facts, measured, dim=dim, force=force)
    else:
        stored = build_index(vectors, out, name=kind, options=own, titles=titles, facts=facts, dim=dim, force=force)
    named = None if titles is None else sum(i in titles.items for i in stored.ids)
    if json:
        told: dict[str, Any] = {"index": str(out), "items": len(stored.ids), "fingerprint": stored.fingerprint}
        told |= {"component": stored.made_by.component, "options": stored.made_by.options}
        told |= {"measured": [vars(one) for one in measured]} if measured else {}
        told |= {} if kept is None else {"kept": kept._asdict()}
        document(told | ({} if named is None else {"titles": named}))
    else:
        emit(out)
    remembered = "" if named is None else f", {named:,} of them with a title"
    say(f"wrote {out}: {counted(len(stored.ids), 'item')} of model {stored.fingerprint}{remembered}")


def _kept(vectors: Path, dim: int) -> Compared | None:
    """Measure what an index of the first numbers alone loses, and say it; None where nothing is lost, or none can be compared."""
    from n2kit.embed.reading import open_vectors
    from n2kit.index.comparing import kept_by

    source = open_vectors(vectors)
    found = kept_by(source, dim) if dim != source.width else None
    if found is not None:
        share = (
            f"of {counted(found.items, 'item')}, {found.overlap:.1%} of the {found.k} nearest are those by all numbers"
        )
        say(f"note: --dim {dim} of {source.width}: {share}; loss matryoshka trains the first ones to hold the most")
    return found


def _measured(
    vectors: Path, out: Path, titles: Any, facts: Any, measured: list[Measured], *, dim: int | None, force: bool
) -> StoredIndex:
    """Choose an index by measurement, say what was measured, and write it."""
    from dataclasses import replace

    from n2kit.embed.reading import cut, open_vectors
    from n2kit.index.auto import choose_by_measuring
    from n2kit.index.folder import KIND
    from n2kit.index.store import save_index
    from n2kit.utils.folders import ensure_writable
    from n2kit.utils.locks import output_lock

    ensure_writable(out, KIND, force=force)
    with output_lock(out):
        stored, found = choose_by_measuring(cut(open_vectors(vectors), dim), str(vectors))
        measured += found
        for one in found:
            how = f"{one.name}{''.join(f' {name} {value}' for name, value in one.options.items())}"
            figures = f"overlap with exact search {one.overlap:.4f}, {one.milliseconds:.3f} ms a query, {one.megabytes:.1f} MB"
            say(f"{how}: {figures}{' (taken)' if one.taken else ''}")
        stored = replace(stored, titles=titles, facts=facts)
        save_index(stored, out, force=force)
    return stored


def _options(sets: list[str]) -> dict[str, Any]:
    """Read `--set index.NAME=VALUE` into the index's own options.

    Raises:
        BadInput: a setting of something else.
    """
    from n2kit.recipe.settings import parse_sets

    found = parse_sets(sets)
    for key in found:
        if not key.startswith("index.") or key == "index.":
            hint = "write index.NAME=VALUE" if "." in key else f"write index.{key}"
            raise BadInput(f"--set {key}: n2kit index takes options of the index alone", hint)
    return {key.removeprefix("index."): value for key, value in found.items()}
