"""The items that are served: listed, shown, put in, taken out; and the indexes, loaded again."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from n2kit.data.items import Item, item_of
from n2kit.index.in_store import InStore
from n2kit.pages.thumbnails import small_copy
from n2kit.serve.catalogue import Catalogue
from n2kit.serve.changes import Change, refuse_changes
from n2kit.serve.columns import divided, facts_of, without_id
from n2kit.serve.engine import Given
from n2kit.serve.map import points
from n2kit.serve.pictures import item_given
from n2kit.serve.problems import Problem
from n2kit.serve.routes import IndexName, Served, chosen
from n2kit.serve.routes.recommend import seen
from n2kit.serve.state import State
from n2kit.serve.thumbnails import SIDES, thumbnail

router = APIRouter(tags=["catalogue"])
AGE = "private, max-age=300"


class Upsert(BaseModel):
    """Items to put in."""

    model_config = ConfigDict(extra="forbid")

    items: list[dict[str, Any]] = Field(
        min_length=1, description="With an id each, what items have, and columns of your own: texts and numbers."
    )
    index: str | None = Field(None, description="As ?index=NAME.")


@router.get("/v1/catalogue")
async def catalogue(state: Served) -> dict[str, Any]:
    """Describe what is served: indexes, views, categories, and whether votes are taken."""
    indexes = await run_in_threadpool(lambda: [_described(c, state) for c in state.catalogues.values()])
    return {"indexes": indexes, "feedback": None if state.votes is None else state.votes.counts()}


@router.get("/v1/items")
async def items(
    state: Served,
    id: Annotated[list[str] | None, Query(description="Show these.")] = None,
    query: Annotated[str, Query(max_length=200, description="Letters of a title, topic or id.")] = "",
    category: str | None = None,
    index: IndexName = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 24,
) -> dict[str, Any]:
    """Show items by their ids, or list those whose words hold the letters of `query`."""
    found = state.catalogue(index)
    if id:
        for item_id in id:
            found.vector(item_id)  # or it is not there
        return {"object": "list", "index": found.name, "items": [_shown(found, i) for i in id]}
    wanted = query.casefold().strip()

    def matches(item_id: str) -> bool:
        item = found.item(item_id)
        words = (item.id, item.title, *item.topics)
        return category in (None, item.category) and (not wanted or any(wanted in word.casefold() for word in words))

    listed = await run_in_threadpool(
        lambda: list(islice((i for i in found.stored.ids if matches(i)), offset, offset + limit))
    )
    return {"object": "list", "index": found.name, "items": [_shown(found, i) for i in listed]}


@router.get("/v1/map")
async def map_(state: Served, index: IndexName = None) -> dict[str, Any]:
    """Place the items on a plane, for people to look at: the first two principal components of their vectors."""
    found = state.catalogue(index)
    return {"object": "list", "index": found.name, "items": await run_in_threadpool(points, found)}


@router.get("/v1/image", response_class=Response)
async def image(
    state: Served, id: str, index: IndexName = None, side: Annotated[int, Query(description=f"{SIDES}")] = SIDES[0]
) -> Response:
    """Show an item's picture as a small WebP."""
    found = state.catalogue(index)
    found.vector(id)
    if side not in SIDES:
        raise Problem(400, f"side {side} is none of {', '.join(map(str, SIDES))}", param="side")
    content = await run_in_threadpool(thumbnail, found.item(id), found.images, side)
    if content is None:
        raise Problem(404, f"item {id!r} has no picture that can be read", param="id")
    return Response(content, media_type="image/webp", headers={"Cache-Control": AGE})


@router.post("/v1/items")
async def upsert(asked: Upsert, state: Served, index: IndexName = None) -> dict[str, Any]:
    """Put items in, in place of those of the same id: they are in the index's folder, and found, from now on."""
    found = chosen(state, index, asked.index)
    refuse_changes(found.name, state.read_only[found.name])
    engine, known = state.engine_of(found), found.stored.facts
    if len(asked.items) > state.options.max_inputs:
        raise Problem(413, f"{len(asked.items)} items, at most {state.options.max_inputs} in one request")
    rows = [divided(row, known, f"items.{n}") for n, row in enumerate(asked.items)]
    new = await run_in_threadpool(
        lambda: [item_given(fields, f"items.{n}", state.options) for n, (fields, _) in enumerate(rows)]
    )
    for number, (row, item) in enumerate(zip(asked.items, new, strict=True)):
        if item.id == f"items.{number}":
            raise without_id(row, known, f"items.{number}")
    columns = {item.id: own for item, (_, own) in zip(new, rows, strict=True)}
    if len(columns) < len(new):
        raise Problem(400, "two items have one id", param="items")
    typed = isinstance(found.stored.index, InStore)
    facts = facts_of(columns, [item.category for item in new], known, typed=typed)  # refused before the model works
    vectors = await engine.vectors([Given(item) for item in new])
    kept = await run_in_threadpool(lambda: [_kept(item) for item in new])
    now = await state.change(
        found.name,
        [Change(i.id, i, found.stored.fitted(vector), columns[i.id]) for i, vector in zip(kept, vectors, strict=True)],
    )
    added = [name for name in (facts.columns if facts else ()) if known is None or name not in known.columns]
    return {
        "object": "list", "index": found.name, "upserted": [item.id for item in kept], "items": len(now), "new_columns": added
    }  # fmt: skip


@router.delete("/v1/items")
async def delete(state: Served, id: Annotated[list[str], Query()], index: IndexName = None) -> dict[str, Any]:
    """Take items out of the index and its folder."""
    found = state.catalogue(index)
    for item_id in id:
        found.vector(item_id)  # or it is not there
    now = await state.change(found.name, [Change(item_id) for item_id in id])
    return {"object": "list", "index": found.name, "deleted": id, "items": len(now)}


@router.post("/v1/reload")
async def reload(state: Served) -> dict[str, Any]:
    """Load the indexes again from their folders; the old ones answer until the new ones do."""
    return {"items": await run_in_threadpool(state.reload)}


def _shown(served: Catalogue, item_id: str) -> dict[str, Any]:
    """Describe an item, with its own columns."""
    return seen(served, item_id) | {"columns": served.columns_of(item_id)}


def _described(served: Catalogue, state: State) -> dict[str, Any]:
    return {
        "name": served.name, "items": len(served), "model": served.stored.fingerprint, "new_items": served.engine is not None,
        "views": served.views, "read_only": state.read_only[served.name], "categories": served.categories,
        "columns": list({"id": None} | served.facts.columns), "pictures": served.images is not None,
    }  # fmt: skip


def _kept(item: Item) -> Item:
    """Keep an item with a small copy of its picture in place of the picture itself."""
    if not item.image:
        return item
    small = small_copy(item, None, SIDES[-1])
    return item_of({f: getattr(item, f) for f in ("id", "title", "topics", "content", "category")} | {"image": small})
