"""The items most similar to one, or to several."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, File, Form, UploadFile
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from n2kit.data.items import Item
from n2kit.errors import BadInput
from n2kit.index.search import Hit, SearchOptions, known_facts, middle_of, search_folded
from n2kit.index.where_empty import why_empty
from n2kit.serve.catalogue import Catalogue
from n2kit.serve.engine import VIEWS, Given
from n2kit.serve.explaining import Why, explain
from n2kit.serve.pictures import item_given
from n2kit.serve.problems import Problem
from n2kit.serve.routes import IndexName, Served, chosen
from n2kit.serve.state import State

router = APIRouter(tags=["recommend"])
View = Literal["multimodal", "text", "image"]
MOST_K = 1000


class Filter(BaseModel):
    """Conditions that a neighbour keeps."""

    model_config = ConfigDict(extra="forbid")

    category: str | list[str] = Field(description="One of these categories.")


class RecommendRequest(BaseModel):
    """A request for neighbours: of items of the catalogue, of new ones, or of several together."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"id": "chair-noto", "k": 5}, {"item": {"title": "wooden seat"}, "fold": 0.97}]
        },
    )

    id: str | None = Field(None, description="An item of the catalogue.")
    ids: list[str] = Field([], description="Several: the query is the mean of all triggers.")
    item: dict[str, Any] | None = Field(None, description="A new item: title, topics, content, category, image.")
    items: list[dict[str, Any]] = Field([], description="Several new ones.")
    index: str | None = Field(None, description="A name of /v1/catalogue; the first one without.")
    k: int = Field(10, ge=1, le=MOST_K)
    view: View = Field("multimodal", description="text or image: the query by that alone, among the items as they are.")
    where: str | None = Field(
        None, max_length=2000, description="A condition on columns: category = 'chairs' and price < 20."
    )
    filter: Filter | None = None
    exclude: list[str] = Field([], max_length=10_000, description="Ids that are not wanted.")
    fold: float | None = Field(
        None, ge=0, le=1, description="Fold near-duplicates, nearer than this cosine, into the best."
    )
    diversify: float = Field(0.0, ge=0, lt=1, description="0: by score alone; more: less of the same.")
    explain: bool = Field(False, description="Say which view of the query brought each neighbour.")


@router.post("/v1/recommend")
async def recommend(asked: RecommendRequest, state: Served, index: IndexName = None) -> dict[str, Any]:
    """List the items most similar to items of the catalogue, to new ones, or to several together."""
    catalogue = chosen(state, index, asked.index)
    ids = [*([asked.id] if asked.id is not None else []), *asked.ids]
    rows = [*([asked.item] if asked.item is not None else []), *asked.items]
    if not ids and not rows:
        raise Problem(400, "nothing to find neighbours of", "give id, ids, item or items")
    if len(ids) + len(rows) > state.options.max_inputs:
        raise Problem(413, f"{len(ids) + len(rows)} triggers, at most {state.options.max_inputs} in one request")
    new = await run_in_threadpool(lambda: [item_given(row, f"item {n}", state.options) for n, row in enumerate(rows)])
    return await _recommended(asked, ids, new, catalogue, state)


@router.post("/v1/recommend/upload")
async def upload(
    state: Served,
    image: Annotated[UploadFile | None, File(description="The picture of a new item.")] = None,
    request: Annotated[str, Form(description="The rest, as the JSON of /v1/recommend.")] = "{}",
    index: IndexName = None,
) -> dict[str, Any]:
    """List the items most similar to a picture that is uploaded, with a text where `request` has an item."""
    try:
        asked = RecommendRequest.model_validate_json(request)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise Problem(400, f"request: {'.'.join(map(str, first['loc']))}: {first['msg']}", param="request") from None
    if image is None:
        return await recommend(asked, state, index)
    row = (asked.item or {}) | {"image": await image.read()}
    return await recommend(asked.model_copy(update={"item": row}), state, index)


