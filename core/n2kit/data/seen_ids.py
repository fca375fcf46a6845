"""The ids of a catalogue that is too large to be held."""

from __future__ import annotations

from array import array
from bisect import bisect_left

RECENT = 1 << 16  # ids in a dict, before they become a sorted run


class SeenIds:
    """The ids that were read and the line of each, in 16 bytes an id: sorted runs of 64-bit hashes, merged as they grow.

    Two ids of one hash would be taken for one: among ten million, the odds are 1 in 300,000.
    """

    def __init__(self) -> None:
        self.recent: dict[int, int] = {}
        self.runs: list[tuple[array[int], array[int]]] = []  # hashes, lines

    def first_line(self, item_id: str, line: int) -> int | None:
        """Return the line on which an id was seen first; None where that is `line`, the present one."""
        key = hash(item_id)
        if (found := self.recent.get(key)) is not None:
            return found
        for hashes, lines in self.runs:
            place = bisect_left(hashes, key)
            if place < len(hashes) and hashes[place] == key:
                return lines[place]
        self.recent[key] = line
        if len(self.recent) >= RECENT:
            self._store()
        return None

    def _store(self) -> None:
        """Turn the recent ids into a run, and merge runs of like size."""
        import numpy as np

        keys = np.fromiter(self.recent.keys(), np.int64, len(self.recent))
        lines = np.fromiter(self.recent.values(), np.int64, len(self.recent))
        self.recent = {}
        while self.runs and len(self.runs[-1][0]) <= 2 * len(keys):
            more, at = self.runs.pop()
            keys, lines = np.concatenate([np.asarray(more), keys]), np.concatenate([np.asarray(at), lines])
        order = np.argsort(keys, kind="stable")
        self.runs.append((array("q", keys[order].tobytes()), array("q", lines[order].tobytes())))
