"""Thumbs up and down."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from n2kit.serve.problems import Problem
from n2kit.serve.routes import IndexName, Served, chosen
from n2kit.serve.state import State
from n2kit.serve.votes import Votes

router = APIRouter(tags=["feedback"])


class Vote(BaseModel):
    """A vote on a pair of the catalogue's items: 1 belongs together, -1 does not, 0 takes the vote back."""

    model_config = ConfigDict(extra="forbid")

    query: str
    target: str
    vote: Literal[-1, 0, 1]
    index: str | None = None


@router.post("/v1/feedback")
async def feedback(vote: Vote, state: Served, index: IndexName = None) -> dict[str, Any]:
    """Take a vote, and write the pairs file; return how many there are."""
    votes, catalogue = _votes(state), chosen(state, index, vote.index)
    for item in (vote.query, vote.target):
        catalogue.vector(item)
    if vote.query == vote.target:
        raise Problem(400, f"{vote.query!r} is paired with itself", param="target")
    await run_in_threadpool(votes.vote, vote.query, vote.target, vote.vote)
    return {"index": catalogue.name} | votes.counts()


@router.get("/v1/feedback")
async def voted(query: str, state: Served) -> dict[str, Any]:
    """Return the votes on pairs of one item."""
    return {"query": query, "votes": _votes(state).of(query)}


def _votes(state: State) -> Votes:
    if state.votes is None:
        raise Problem(501, "votes are not taken", "n2kit serve --feedback votes.csv")
    return state.votes