async def _recommended(
    asked: RecommendRequest, ids: list[str], new: list[Item], catalogue: Catalogue, state: State
) -> dict[str, Any]:
    views = [asked.view] if not asked.explain else list(dict.fromkeys([asked.view, *catalogue.views]))
    vectors = {view: await _query(catalogue, state, ids, new, view) for view in views}
    exclude = {*asked.exclude, *ids}
    how = SearchOptions(_condition(asked, catalogue), asked.diversify, asked.fold)

    def found() -> tuple[list[Hit], list[Why], str]:
        hits = search_folded(
            catalogue.stored, vectors[asked.view], asked.k, how, without=exclude, facts=catalogue.facts if how.where else None
        )  # fmt: skip
        note = _why_none(how.where, catalogue) if how.where and not hits else ""
        return hits, explain(catalogue, [hit.id for hit in hits], vectors, exclude) if asked.explain else [], note

    try:
        hits, whys, note = await run_in_threadpool(found)
    except BadInput as problem:
        raise Problem(400, problem.message.replace("--where", "where", 1), problem.hint, "where") from None
    told = [_written(catalogue, hit) | ({"why": whys[n]} if whys else {}) for n, hit in enumerate(hits)]
    return {
        "object": "list", "index": catalogue.name, "model": catalogue.stored.fingerprint, "view": asked.view,
        "neighbours": told,
    } | ({"note": note} if note else {})  # fmt: skip


def _why_none(condition: str, catalogue: Catalogue) -> str:
    """Say why a condition left no neighbour."""
    known = known_facts(catalogue.stored, catalogue.facts)
    why = why_empty(condition, known.columns, known.fields)
    return f"the condition leaves nothing{f': {why}' if why else ' but the items that are asked for or excluded'}"


def _condition(asked: RecommendRequest, catalogue: Catalogue) -> str | None:
    """Join the conditions of a request to one.

    Raises:
        Problem: the categories of the items are not known.
    """
    conditions = [f"({asked.where})"] if asked.where else []
    if asked.filter is not None:
        if (column := catalogue.category) is None:
            raise Problem(400, "the categories of the items are not known", "n2kit serve --items FILE", "filter")
        given = asked.filter.category
        quoted = [name.replace("'", "''") for name in ([given] if isinstance(given, str) else given)]
        if quoted:
            conditions.append(f'"{column}" in (' + ", ".join(f"'{name}'" for name in quoted) + ")")
    return " and ".join(conditions) or None


async def _query(catalogue: Catalogue, state: State, ids: list[str], new: list[Item], view: str) -> np.ndarray:
    """Make the query [d] of all triggers, as one view sees them.

    Raises:
        Problem: an item has nothing that the view shows; the model is not served.
    """
    vectors = [] if view != "multimodal" else [catalogue.vector(i) for i in ids]
    given = [Given(item) for item in new]
    if view != "multimodal":
        state.engine_of(catalogue)
        if view not in catalogue.views:
            raise Problem(
                400, f"{catalogue.name} has no view {view!r}", f"it has: {', '.join(catalogue.views)}", "view"
            )
        given = [*(catalogue.given(i) for i in ids), *given]
    seen = [Given(VIEWS[view](one.item), one.images) for one in given]
    for one in seen:
        if not one.item.image and not one.item.has_text:
            raise Problem(422, f"item {one.item.id!r} has no {'picture' if view == 'image' else 'text'}", param="view")
    if seen:
        new_vectors = await state.engine_of(catalogue).vectors(seen)
        vectors = [*vectors, *map(catalogue.stored.fitted, new_vectors)]
    return middle_of(np.stack(vectors))


def _written(catalogue: Catalogue, hit: Hit) -> dict[str, Any]:
    return seen(catalogue, hit.id) | {"score": round(hit.score, 6), "folded": hit.folded}


def seen(catalogue: Catalogue, item_id: str) -> dict[str, Any]:
    """Describe an item as people see it."""
    item = catalogue.item(item_id)
    return {
        "id": item_id, "title": item.title or ", ".join(item.topics), "topics": list(item.topics), "content": item.content[:300],
        "category": item.category, "picture": bool(item.image),
    }  # fmt: skip
