"""The run of a whole matrix, from its cells to their rows."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from n2kit.bench.cell_row import DONE, FAILED, REFUSED, CellRow
from n2kit.bench.events import BenchEvent, MatrixStarted, Note, RowWritten
from n2kit.bench.matrix import keys
from n2kit.bench.matrix.cell import Cell
from n2kit.bench.runner.context import BenchContext
from n2kit.bench.runner.local import cpus, run_local
from n2kit.bench.runner.store import MATRIX
from n2kit.bench.runner.tasks import Task, cache_too_small, pending_cells, tasks
from n2kit.utils.files import write_json
from n2kit.utils.signals import signal_handlers

if TYPE_CHECKING:
    from n2kit.bench.runner.eta import TimeEstimate

PACKAGES = ("n2kit", "torch", "transformers", "timm", "open_clip_torch", "accelerate", "peft", "safetensors", "numpy")


@dataclass(frozen=True)
class Engine:
    """The runner of the tasks: processes on this machine, or Ray.

    jobs: tasks at a time on this machine. threads: of each task; by default this machine's, divided among `jobs`. ray: leave it to
    Ray, which runs as many at a time as it has CPUs for; address: of its cluster.
    """

    jobs: int = 1
    threads: int | None = None
    ray: bool = False
    address: str | None = None

    @property
    def each(self) -> int:
        """The threads of a task."""
        return self.threads or max(1, cpus() // self.jobs)

    def run(self, bench: BenchContext, todo: Sequence[Task]) -> None:
        if self.ray and todo:
            from n2kit.bench.runner.ray import run_ray

            run_ray(bench, todo, self.jobs, self.each, self.address)
        else:
            run_local(bench, todo, self.jobs, self.each)


HERE = Engine()


def run_matrix(
    bench: BenchContext, cells: Sequence[Cell], *, only: str | None = None, retry: bool = False, engine: Engine = HERE
) -> list[CellRow]:
    """Run every cell that is not done, and return the rows of all that have one, in the order of the matrix.

    Args:
        cells: what `n2kit.bench.matrix.expand.expand` makes of the bench's matrix.
        only: a pattern of arms or keys; other cells stay as they are.
        retry: run failed cells again.
        engine: the runner; it changes no result but by its threads: sums of floats depend on their order.

    Raises:
        BadInput: the folder is another's, holds cells of other data, or another bench is writing it; no cell fits `only`.
        Unavailable: the disk is full, or the engine is not there.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the same call goes on.
    """
    store = bench.store
    store.claim(bench.data.digests)
    with store.locked():
        todo = pending_cells(store, cells, only=only, retry=retry)
        (store.root / MATRIX).write_text(bench.matrix.to_yaml(), "utf8")
        write_json(store.root / "env.json", _environment(engine))
        if retry:
            for cell in todo:
                if (row := store.read(cell)) is not None and row.state == FAILED:
                    store.reset(cell)
        refused = sum(cell.refusal is not None for cell in cells)
        bench.emit(MatrixStarted(len(cells), len(todo), refused))
        if (text := cache_too_small(todo, bench.data.image_count)) is not None:
            bench.emit(Note(text))
        store.collect(cells)

        def emit(event: BenchEvent) -> None:
            if isinstance(event, RowWritten):
                store.append_result(event.key)
            bench.emit(event)

        try:
            engine.run(replace(bench, emit=emit), tasks(_unmeasured(replace(bench, emit=emit), todo)))
        finally:
            rows = store.collect(cells)
    return rows


def _unmeasured(bench: BenchContext, todo: Sequence[Cell]) -> Sequence[Cell]:
    """Measure the cells whose vectors are kept, and return the others."""
    kept = bench.store.kept_vectors()
    if not any(cell.source(kept) for cell in todo):
        return todo
    from n2kit.bench.runner.remeasure import remeasure

    with signal_handlers(signal.default_int_handler, signal.SIGTERM):
        return remeasure(bench, todo, kept)


@dataclass(frozen=True)
class Preview:
    """A preview of a run: the state of each cell, and the time that the open ones take.

    states: of each of `cells`: done, failed, refused, open, kept (open, but only to be measured) or left out. trainings, encoders:
    shared by the open cells. note: a remark before the run. `estimate` is None where nothing is open.
    """

    cells: Sequence[Cell]
    states: list[str]
    trainings: int
    encoders: list[str]
    note: str | None = None
    estimate: TimeEstimate | None = None


def preview(bench: BenchContext, cells: Sequence[Cell], *, only: str | None = None, retry: bool = False) -> Preview:
    """Return what `run_matrix` would do, without its time; nothing is written.

    Raises:
        BadInput: as `run_matrix`.
    """
    if bench.store.root.exists():
        bench.store.ensure_same_data(bench.data.digests)
    todo = pending_cells(bench.store, cells, only=only, retry=retry)
    kept = bench.store.kept_vectors()
    rows = [bench.store.read(cell) for cell in cells]
    states = [_state(cell, row, cell in todo, kept) for cell, row in zip(cells, rows, strict=True)]
    todo = [cell for cell in todo if cell.source(kept) is None]
    encoders = list(
        {cell.vision_key.key: cell.vision_key.name for cell in todo if cell.vision_key is not None}.values()
    )
    trainings = len({c.run_key for c in todo if c.trained and c.baseline is None})
    return Preview(cells, states, trainings, encoders, cache_too_small(todo, bench.data.image_count))


def _state(cell: Cell, row: CellRow | None, wanted: bool, kept: Mapping[str, str]) -> str:
    if cell.refusal is not None:
        return REFUSED
    if wanted:
        return "kept" if cell.source(kept) else "open"
    return "left out" if row is None else row.state


def timed(bench: BenchContext, seen: Preview, threads: int, progress: Callable[[int, int], None]) -> Preview:
    """Add to a preview the time of its open cells, by those that are done or by a short probe in this process."""
    from n2kit.bench.runner.eta import estimate

    open_ = [cell for cell, state in zip(seen.cells, seen.states, strict=True) if state == "open"]
    if not open_:
        return seen
    done = [(c, row) for c in seen.cells if (row := bench.store.read(c)) is not None and row.state == DONE]
    return replace(seen, estimate=estimate(bench, open_, done, threads, progress))


def _environment(engine: Engine) -> dict[str, Any]:
    """Describe the machine that a matrix was last run on."""
    packages = {name: keys.installed(name) for name in PACKAGES}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "cpus": os.cpu_count() or 1}
    return machine | {"jobs": engine.jobs, "threads": engine.each, "ray": engine.ray} | packages
