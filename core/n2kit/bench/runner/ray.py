"""Tasks as remote tasks of Ray: on this machine, or on a cluster whose nodes see the same folders."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from n2kit.bench.events import Interrupted, Note, ignore
from n2kit.bench.runner.context import StopError, one_line
from n2kit.bench.runner.tasks import Task
from n2kit.errors import Unavailable
from n2kit.utils.ray_queue import Surroundings, connected
from n2kit.utils.signals import signal_handlers

if TYPE_CHECKING:
    from n2kit.bench.runner.context import BenchContext


def run_ray(bench: BenchContext, tasks: Sequence[Task], jobs: int, threads: int, address: str | None = None) -> None:
    """Perform tasks by Ray, features first, as many at a time as there are CPUs for `threads` each, and a GPU where it has any.

    Args:
        jobs: tasks at a time, where Ray is started here.
        address: of a running cluster, `auto` for the one that this machine belongs to; None starts Ray here for as long as it takes.

    Raises:
        Unavailable: no Ray, or no such cluster. StopError: a full disk, or nodes that do not see the output folder.
        KeyboardInterrupt: Ctrl-C or SIGTERM; running trainings have saved a checkpoint.
    """
    with connected(address, jobs * threads) as ray:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        # One call a process: a cell's memory is its own.
        remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_calls=1, max_retries=0)(_work)
        root = bench.store.root.absolute()
        surroundings = Surroundings(root / "data.json")
        sent = ray.put(replace(bench, emit=ignore, store=replace(bench.store, root=root)))
        for features in (True, False):
            wanted = [task for task in tasks if task.features is features]
            running = {remote.remote(sent, task, surroundings, threads): task for task in wanted}
            with signal_handlers(signal.default_int_handler, signal.SIGTERM):  # for which Ray has a handler of its own
                _wait(ray, bench, running)


def _wait(ray: Any, bench: BenchContext, running: dict[Any, Task]) -> None:
    try:
        while running:
            for reference in ray.wait(list(running))[0]:
                _over(ray, bench, reference, running.pop(reference))
    except (KeyboardInterrupt, StopError):
        bench.emit(Interrupted())
        for reference in running:
            ray.cancel(reference)
        ray.wait(list(running), num_returns=len(running))
        raise


def _over(ray: Any, bench: BenchContext, reference: Any, task: Task) -> None:
    """Emit the rows of a task that has ended; cells without a row are marked as failed."""
    reason = ""
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, StopError):
            raise error.cause from None
        reason = one_line(error.cause)
    except ray.exceptions.RayError as error:
        reason = f"its process was lost: {type(error).__name__}: {error}".splitlines()[0]
    if reason and task.features:
        bench.emit(Note(f"{task.name}: {reason}"))
    for cell in () if task.features else task.cells:
        if (row := bench.store.read(cell)) is None:
            bench.mark_crashed(cell, reason or "it left no result")
        else:
            bench.emit_row(row)


def _work(bench: BenchContext, task: Task, surroundings: Surroundings, threads: int) -> None:
    """Perform a task on some node.

    Raises:
        StopError: the node does not see what the bench sees.
    """
    try:
        surroundings.enter()
    except Unavailable as problem:
        raise StopError(problem.message, problem.hint) from None
    from n2kit.bench.runner.machine import prepare

    task.perform(prepare(bench, threads, slot=0))
