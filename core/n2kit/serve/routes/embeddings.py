"""Vectors of texts, images and items."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from n2kit.serve.engine import Given
from n2kit.serve.pictures import item_given
from n2kit.serve.problems import Problem
from n2kit.serve.routes import Served
from n2kit.serve.shapes import EmbeddingRequest, rows_of

router = APIRouter(tags=["embeddings"])


@router.post("/v1/embeddings")
async def embeddings(asked: EmbeddingRequest, state: Served) -> Response:
    """Embed texts, images or items, in the shapes of OpenAI, Jina, vLLM and Infinity, or as n2kit's own items."""
    engine = state.engine(asked.model)
    width = asked.dimensions or engine.width
    if width not in engine.widths:
        widths = ", ".join(map(str, engine.widths))
        raise Problem(
            400, f"dimensions {width}: the model was trained for {widths}", "loss matryoshka trains more", "dimensions"
        )
    rows = rows_of(asked)
    if len(rows) > state.options.max_inputs:
        raise Problem(413, f"{len(rows)} inputs, at most {state.options.max_inputs} in one request")
    items = await run_in_threadpool(
        lambda: [item_given(row, f"input.{n}", state.options) for n, row in enumerate(rows)]
    )
    done = await engine.encode([Given(item) for item in items])
    tokens = sum(one.tokens for one in done)
    data = [
        {"object": "embedding", "index": n, "embedding": written(_cut(one.vector, width), asked.encoding)}
        for n, one in enumerate(done)
        if one.vector is not None
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": engine.name, "usage": usage}
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


@router.get("/v1/models")
async def models(state: Served) -> dict[str, Any]:
    """List the models that are served."""
    data = [
        {
            "id": engine.name, "object": "model", "created": 0, "owned_by": "n2kit", "fingerprint": engine.fingerprint,
            "width": engine.width, "dimensions": engine.widths, "views": engine.views,
            "indexes": [name for name, c in state.catalogues.items() if c.engine is engine],
        }
        for engine in state.engines.values()
    ]  # fmt: skip
    return {"object": "list", "data": data}


def _cut(vector: np.ndarray, width: int) -> np.ndarray:
    """Cut a unit vector [d] to its first `width` dimensions, of unit length again."""
    if width == len(vector):
        return vector
    return vector[:width] / max(float(np.linalg.norm(vector[:width])), 1e-12)


def written(vector: np.ndarray, encoding: str) -> np.ndarray | str:
    """Write a vector as numbers, as base64 of float32, or as one bit a dimension: signed (binary) or unsigned bytes."""
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    if encoding == "float":
        return np.ascontiguousarray(vector)
    bits = np.packbits(vector > 0)
    return bits.view(np.int8) if encoding == "binary" else bits
