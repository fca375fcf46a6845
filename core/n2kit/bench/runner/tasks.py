"""The tasks of a matrix: pieces of work, each for one process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from n2kit.bench.cell_row import FAILED
from n2kit.bench.matrix.cell import Cell
from n2kit.errors import BadInput, counted

if TYPE_CHECKING:
    from n2kit.bench.runner.context import BenchContext
    from n2kit.bench.runner.store import Store

USABLE_SHARE = 0.9  # share of the cache that can be filled for certain


@dataclass(frozen=True)
class Task:
    """Cells that share a training; the baselines of one language model; or, with `features`, the features of all images by
    the cells' frozen vision encoder.
    """

    cells: tuple[Cell, ...]
    features: bool = False

    @property
    def vision_keys(self) -> frozenset[str]:
        """The keys of the frozen vision encoders that it uses."""
        return frozenset(cell.vision_key.key for cell in self.cells if cell.vision_key is not None)

    @property
    def name(self) -> str:
        first = self.cells[0]
        if self.features and first.vision_key is not None:
            return f"features of {first.vision_key.name}"
        return "baselines" if first.baseline else f"{first.arm} #{first.seed}"

    def perform(self, bench: BenchContext) -> None:
        """Perform the task in this process, and write the rows of its cells.

        Raises:
            KeyboardInterrupt: Ctrl-C; a training that was running has saved a checkpoint.
        """
        from n2kit.bench.runner.cells import run_cells
        from n2kit.bench.runner.vision_features import compute

        if self.features:
            compute(bench, self.cells)
        else:
            run_cells(bench, self.cells)


def pending_cells(store: Store, cells: Sequence[Cell], *, only: str | None = None, retry: bool = False) -> list[Cell]:
    """Select the cells that are still to be run: neither refused nor done, and failed ones only with `retry`.

    Args:
        only: a pattern of the shell (`*+micl`) that the arm or the key of a cell must fit.

    Raises:
        BadInput: no cell fits `only`.
    """
    wanted = [
        cell for cell in cells if only is None or any(fnmatchcase(n, only) for n in (cell.arm, cell.key, *cell.also))
    ]
    if not wanted:
        raise BadInput(f"--only {only!r} fits no arm and no key", "--dry-run lists them; * stands for anything")
    found = []
    for cell in wanted:
        row = store.read(cell)
        again = row is None or not store.has_ranks(row) or (row.state == FAILED and retry)
        if cell.refusal is None and again:
            found.append(cell)
    return found


def tasks(cells: Sequence[Cell]) -> list[Task]:
    """Group cells into tasks: features first, then trainings, each in the order of the matrix."""
    vision_keys: dict[str, list[Cell]] = {}
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.run_key, []).append(cell)
        if cell.vision_key is not None:
            vision_keys.setdefault(cell.vision_key.key, []).append(cell)
    return [Task(tuple(c), features=True) for c in vision_keys.values()] + [Task(tuple(c)) for c in groups.values()]


def cache_too_small(cells: Sequence[Cell], images: int) -> str | None:
    """Return a remark where the features of all encoders do not fit into the cache, so that cells compute some anew; else None."""
    vision_keys = {cell.vision_key.key: cell for cell in cells if cell.vision_key is not None}
    bytes_, most = 0.0, 0.0
    for cell in vision_keys.values():
        assert cell.vision_key is not None
        assert cell.recipe is not None
        bytes_ += images * cell.vision_key.values * (2 if cell.recipe.train.precision == "bf16" else 4)
        most = max(most, cell.recipe.train.feature_cache_gb * 1e9)
    if bytes_ <= most * USABLE_SHARE:
        return None
    names = " and ".join(cell.vision_key.name for cell in vision_keys.values() if cell.vision_key is not None)
    return (
        f"features of {counted(images, 'image')} by {names} take up to {bytes_ / 1e9:.1f} GB, "
        f"and train.feature_cache_gb is {most / 1e9:g}: "
        f"some are computed anew in every cell; --set train.feature_cache_gb={math.ceil(bytes_ / USABLE_SHARE / 1e9)} keeps them all"
    )
