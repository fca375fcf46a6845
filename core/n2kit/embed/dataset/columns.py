"""Matrices of vectors as columns of Parquet: float32, float16, or int8 with a scale a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from n2kit.embed.dataset.format import DType
from n2kit.embed.vectors_file import matrix_of
from n2kit.utils.arrow import array_of, lists_of, numbers_of

LARGEST = 127  # of int8, on both sides


def scale_of(name: str) -> str:
    """Name the column of the scales of a column of int8."""
    return f"{name}_scale"


def columns_of(name: str, matrix: np.ndarray, dtype: DType) -> dict[str, pa.Array]:
    """Make the columns of a matrix [n, d]: `name`, and for int8 the scale of each row."""
    if dtype != "int8":
        return {name: lists_of(matrix.astype(dtype))}
    scale = np.abs(matrix).max(1, initial=0).astype(np.float32) / LARGEST
    with np.errstate(invalid="ignore"):
        whole = np.nan_to_num(np.round(matrix / np.where(scale > 0, scale, 1)[:, None]))
    return {name: lists_of(whole.astype(np.int8)), scale_of(name): array_of(scale)}


def matrix_from(table: pa.Table, name: str, path: Path) -> np.ndarray:
    """Read what `columns_of` wrote: unit vectors [n, d], float32; of what was rounded, the length is made 1 again."""
    matrix = matrix_of(table.column(name), path)
    stored = table.schema.field(name).type.value_type
    if stored == pa.float32():
        return matrix
    if scale_of(name) in table.column_names:
        matrix = matrix * numbers_of(table.column(scale_of(name)))[:, None]
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit: np.ndarray = matrix / np.where(length > 0, length, 1)
    return unit
