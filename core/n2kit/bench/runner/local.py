"""Tasks on this machine, each in a process of its own: a process that dies ends its own cells and no others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.bench.events import Crashed, Interrupted, Note, TaskEnded, TaskStarted, ignore
from n2kit.bench.runner.context import StopError, one_line
from n2kit.bench.runner.tasks import Task
from n2kit.plugins.blame import blaming
from n2kit.plugins.isolation import describe_exit
from n2kit.utils.fork_server import METHOD, forks_of
from n2kit.utils.signals import signal_handlers

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from n2kit.bench.runner.context import BenchContext

PRELOAD = ("n2kit.bench.runner.cells", "n2kit.bench.runner.vision_features")  # what a task imports in the end
UNKNOWN = 255  # exit code that multiprocessing gives a process whose fork server was killed
KILL_TIMEOUT_S = 60.0  # seconds that a process gets to end after the second interrupt


@dataclass
class RunningTask:
    """A task and its process; `pipe` gives its events, and ends with it."""

    task: Task
    process: BaseProcess
    pipe: Any
    slot: int
    problem: str = ""


def run_local(bench: BenchContext, tasks: Sequence[Task], jobs: int, threads: int) -> None:
    """Perform tasks, at most `jobs` at a time with `threads` each; those that read an encoder's features wait for them.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; running trainings have saved a checkpoint.
        StopError: nothing can go on here, as on a full disk.
    """
    pool = _Pool(bench, list(tasks), jobs, threads)
    with signal_handlers(signal.default_int_handler, signal.SIGTERM):  # as a scheduler sends it
        try:
            pool.run()
        except (KeyboardInterrupt, StopError):
            bench.emit(Interrupted())
            pool.stop()
            raise


class _Pool:
    def __init__(self, bench: BenchContext, tasks: list[Task], jobs: int, threads: int) -> None:
        self.bench, self.waiting, self.jobs, self.threads = bench, tasks, jobs, threads
        self.running: dict[Any, RunningTask] = {}
        self.context = forks_of(PRELOAD)

    def run(self) -> None:
        while self.waiting or self.running:
            while len(self.running) < self.jobs and (task := self._next()) is not None:
                self._start(task)
            self._listen()

    def _next(self) -> Task | None:
        unfinished = [*(r.task for r in self.running.values()), *self.waiting]
        busy = frozenset(vision_key for task in unfinished if task.features for vision_key in task.vision_keys)
        for task in self.waiting:
            if task.features or not task.vision_keys & busy:
                self.waiting.remove(task)
                return task
        return None

    def _start(self, task: Task) -> None:
        taken = {r.slot for r in self.running.values()}
        slot = next(n for n in range(self.jobs) if n not in taken)
        ours, theirs = self.context.Pipe(duplex=False)
        bench = replace(self.bench, emit=ignore)
        arguments = (bench, task, theirs, dict(os.environ), self.threads, slot)
        process = self.context.Process(target=_work, args=arguments, daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self.running[ours] = RunningTask(task, process, ours, slot)
        self.bench.emit(TaskStarted(task.name, worker=slot))

    def _listen(self) -> None:
        for pipe in _ready(self.running):
            one = self.running[pipe]
            try:
                event = pipe.recv()
            except (EOFError, OSError):
                self._ended(self.running.pop(pipe))
                continue
            if not isinstance(event, Crashed):
                self.bench.emit(replace(event, worker=one.slot))
            elif event.stops:
                raise StopError(event.reason, event.hint)
            else:
                one.problem = event.reason

    def _ended(self, one: RunningTask) -> None:
        one.process.join()
        one.pipe.close()
        code = one.process.exitcode or 0
        reason = one.problem or f"its process was lost: {_exit_reason(code)}"
        if code and one.task.features:
            self.bench.emit(Note(reason, worker=one.slot))
        elif code:
            for cell in one.task.cells:
                if self.bench.store.read(cell) is None:
                    self.bench.mark_crashed(cell, reason)
        self.bench.emit(TaskEnded(one.task.name, worker=one.slot))

    def stop(self) -> None:
        """Let every task end after its step; on a second interrupt, end them at once."""
        self.waiting.clear()
        try:
            for one in self.running.values():
                self._send_signal(one, signal.SIGINT)
            while self.running:
                for pipe in _ready(self.running):
                    with suppress(EOFError, OSError):
                        pipe.recv()
                        continue
                    self.running.pop(pipe).process.join()
        except KeyboardInterrupt:
            for one in self.running.values():
                one.process.kill()
                one.process.join(KILL_TIMEOUT_S)

    def _send_signal(self, one: RunningTask, number: int) -> None:
        with suppress(ProcessLookupError):
            if one.process.pid is not None:
                os.kill(one.process.pid, number)


def _exit_reason(code: int) -> str:
    """Describe how a process ended that had not finished its task."""
    if METHOD == "forkserver" and code == UNKNOWN:
        return "nobody saw how"  # the fork server that started it is gone too
    return f"something {describe_exit(code)}{' (out of memory?)' if code == -signal.SIGKILL else ''}"


def _ready(running: dict[Any, RunningTask]) -> list[Any]:
    """Wait for a pipe, and return those that have an event or have ended."""
    return list(connection.wait(list(running)))


def cpus() -> int:
    """Count the threads to divide: as many as the user allows, or the machine has for this process."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(bench: BenchContext, task: Task, pipe: Any, environment: dict[str, str], threads: int, slot: int) -> None:
    """Perform a task in its own process. Ctrl-C comes from the parent alone: a terminal would send it a second time."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # stdout is the parent's data
    try:
        _perform(bench, task, pipe, threads, slot)
    except KeyboardInterrupt:
        os._exit(130)


def _perform(bench: BenchContext, task: Task, pipe: Any, threads: int, slot: int) -> None:
    """Perform a task; what ends it badly is sent to the parent."""
    try:
        from n2kit.bench.runner.machine import prepare

        with blaming():
            task.perform(prepare(replace(bench, emit=pipe.send), threads, slot))
    except StopError as problem:
        pipe.send(Crashed(problem.message, problem.hint or "", stops=True))
        os._exit(1)
    except Exception as problem:  # an error that the task does not handle, as features that cannot be computed
        pipe.send(Crashed(one_line(problem)))
        os._exit(1)


def _die_with_parent() -> None:
    """End this process with its parent: a task of a killed bench must not write beside the bench that goes on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
