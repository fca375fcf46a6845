"""n2kit recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import document, say, table


def recommend(
    index: Annotated[Path, typer.Option(help="An index that n2kit index wrote.")],
    item: Annotated[str | None, typer.Option("--id", help="An item of the catalogue.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    bundle: Annotated[
        Path | None, typer.Option(help="For an item outside the catalogue: the model that made the index.")
    ] = None,
    title: Annotated[str, typer.Option(help="Its title.")] = "",
    topics: Annotated[str, typer.Option(help="Its topics, separated by commas.")] = "",
    content: Annotated[str, typer.Option(help="Its text.")] = "",
    image: Annotated[Path | None, typer.Option(help="Its picture.")] = None,
    json: options.Json = False,
) -> None:
    """List the items most similar to one item: of the catalogue by id, or a new one by its text and image.

    \b
    Examples:
      n2kit recommend --index catalogue.index --id noto:1f600 -k 5
      n2kit recommend --index catalogue.index --bundle models/tiny --title "grinning face" --image images/noto_1f600.webp -k 3 --json
    """
    from n2kit.errors import BadInput
    from n2kit.index import load_index

    stored = load_index(index)
    new = bundle is not None or title or topics or content or image is not None
    if (item is None) == (not new):
        raise BadInput("give either --id, or --bundle and what the new item has", "n2kit recommend --help")
    if item is not None:
        found = stored.near_item(item, k)
    else:
        if bundle is None:
            raise BadInput("a new item needs --bundle, the model that made the index", "n2kit recommend --help")
        from n2kit.bundle.io import load, read_manifest
        from n2kit.data.images import UnreadableImage

        stored.check_model(read_manifest(bundle).fingerprint, bundle)
        if image is not None and not image.is_file():
            raise BadInput(f"no image {image}", "check --image")
        image = image.resolve() if image is not None else None
        fields = {
            "id": "query",
            "title": title,
            "topics": topics,
            "content": content,
            "image": image.name if image else "",
        }
        model = load(bundle)
        if image is not None and not model.variant.image:
            say(f"note: {bundle} reads no picture (variant {model.recipe.variant}): --image changes nothing")
        if (title or topics or content) and not model.variant.text:
            say(f"note: {bundle} reads no text (variant {model.recipe.variant}): it changes nothing")
        try:
            vector = model.encode([fields], images=image.parent if image else None)[0]
        except UnreadableImage as problem:
            raise BadInput(problem.message.removeprefix("item 'query': "), "give another --image") from None
        except BadInput as problem:
            hint = "--title, --topics, --content or --image"
            raise BadInput(problem.message.replace("item 'query'", "the new item"), hint) from None
        found = stored.near_vector(vector, k)
    if json:
        document({"query": item or "new item", "neighbours": [n._asdict() for n in found]})
        return
    table(("rank", "id", "score"), [(rank, n.id, f"{n.score:.4f}") for rank, n in enumerate(found, 1)])
