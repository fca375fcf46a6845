"""Columns of Arrow as arrays of numpy, without pandas, whose import Arrow's own way costs: a fifth of a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def numbers_of(column: pa.ChunkedArray) -> np.ndarray:
    """Read a column of numbers: [n]; a null of floats is NaN."""
    if column.null_count:
        return np.asarray(column.to_numpy())
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks if len(chunk)]
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate(chunks) if chunks else np.empty(0, column.type.to_pandas_dtype())


def texts_of(column: pa.ChunkedArray) -> np.ndarray:
    """Read a column of texts: [n] of objects, None for a null."""
    return np.array(column.to_pylist(), object)
