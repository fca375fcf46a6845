"""The routes of the server, a file for each thing that can be asked."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request

from n2kit.errors import suggest
from n2kit.serve.catalogue import Catalogue
from n2kit.serve.problems import Problem
from n2kit.serve.state import State


def _state(request: Request) -> State:
    state: State = request.app.state.n2kit
    return state


Served = Annotated[State, Depends(_state)]
IndexName = Annotated[str | None, Query(description="A name of /v1/catalogue; the first one without.")]


def chosen(state: State, *names: str | None) -> Catalogue:
    """Find the index that a request names, in its address or in its body; the first one where it names none.

    Raises:
        Problem: there is none of this name; two are named.
    """
    given = dict.fromkeys(name for name in names if name is not None)
    if len(given) > 1:
        raise Problem(400, f"two indexes are named, {' and '.join(map(repr, given))}", "name one", "index")
    return state.catalogue(next(iter(given), None))


def known_parameters(request: Request) -> None:
    """Refuse what stands behind the `?` of an address and is not known: it would be passed over.

    Raises:
        Problem: a parameter that the route does not have.
    """
    route = request.scope["route"]
    known = [str(one.alias) for one in route.dependant.query_params]
    if unknown := next((name for name in request.query_params if name not in known), None):
        hint = suggest(unknown, known) or f"it has: {', '.join(known) or 'none'}"
        raise Problem(400, f"{route.path} has no parameter {unknown[:80]!r}", hint, unknown[:80])
