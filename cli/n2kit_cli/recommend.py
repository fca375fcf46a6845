"""n2kit recommend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.output import document, say, table
from n2kit_cli.pages import check_page, read_titles

if TYPE_CHECKING:
    from n2kit.index import Neighbour, StoredIndex, Titles

QUERY = "query"  # the id of a new item


@takes_data()
def recommend(
    index: Annotated[Path, typer.Option(help="An index that n2kit index wrote.")],
    item: Annotated[str | None, typer.Option("--id", help="An item of the catalogue.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    bundle: options.IndexedBundle = None,
    title: Annotated[str, typer.Option(help="Its title.")] = "",
    topics: Annotated[str, typer.Option(help="Its topics, separated by commas.")] = "",
    content: Annotated[str, typer.Option(help="Its text.")] = "",
    image: Annotated[Path | None, typer.Option(help="Its picture.")] = None,
    items: Annotated[
        Path | None,
        typer.Option("--items", help="Items, to show their titles; an index made with --items remembers them."),
    ] = None,
    images: options.Images = None,
    html: options.Html = None,
    item_format: options.Format = options.ItemFormat.auto,
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
      n2kit recommend --index catalogue.index --bundle models/tiny --title "grinning face" --image images/noto_1f600.webp -k 3 --json
    """
    from n2kit.errors import BadInput
    from n2kit.index import load_index

    check_page(html, items, image)
    stored = load_index(index)
    titles = read_titles(items, images, item_format, renames, lenient, encoding) or _with_images(stored.titles, images)
    new = bundle is not None or title or topics or content or image is not None
    if (item is None) == (not new):
        raise BadInput("give either --id, or --bundle and what the new item has", "n2kit recommend --help")
    if html is not None and titles is None:
        raise BadInput(f"{index} remembers no titles to show", "--items FILE and --images DIR, here or of n2kit index")
    fields = {"id": QUERY, "title": title, "topics": topics, "content": content, "image": image.name if image else ""}
    found = stored.near_vector(_vector(stored, bundle, fields, image), k) if new else stored.near_item(str(item), k)
    if html is not None and titles is not None:
        _page(html, item, fields, image, found, titles)
    if json:
        document({"query": item or "new item", "neighbours": [n._asdict() | _seen(n.id, titles) for n in found]})
        return
    named = () if titles is None else ("title",)
    rows = [(n, i.id, f"{i.score:.4f}", *(_seen(i.id, titles)[name] for name in named)) for n, i in enumerate(found, 1)]
    table(("rank", "id", "score", *named), rows)
    if html is not None:
        say(f"wrote {html}")
    elif titles is None:
        say("titles: --items FILE, here or of n2kit index, which then remembers them")


def _with_images(titles: Titles | None, images: Path | None) -> Titles | None:
    """Return what an index remembers, with the folder of images that --images names in place of its own."""
    from dataclasses import replace

    return titles if titles is None or images is None else replace(titles, images=images)


def _seen(item_id: str, titles: Titles | None) -> dict[str, str]:
    return {} if titles is None else {"title": titles.title(item_id), "image": titles.image(item_id)}


def _vector(stored: StoredIndex, bundle: Path | None, fields: dict[str, str], image: Path | None) -> Any:
    """Encode the new item with the model that made the index: [d].

    Raises:
        BadInput: there is no such model, or nothing of the item that it reads.
    """
    from n2kit.bundle.io import load, read_manifest
    from n2kit.data.images import UnreadableImage
    from n2kit.errors import BadInput

    if bundle is None:
        raise BadInput("a new item needs --bundle, the model that made the index", "n2kit recommend --help")
    stored.check_model(read_manifest(bundle).fingerprint, bundle)
    if image is not None and not image.is_file():
        raise BadInput(f"no image {image}", "check --image")
    options.loading(bundle)
    model = load(bundle)
    if image is not None and not model.variant.image:
        say(f"note: {bundle} reads no picture (variant {model.recipe.variant}): --image changes nothing")
    if any(fields[name] for name in ("title", "topics", "content")) and not model.variant.text:
        say(f"note: {bundle} reads no text (variant {model.recipe.variant}): it changes nothing")
    try:
        return model.encode([fields], images=image.resolve().parent if image else None)[0]
    except UnreadableImage as problem:
        raise BadInput(problem.message.removeprefix(f"item {QUERY!r}: "), "give another --image") from None
    except BadInput as problem:
        hint = "--title, --topics, --content or --image"
        raise BadInput(problem.message.replace(f"item {QUERY!r}", "the new item"), hint) from None


def _page(
    html: Path, item: str | None, fields: dict[str, str], image: Path | None, found: list[Neighbour], titles: Titles
) -> None:
    """Write the page of one query, of the catalogue or new, and its neighbours."""
    from n2kit.data.items import Item
    from n2kit.pages import Example, write_neighbours

    named = fields | {"topics": (fields["topics"],) if fields["topics"] else ()}
    new = None if item is not None else (Item(**named), None if image is None else image.resolve().parent)  # type: ignore[arg-type]
    example = Example(item or QUERY, [(n.id, n.score) for n in found])
    write_neighbours(html, titles.items, titles.images, [example], new=new)
