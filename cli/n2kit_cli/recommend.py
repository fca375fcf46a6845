"""n2kit recommend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2kit.utils.collector import collector_paused
from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.index_changes import read_facts
from n2kit_cli.output import say
from n2kit_cli.pages import check_page, read_titles
from n2kit_cli.queries import QUERY, Answer, new_vectors, page, queries_of, show

if TYPE_CHECKING:
    from n2kit.index import Titles
    from n2kit.index.facts import Facts


@takes_data()
@collector_paused()
def recommend(
    index: Annotated[Path, typer.Option(help="An index that n2kit index wrote.")],
    item: Annotated[
        list[str] | None,
        typer.Option(
            "--id", help="An item of the catalogue; several for what lies between them; - reads one a line from stdin."
        ),
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(help="Words of titles, in place of an item: what is asked for, of a store that finds words."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="A condition on the items' columns: \"category = 'chairs' and price < 20\".")
    ] = None,
    diversify: Annotated[
        float, typer.Option(min=0, max=1, help="0: the likest; up to 1: unlike what stands above.")
    ] = 0.0,
    distinct: Annotated[
        float | None, typer.Option(help="Leave out what is nearer than this cosine to one above it: 0.95.")
    ] = None,
    bundle: options.IndexedBundle = None,
    title: Annotated[str, typer.Option(help="Its title.")] = "",
    topics: Annotated[str, typer.Option(help="Its topics, separated by commas.")] = "",
    content: Annotated[str, typer.Option(help="Its text.")] = "",
    image: Annotated[Path | None, typer.Option(help="Its picture.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Of a new item: also the score without its picture, and without its text.")
    ] = False,
    items: Annotated[
        Path | None,
        typer.Option("--items", help="Items, to show their titles; an index made with --items remembers them."),
    ] = None,
    images: options.Images = None,
    html: options.Html = None,
    item_format: options.Format = options.AUTO,
    renames: options.Map = None,
    encoding: options.Encoding = None,
    lenient: options.Lenient = False,
    json: options.Json = False,
) -> None:
    """List the items most similar to one item: of the catalogue by id, or a new one by its text and image.

    \b
    Examples:
      n2kit recommend --index catalogue.index --id noto:1f600 -k 5
      n2kit recommend --index with-titles.index --id noto:1f600 --html neighbours.html
      n2kit recommend --index with-titles.index --id noto:1f600 --id noto:3 --where "category = 'x'" --diversify 0.3
      n2kit recommend --index catalogue.index --bundle models/tiny --title "grinning face" --image images/noto_1f600.webp -k 3 --json
    """
    from n2kit.errors import BadInput
    from n2kit.index import load_index
    from n2kit.index.search import SearchOptions, known_facts, match, search

    check_page(html, items, image)
    how = SearchOptions(where, diversify, distinct)
    stored = load_index(index)
    facts = read_facts(items, item_format, renames, encoding) if where is not None else None
    titles = read_titles(items, images, item_format, renames, lenient, encoding, facts) or _with_images(
        stored.titles, images
    )
    new = bool(bundle is not None or title or topics or content or image is not None)
    if bool(item) + new + (words is not None) != 1:
        raise BadInput("give either --id, or --bundle and what the new item has, or --words", "n2kit recommend --help")
    if words is not None and (html is not None or diversify or distinct is not None):
        raise BadInput("--words lists items by their words alone", "leave out --html, --diversify and --distinct")
    if html is not None and titles is None:
        raise BadInput(f"{index} remembers no titles to show", "--items FILE and --images DIR, here or of n2kit index")
    fields = {"id": QUERY, "title": title, "topics": topics, "content": content, "image": image.name if image else ""}
    views = new_vectors(stored, bundle, fields, image, explain=explain) if new else {}
    if explain and not new:
        raise BadInput("--explain is of a new item, whose text and picture are known", "--bundle, --title and --image")
    found = (
        [Answer(words, match(stored, words, k, where))]
        if words is not None
        else [
            Answer(query, search(stored, vector, k, how, without=own, facts=facts))
            for query, own, vector in ([("new item", [], views["whole"])] if new else queries_of(stored, item or []))
        ]
    )
    if where is not None and not any(answer.near for answer in found):
        _tell_empty(where, known_facts(stored, facts), of_items=words is None)
    if html is not None and titles is not None:
        if len(found) > 1 or len(item or [0]) > 1:
            raise BadInput("--html shows one query", "one --id")
        page(html, item[0] if item else None, fields, image, found[0].near, titles)
    show(stored, found, titles, views, many=item == ["-"], json=json)
    if html is not None:
        say(f"wrote {html}")
    elif titles is None:
        say("titles: --items FILE, here or of n2kit index, which then remembers them")


def _tell_empty(where: str, known: Facts, *, of_items: bool) -> None:
    """Say why a condition left no answer."""
    from n2kit.index.where_empty import why_empty

    if (why := why_empty(where, known.columns, known.fields)) is not None:
        say(f"note: --where leaves nothing: {why}")
    elif of_items:
        say("note: --where leaves nothing but the item itself")


def _with_images(titles: Titles | None, images: Path | None) -> Titles | None:
    """Return what an index remembers, with the folder of images that --images names in place of its own."""
    from dataclasses import replace

    return titles if titles is None or images is None else replace(titles, images=images)
