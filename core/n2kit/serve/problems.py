"""Errors of requests, in the form that OpenAI's clients show."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from n2kit.errors import BadInput, N2kitError, Unavailable

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
CODES = {
    400: "bad_input",
    401: "invalid_api_key",
    404: "not_found",
    413: "too_large",
    429: "too_many_requests",
    501: "not_served",
}


class Problem(Exception):
    """A request that is not answered: HTTP status, message, and what to do about it."""

    def __init__(self, status: int, message: str, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.hint, self.param = status, message, hint, param


def body_of(status: int, message: str, hint: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Write an error as OpenAI's API does, with a hint where there is one."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    error = {"message": f"{message} ({hint})" if hint else message, "type": kind, "param": param}
    return {"error": error | {"code": CODES.get(status)}}


def answer(status: int, message: str, hint: str | None = None, param: str | None = None) -> JSONResponse:
    """Make the answer to a request that failed."""
    headers = (
        {"Retry-After": "1"} if status in (429, 503) else {"WWW-Authenticate": "Bearer"} if status == 401 else None
    )
    return JSONResponse(body_of(status, message, hint, param), status, headers=headers)


def add_handlers(app: FastAPI) -> None:
    """Let every error of a route become an answer of one form; one that nobody expected tells nothing of its insides."""

    @app.exception_handler(Problem)
    async def known(request: Request, problem: Problem) -> JSONResponse:
        return answer(problem.status, problem.message, problem.hint, problem.param)

    @app.exception_handler(N2kitError)
    async def expected(request: Request, problem: N2kitError) -> JSONResponse:
        status = 400 if isinstance(problem, BadInput) else 503 if isinstance(problem, Unavailable) else 500
        spoken = (
            problem.hint and "--" not in problem.hint and "n2kit" not in problem.hint
        )  # and not of the command line
        return answer(status, problem.message, problem.hint if spoken else None)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        kind = request.headers.get("content-type", "none")
        if not where and "json" not in kind:
            return answer(400, f"a body of type {kind[:80]}", "Content-Type: application/json")
        return answer(400, f"{where}: {first['msg']}" if where else str(first["msg"]), param=where or None)

    @app.exception_handler(HTTPException)
    async def http(request: Request, problem: HTTPException) -> JSONResponse:
        return answer(problem.status_code, str(problem.detail))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, problem: Exception) -> JSONResponse:
        return answer(500, f"a bug in n2kit: {type(problem).__name__}", "the server's log has more")
