"""Ray as a queue of work: on this machine, or on a cluster whose nodes see the same folders."""

from __future__ import annotations

import importlib
import os
import platform
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2kit.errors import Failed, N2kitError, Unavailable
from n2kit.utils.signals import signal_handlers

SENT = ("N2KIT_", "HF_", "XDG_")  # prefixes of the environment variables that are sent to other nodes
MOST_LOSSES = 3  # processes that may be lost at one task, which is then to blame
POLL = 0.2  # seconds until a task that another process is at is tried again
Work = Callable[[int], Any]


@dataclass(frozen=True)
class RayOptions:
    """The Ray that does the work.

    address: of a running cluster, `auto` for the one that this machine belongs to; None starts Ray here for as long as it takes.
    jobs: actors; None: one a GPU, or one a node where there is no GPU.
    """

    address: str | None = None
    jobs: int | None = None


@dataclass(frozen=True)
class Surroundings:
    """The folder and environment of this process, for processes on other nodes; `needed`: a file that they have to see."""

    needed: Path
    folder: str = field(default_factory=lambda: str(Path.cwd()))
    environment: dict[str, str] = field(
        default_factory=lambda: {name: value for name, value in os.environ.items() if name.startswith(SENT)}
    )

    def enter(self) -> None:
        """Be where the other process is.

        Raises:
            Unavailable: this node does not see what it sees.
        """
        for path in (Path(self.folder), self.needed):
            if not path.exists():
                what = f"node {platform.node()} does not see {path}"
                raise Unavailable(what, "a cluster needs a folder that all nodes share")
        os.chdir(self.folder)
        os.environ.update(self.environment)


@contextmanager
def connected(address: str | None, cpus: int | None = None) -> Iterator[Any]:
    """Connect to Ray, and yield its module.

    Args:
        cpus: of the Ray that is started here; None: all.

    Raises:
        Unavailable: no Ray, or no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics unless the user asks for them
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise Unavailable("--engine ray needs Ray, which is not installed", "pip install 'n2kit[ray]'") from None
    own = {} if address else {"num_cpus": cpus}
    try:
        ray.init(address=address, **own, log_to_driver=False, include_dashboard=False, configure_logging=False)
    except Exception as error:  # its very class, where a node does not start in time
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unavailable(
            f"no Ray cluster at {address or 'this machine'}: {reason}", "ray start --head starts one"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


class Actor:
    """The process that holds what the work needs; nothing is done before `start`, whose errors can be told from lost processes."""

    def start(self, surroundings: Surroundings, prepare: Callable[[], Work]) -> None:
        surroundings.enter()
        self.work = prepare()

    def do(self, task: int) -> Any:
        return self.work(task)


def run_queue(
    options: RayOptions,
    needed: Path,
    prepare: Callable[[], Work],
    tasks: Iterable[int],
    take: Callable[[int, Any], bool],
) -> None:
    """Let actors do tasks until all are done. One whose process is lost is done by another process.

    Args:
        needed: a file or folder that all nodes have to see.
        prepare: called in each actor, it gives what does a task there.
        take: called here with a task and its result; false: another process is at it, and it is tried again.

    Raises:
        Unavailable: no Ray, no such cluster, or a node that does not see the folders. Failed: several processes were lost at one task.
        N2kitError: what `prepare` or the work raises. KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    with connected(options.address) as ray, signal_handlers(signal.default_int_handler, signal.SIGTERM):
        _Queue(ray, options, Surroundings(needed.absolute()), prepare, deque(tasks), take).run()


@dataclass
class _Queue:
    """The tasks that are left, and the actors at work: reference of a call → its actor, and its task (None: it starts)."""

    ray: Any
    options: RayOptions
    surroundings: Surroundings
    prepare: Callable[[], Work]
    tasks: deque[int]
    take: Callable[[int, Any], bool]
    running: dict[Any, tuple[Any, int | None]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    lost: Counter[int | None] = field(default_factory=Counter)

    def run(self) -> None:
        jobs, resources = places(self.ray, self.options.jobs)
        self.kind = self.ray.remote(**resources)(Actor)
        for _ in range(min(jobs, len(self.tasks))):
            self.start()
        while self.tasks or any(task is not None for _, task in self.running.values()):
            while self.idle and self.tasks:
                actor, task = self.idle.pop(), self.tasks.popleft()
                self.running[actor.do.remote(task)] = actor, task
            for reference in self.ray.wait(list(self.running))[0]:
                self.over(reference)

    def start(self) -> None:
        actor = self.kind.remote()
        self.running[actor.start.remote(self.surroundings, self.prepare)] = actor, None

    def over(self, reference: Any) -> None:
        """Take the result of a call that has ended."""
        actor, task = self.running.pop(reference)
        try:
            result = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, N2kitError):
                raise error.cause from None
            raise error.cause or error from None
        except self.ray.exceptions.RayError as error:
            self.replace(task, error)
            return
        self.idle.append(actor)
        if task is not None and not self.take(task, result):
            self.tasks.append(task)
            time.sleep(POLL)

    def replace(self, task: int | None, error: Exception) -> None:
        """Start another actor in the place of one that is lost, and give its task back."""
        self.lost[task] += 1
        if self.lost[task] >= MOST_LOSSES:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            what = "that start" if task is None else f"at part {task}"
            raise Failed(f"{MOST_LOSSES} processes {what} were lost: {reason}", "their memory may be too small; --jobs")
        if task is not None:
            self.tasks.appendleft(task)
        self.start()


def places(ray: Any, jobs: int | None) -> tuple[int, dict[str, Any]]:
    """Return how many actors there shall be, and what each takes of the cluster: its CPUs divided, and a GPU where it has any."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    cpus, gpus = (sum(int(node.get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
    jobs = jobs or gpus or len(nodes) or 1
    least = min((int(node["CPU"]) for node in nodes), default=1)
    return jobs, {"num_cpus": max(1, min(cpus // jobs, least)), "num_gpus": 1 if gpus else 0}
