"""The application: routes behind a gate."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from n2kit.serve.gate import Gate
from n2kit.serve.problems import add_handlers
from n2kit.serve.routes import catalogue, embeddings, health, known_parameters, page, recommend, votes
from n2kit.serve.state import State
from n2kit.utils.version import VERSION

ABOUT = "Vectors of items, and the items most similar to one. Errors have the form of OpenAI's API."


def make_app(state: State) -> FastAPI:
    """Make the application that serves a state; it closes the state when it ends."""

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        state.stopping = True
        await run_in_threadpool(state.close)

    options = state.options
    app = FastAPI(
        title="n2kit", version=VERSION, description=ABOUT, lifespan=life, docs_url=None, redoc_url=None,
        max_body_size=options.max_body,
    )  # fmt: skip
    app.state.n2kit = state
    add_handlers(app)
    for part in (embeddings, recommend, catalogue, votes):
        app.include_router(part.router, dependencies=[Depends(known_parameters)])
    for part in (health, page):
        app.include_router(part.router)
    if options.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=options.origins, allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )  # fmt: skip
    app.add_middleware(Gate, state=state)
    return app
