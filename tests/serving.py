"""A server in a thread of the tests, and a client that knows nothing but HTTP."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import uvicorn

from n2kit.serve import ServeOptions
from n2kit.serve.app import make_app
from n2kit.serve.state import State


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Any


class Live(NamedTuple):
    """A running server: its address, its state, and a way to ask it."""

    address: str
    state: State

    def __call__(
        self, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """GET a path, or POST a body: bytes as they are, anything else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | (headers or {})
        request = urllib.request.Request(self.address + path, data, sent, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return _read(answer.status, answer)
        except urllib.error.HTTPError as problem:
            return _read(problem.code, problem)


def _read(status: int, answer: Any) -> Answer:
    content = answer.read()
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    return Answer(status, json.loads(content) if is_json else content, answer.headers)


@contextlib.contextmanager
def live(options: ServeOptions, **changes: Any) -> Iterator[Live]:
    """Serve in a thread until the block ends."""
    state = State(replace(options, **changes))
    server = uvicorn.Server(uvicorn.Config(make_app(state), port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Live(f"http://127.0.0.1:{port}", state)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
