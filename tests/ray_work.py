"""Work that actors of Ray import by name, some of it fatal; and what drives it, in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2kit.errors import BadInput
from n2kit.index import neighbours
from n2kit.utils.ray_queue import RayOptions, run_queue


@dataclass(frozen=True)
class Squares:
    """Squares of numbers; of 3 only where the file `once` is there already; 13 is refused, and 99 ends every process."""

    folder: Path

    def __call__(self) -> Callable[[int], int | None]:
        return self.square

    def square(self, number: int) -> int | None:
        if number == 99:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 13:
            raise BadInput("13 is refused", "another number")
        if number == 3 and not (self.folder / "once").exists():
            (self.folder / "once").touch()
            return None
        if number == 4 and not (self.folder / "killed").exists():
            (self.folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number


def squares(folder: Path, numbers: list[int]) -> dict[int, int]:
    """Let two actors square numbers."""
    found: dict[int, int] = {}

    def take(number: int, result: int | None) -> bool:
        assert number not in found
        if result is not None:
            found[number] = result
        return result is not None

    run_queue(RayOptions(jobs=2), folder, Squares(folder), numbers, take)
    return found


def neighbours_by_ray(index: Path, out: Path, k: int, block: int, **options: Any) -> neighbours.Neighbours:
    """Compute neighbours by two actors, `block` items a part."""
    neighbours.BLOCK = block
    return neighbours.all_neighbours(index, out, k, ray=RayOptions(jobs=2), **options)
