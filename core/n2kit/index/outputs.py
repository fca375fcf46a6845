"""Results of third parties' indexes, held to the shapes of the contract: a wrong one is said with its index, where it is made."""

from __future__ import annotations

from typing import Any

import numpy as np

from n2kit.contract.index import Index
from n2kit.plugins.blame import accuse, is_foreign

WATCHED = "_n2kit_watched"  # of a class that is


def watch(index: Index) -> None:
    """Let the indexes of a third party's class say of themselves that they break the contract; do nothing with n2kit's own.

    The class is changed and not the index, which may be copied or written with all that it holds.
    """
    kind: Any = type(index)
    if not is_foreign(index) or WATCHED in vars(kind):
        return
    find, stored = kind.search, kind.vector

    def search(self: Index, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        found: Any = find(self, queries, k)
        pair = found if isinstance(found, tuple) and len(found) == 2 else (found, found)
        shape = (len(queries), k)
        if wrong := next(
            (w for what, one in zip(("scores", "rows"), pair, strict=True) if (w := _wrong(what, one, shape))), None
        ):
            raise accuse(self, f"its search gives {wrong}") or AssertionError(wrong)
        return pair

    def vector(self: Index, row: int) -> np.ndarray:
        found: Any = stored(self, row)
        if wrong := _wrong("a vector", found, (None,)):
            raise accuse(self, f"its vector gives {wrong}") or AssertionError(wrong)
        return found  # type: ignore[no-any-return]

    kind.search, kind.vector = search, vector
    setattr(kind, WATCHED, True)


def _wrong(what: str, found: Any, shape: tuple[int | None, ...]) -> str | None:
    """Say what is wrong with an array of a shape, of which None may be any length; None for a right one."""
    if not isinstance(found, np.ndarray):
        return f"{what}: {'None' if found is None else type(found).__name__}, not an array"
    if len(found.shape) != len(shape) or any(
        want not in (None, have) for have, want in zip(found.shape, shape, strict=True)
    ):
        return f"{what} of shape {list(found.shape)}, not [{', '.join('d' if side is None else str(side) for side in shape)}]"
    return None
