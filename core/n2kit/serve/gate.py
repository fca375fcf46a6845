"""The gate that every request passes: the key, the origin, the limit of requests at work, the log and the counters."""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from n2kit.serve.options import LOOPBACK
from n2kit.serve.problems import answer
from n2kit.serve.state import State

LOG = logging.getLogger("n2kit.serve")
WORK = "/v1/"  # paths that need the key, and count as work
CHEAP = ("/v1/image",)  # of which a page asks for dozens at once
KEYED = (WORK, "/metrics", "/openapi.json", "/docs")


class Gate:
    """ASGI middleware around the whole server. A line of its log has no item's text, and no part of a query."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app, self.state, self.at_work = app, state, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        request_id = secrets.token_hex(8)

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        work = scope["path"].startswith(WORK) and scope["path"] not in CHEAP
        refusal = self._refusal(scope, work)
        metrics = self.state.metrics
        counted = work and refusal is None
        self.at_work += counted
        metrics.in_flight.set(self.at_work)
        try:
            await (refusal or self.app)(scope, receive, sent)
        except Exception:
            LOG.exception("request %s", request_id)  # the answer, 500, is sent by now
        finally:
            self.at_work -= counted
            metrics.in_flight.set(self.at_work)
            seconds, route = time.perf_counter() - began, _route(scope)
            metrics.requests.labels(route, status).inc()
            metrics.seconds.labels(route).observe(seconds)
            line = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 1),
                "id": request_id,
            }
            LOG.info(json.dumps({"time": round(time.time(), 3)} | line))

    def _refusal(self, scope: Scope, work: bool) -> ASGIApp | None:
        """Return the answer to a request that is not let in."""
        headers, options = Headers(scope=scope), self.state.options
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if options.host in LOOPBACK and name not in (*LOOPBACK, *options.hosts):  # by a stranger's DNS, it may be
            return answer(400, f"this server is not called {name[:100]!r}", "n2kit serve --allow-host NAME")
        if options.api_key is not None and scope["path"].startswith(KEYED):
            given = headers.get("authorization", "").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(given.encode(), options.api_key.encode()):
                return answer(401, "no key, or a wrong one", "Authorization: Bearer KEY")
        origin = headers.get("origin", "")
        elsewhere = bool(origin) and urlsplit(origin).netloc != headers.get("host") and origin not in options.origins
        if elsewhere and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            return answer(403, f"pages of {origin[:100]} may not call this server", "n2kit serve --allow-origin")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > options.max_body:  # what comes in pieces is counted by FastAPI
            return answer(
                413, f"a body of {int(length):,} bytes, at most {options.max_body:,}", "n2kit serve --max-body"
            )
        if work and self.at_work >= options.max_concurrent:
            self.state.metrics.refused.inc()
            return answer(
                429, f"{options.max_concurrent} requests are at work", "try again, or n2kit serve --max-concurrent"
            )
        return None


def _route(scope: Scope) -> str:
    """Name the route of a request, as few as the server has; what is none of them is one."""
    route = scope.get("route")
    return getattr(route, "path", None) or ("/static" if scope["path"].startswith("/static/") else "other")
