"""The queries of n2kit recommend, and their answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.errors import BadInput
from n2kit_cli import options
from n2kit_cli.output import document, say, table

if TYPE_CHECKING:
    import numpy as np

    from n2kit.index import Neighbour, StoredIndex, Titles
    from n2kit.modeling.model import Model

QUERY = "query"  # the id of a new item
STDIN = "-"
VIEWS = {"without image": ("image",), "without text": ("title", "topics", "content")}


@dataclass(frozen=True)
class Answer:
    """A query and its neighbours, best first."""

    query: str
    near: list[Neighbour]


def queries_of(stored: StoredIndex, ids: Sequence[str]) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Yield each query with the ids that are left out of its answer, and its vector: one of all `ids`, or one a line of stdin.

    Raises:
        BadInput: an item that is not in the index.
    """
    from n2kit.index.search import mean_vector

    if STDIN not in ids:
        yield " + ".join(ids), list(ids), stored.vector_of(ids[0]) if len(ids) == 1 else mean_vector(stored, ids)
        return
    if len(ids) > 1:
        raise BadInput("--id - reads all ids from stdin", "leave out the other --id")
    asked = [line.strip() for line in sys.stdin if line.strip()]
    if not asked:
        raise BadInput("stdin holds no ids", "one id a line")
    for item_id in asked:
        yield item_id, [item_id], stored.vector_of(item_id)


def new_vectors(
    stored: StoredIndex, bundle: Path | None, fields: dict[str, str], image: Path | None, *, explain: bool
) -> dict[str, np.ndarray]:
    """Encode the new item with the model that made the index, whole, and by `VIEWS` where that is to be explained: name → [d].

    Raises:
        BadInput: there is no such model, or nothing of the item that it reads.
    """
    from n2kit.bundle.io import load, read_manifest

    if bundle is None:
        raise BadInput("a new item needs --bundle, the model that made the index", "n2kit recommend --help")
    stored.check_model(read_manifest(bundle).fingerprint, bundle)
    if image is not None and not image.is_file():
        raise BadInput(f"no image {image}", "check --image")
    has_text = any(fields[name] for name in VIEWS["without text"])
    if explain and not (image is not None and has_text):
        raise BadInput("--explain compares a picture with a text, and the item has not both", "--image and --title")
    options.loading(bundle)
    model = load(bundle)
    if image is not None and not model.variant.image:
        say(f"note: {bundle} reads no picture (variant {model.recipe.variant}): --image changes nothing")
    if has_text and not model.variant.text:
        say(f"note: {bundle} reads no text (variant {model.recipe.variant}): it changes nothing")
    views = {"whole": fields}
    if explain and model.variant.image and model.variant.text:
        views |= {name: fields | dict.fromkeys(gone, "") for name, gone in VIEWS.items()}
    return {name: stored.fitted(_encoded(model, view, image)) for name, view in views.items()}


def _encoded(model: Model, fields: dict[str, str], image: Path | None) -> np.ndarray:
    from n2kit.data.images import UnreadableImage
    from n2kit.utils.contexts import one_thread_if_small

    try:
        with one_thread_if_small(model):
            vector: np.ndarray = model.encode([fields], images=image.resolve().parent if image else None)[0]
    except UnreadableImage as problem:
        raise BadInput(problem.message.removeprefix(f"item {QUERY!r}: "), "give another --image") from None
    except BadInput as problem:
        hint = "--title, --topics, --content or --image"
        raise BadInput(problem.message.replace(f"item {QUERY!r}", "the new item"), hint) from None
    return vector


def show(
    stored: StoredIndex,
    answers: Sequence[Answer],
    titles: Titles | None,
    views: Mapping[str, np.ndarray],
    *,
    many: bool,
    json: bool,
) -> None:
    """Print the answers: one document, or one table; of many queries with a column for them."""
    told = [(answer.query, [_facts(stored, n, titles, views) for n in answer.near]) for answer in answers]
    if json:
        documents = [{"query": query, "neighbours": near} for query, near in told]
        document({"queries": documents} if many else documents[0])
        return
    named = [*(["title"] if titles is not None else []), *(name for name in views if name != "whole")]
    head = (*(("query",) if many else ()), "rank", "id", "score", *named)
    rows = [
        (*((query,) if many else ()), rank, one["id"], *(_cell(one[name]) for name in ("score", *named)))
        for query, near in told
        for rank, one in enumerate(near, 1)
    ]
    table(head, rows)


def _facts(
    stored: StoredIndex, near: Neighbour, titles: Titles | None, views: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Say of a neighbour what is known: id, score, title and image, and the scores of the query's views."""
    own = stored.vector_of(near.id) if len(views) > 1 else None
    scores = {name: float(own @ vector) for name, vector in views.items() if name != "whole" and own is not None}
    seen = {} if titles is None else {"title": titles.title(near.id), "image": titles.image(near.id)}
    return near._asdict() | seen | scores


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def page(
    html: Path, item: str | None, fields: dict[str, str], image: Path | None, found: list[Neighbour], titles: Titles
) -> None:
    """Write the page of one query, of the catalogue or new, and its neighbours."""
    from n2kit.data.items import Item
    from n2kit.pages import Example, write_neighbours

    named = fields | {"topics": (fields["topics"],) if fields["topics"] else ()}
    new = None if item is not None else (Item(**named), None if image is None else image.resolve().parent)  # type: ignore[arg-type]
    example = Example(item or QUERY, [(n.id, n.score) for n in found])
    write_neighbours(html, titles.items, titles.images, [example], new=new)
