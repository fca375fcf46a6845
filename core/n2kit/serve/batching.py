"""A queue in front of a model: requests that arrive together are computed together."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

LOG = logging.getLogger("n2kit")
T = TypeVar("T")
R = TypeVar("R")
PAUSE, LONGEST = 0.02, 0.1  # of the time of the last call: to wait for one more request, and for all of them together


@dataclass
class Job(Generic[T, R]):
    """The items of one request; `cost` is their share of a batch."""

    items: list[T]
    cost: int = 0
    answer: Future[list[R]] = field(default_factory=Future)


class Closed(RuntimeError):
    """The queue takes nothing more: the server is about to stop."""


class Batcher(Generic[T, R]):
    """A thread that runs one function on the items of several requests at a time.

    Args:
        work: items → one result each. cost: of one item, such as its tokens.
        most: the cost of one call at most, unless one request alone is dearer. wait: seconds that a call waits for company.
            Clients whom the last call answered come back one after the other: behind one of several, it waits somewhat longer, and
            again after each that comes.
        observe: called with the number of items and the cost of each call.
    """

    def __init__(
        self,
        work: Callable[[list[T]], Sequence[R]],
        cost: Callable[[T], int],
        *,
        most: int,
        wait: float,
        observe: Callable[[int, int], None] = lambda items, cost: None,
    ) -> None:
        self._work, self._cost, self._most, self._wait, self._observe = work, cost, most, wait, observe
        self._jobs: queue.Queue[Job[T, R] | None] = queue.Queue()
        self._next: Job[T, R] | None = None
        self._took = 0.0  # seconds, of the last call
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="n2kit-batches", daemon=True)
        self._thread.start()

    def submit(self, items: list[T]) -> Future[list[R]]:
        """Queue the items of one request.

        Raises:
            Closed: nothing more is taken.
        """
        job: Job[T, R] = Job(items)
        with self._lock:
            if self._closed:
                raise Closed
            self._jobs.put(job)
        return job.answer

    @property
    def waiting(self) -> int:
        """The number of requests that wait for the model."""
        return self._jobs.qsize()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Take nothing more, and finish what was taken."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._batch():
            began = time.monotonic()
            self._compute(jobs)
            self._took = time.monotonic() - began if len(jobs) > 1 else 0  # a client alone waits for nobody

    def _batch(self) -> list[Job[T, R]]:
        """Take the requests of one call; none once the queue is closed and empty."""
        first = self._next or self._take(None)
        self._next = None
        if first is None:
            return []
        pause = max(self._wait, PAUSE * self._took) if self._wait else 0
        jobs, total, until = [first], first.cost, time.monotonic() + pause
        latest = until + LONGEST * self._took
        while total < self._most:
            job = self._take(max(until - time.monotonic(), 0))
            if job is None:
                break
            if total + job.cost > self._most:
                self._next = job
                break
            jobs.append(job)
            total += job.cost
            until = min(time.monotonic() + pause, latest)
        return jobs

    def _take(self, timeout: float | None) -> Job[T, R] | None:
        """Take a request, with its cost; None where none comes in time, or ever."""
        while True:
            try:
                job = self._jobs.get(timeout=timeout) if timeout != 0 else self._jobs.get_nowait()
            except queue.Empty:
                return None
            if job is None:
                self._jobs.put(None)  # for the next call: it ends there
                return None
            if not job.answer.set_running_or_notify_cancel():
                continue
            try:
                job.cost = sum(map(self._cost, job.items))
            except Exception as problem:
                job.answer.set_exception(problem)
                continue
            return job

    def _compute(self, jobs: list[Job[T, R]]) -> None:
        """Compute a batch; if it fails, each request alone, so that none suffers from another."""
        try:
            results = list(self._work([item for job in jobs for item in job.items]))
        except Exception as problem:
            if len(jobs) > 1:
                LOG.warning(
                    "a batch of %d requests failed (%s); each is tried alone", len(jobs), type(problem).__name__
                )
                for job in jobs:
                    self._compute([job])
            else:
                jobs[0].answer.set_exception(problem)
            return
        self._observe(len(results), sum(job.cost for job in jobs))
        start = 0
        for job in jobs:
            job.answer.set_result(results[start : start + len(job.items)])
            start += len(job.items)
