"""Signs of life: the process, the readiness, the counters."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from n2kit.serve.problems import Problem
from n2kit.serve.routes import Served

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """Answer as long as the process lives."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(state: Served) -> dict[str, str]:
    """Answer 200 while requests are taken, else 503."""
    if state.stopping or not all(engine.batcher.alive for engine in state.engines.values()):
        raise Problem(503, "the server is stopping" if state.stopping else "a model has stopped")
    return {"status": "ready"}


@router.get("/metrics")
async def metrics(state: Served) -> Response:
    """Give the counters, for Prometheus."""
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
