"""The check that vectors are of unit length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from n2kit.errors import BadInput

if TYPE_CHECKING:
    from n2kit.embed.vectors_file import Vectors


def check_unit_length(table: Vectors, where: str) -> None:
    """Check that vectors are of unit length.

    Raises:
        BadInput: some are not.
    """
    square = np.einsum("nd,nd->n", table.vectors, table.vectors)
    wrong = ~((square > 0.98) & (square < 1.02))
    if wrong.any():
        raise BadInput(
            f"{where}: the vector of {table.ids[int(wrong.argmax())]!r} is not of unit length ({int(wrong.sum())} such)",
            "n2kit embed makes unit vectors",
        )
