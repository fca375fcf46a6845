"""Vectors as `encode` gives them; no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Progress = Callable[[int, int], None]


@dataclass
class Encoded:
    """The vectors of items, in the order of `ids`.

    vectors [n, d]; visual [n, d], with rows of NaN for items without a visual view. skipped: id → reason.
    """

    ids: list[str]
    vectors: np.ndarray
    visual: np.ndarray | None
    skipped: dict[str, str] = field(default_factory=dict)
