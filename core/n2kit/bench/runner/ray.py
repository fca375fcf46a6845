"""Tasks as remote tasks of Ray: on this machine, or on a cluster whose nodes see the same folders."""

from __future__ import annotations

import importlib
import os
import platform
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.bench.events import Interrupted, Note, ignore
from n2kit.bench.runner.context import StopError, one_line
from n2kit.bench.runner.tasks import Task
from n2kit.errors import Unavailable
from n2kit.utils.signals import signal_handlers

if TYPE_CHECKING:
    from n2kit.bench.runner.context import BenchContext

SENT = ("N2KIT_", "HF_", "XDG_")  # prefixes of the environment variables that are sent to other nodes


def run_ray(bench: BenchContext, tasks: Sequence[Task], jobs: int, threads: int, address: str | None = None) -> None:
    """Perform tasks by Ray, features first, as many at a time as there are CPUs for `threads` each, and a GPU where it has any.

    Args:
        jobs: tasks at a time, where Ray is started here.
        address: of a running cluster, `auto` for the one that this machine belongs to; None starts Ray here for as long as it takes.

    Raises:
        Unavailable: no Ray, or no such cluster. StopError: a full disk, or nodes that do not see the output folder.
        KeyboardInterrupt: Ctrl-C or SIGTERM; running trainings have saved a checkpoint.
    """
    with _connected(address, jobs * threads) as ray:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        # One call a process: a cell's memory is its own.
        remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_calls=1, max_retries=0)(_work)
        environment = {name: value for name, value in os.environ.items() if name.startswith(SENT)}
        root = bench.store.root.absolute()
        sent = ray.put(replace(bench, emit=ignore, store=replace(bench.store, root=root)))
        for features in (True, False):
            wanted = [task for task in tasks if task.features is features]
            running = {remote.remote(sent, task, str(Path.cwd()), environment, threads): task for task in wanted}
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


@contextmanager
def _connected(address: str | None, cpus: int) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics unless the user asks for them
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise Unavailable("--engine ray needs Ray, which is not installed", "pip install 'n2kit[ray]'") from None
    own = {} if address else {"num_cpus": cpus}
    try:
        ray.init(address=address, **own, log_to_driver=False, include_dashboard=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise Unavailable(
            f"no Ray cluster at {address or 'this machine'}: {reason}", "ray start --head starts one"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _work(bench: BenchContext, task: Task, folder: str, environment: dict[str, str], threads: int) -> None:
    """Perform a task on some node.

    Raises:
        StopError: the node does not see what the bench sees.
    """
    if not Path(folder).is_dir() or not (bench.store.root / "data.json").is_file():
        where = folder if not Path(folder).is_dir() else bench.store.root
        raise StopError(f"node {platform.node()} does not see {where}", "a cluster needs a folder that all nodes share")
    os.chdir(folder)
    os.environ.update(environment)
    from n2kit.bench.runner.machine import prepare

    task.perform(prepare(bench, threads, slot=0))
