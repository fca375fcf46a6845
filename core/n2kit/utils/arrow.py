"""Columns of Arrow, made and read without pandas, whose import Arrow's own ways cost: a third of a second.

`pyarrow.array` asks pandas about what it is given, `pyarrow.parquet.read_table` by the module that it imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def read_parquet(file: Path, *, checked: bool = False) -> pa.Table:
    """Read a file of Parquet; `checked` by the checksums of its pages, where it has some."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, page_checksum_verification=checked) as opened:
        table: pa.Table = opened.read()
    return table


def array_of(numbers: np.ndarray) -> pa.Array:
    """Make a column of numbers [n], as `numbers_of` reads them; NaN stays NaN."""
    import pyarrow as pa

    numbers = np.ascontiguousarray(numbers)
    kind = pa.from_numpy_dtype(numbers.dtype)
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])


def strings_of(texts: Sequence[str]) -> pa.Array | pa.ChunkedArray:
    """Make a column of texts [n], as `texts_of` reads them."""
    import pyarrow as pa

    content = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, content)])
    if ends[-1] > np.iinfo(np.int32).max:  # more than one array of texts holds
        return pa.array(texts, pa.string())
    buffers = pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(content))
    return pa.StringArray.from_buffers(len(content), *buffers)


def lists_of(matrix: np.ndarray) -> pa.Array:
    """Make a column of lists of one length of a matrix [n, d]."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(array_of(matrix.ravel()), matrix.shape[1])


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
