"""The work on a plan's shards: whoever is free takes the next one that nobody holds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from n2kit.data.item import Item
from n2kit.embed.dataset.content import contents_of, total
from n2kit.embed.dataset.format import WORK, shard_name
from n2kit.embed.dataset.plan import Order, Plan, base_of, worker_lock
from n2kit.embed.dataset.shard import ShardFacts, is_taken, is_whole, read_facts, write_shard
from n2kit.embed.dataset.spool import read_spool, spool_file
from n2kit.embed.encoded import Encoded, Progress
from n2kit.errors import Failed
from n2kit.plugins.authors import failure
from n2kit.plugins.manager import manager
from n2kit.utils.locks import InUseError, file_lock

POLL = 0.2  # seconds between two looks at shards that others compute


class Encodes(Protocol):
    """A model that makes vectors of items; progress: (done, of how many)."""

    def __call__(self, items: list[Item], progress: Progress | None) -> Encoded: ...


@dataclass
class Shards:
    """The shards of a plan, as one process sees them."""

    folder: Path
    plan: Plan
    order: Order
    notify: Callable[[str], None]
    contents: dict[int, str] = field(default_factory=dict)  # number → the sum of the items' hashes
    whole: set[int] = field(default_factory=set)  # those that are there, and were looked at

    def file(self, number: int) -> Path:
        return self.folder / shard_name(number)

    def look(self, number: int) -> bool:
        """Tell whether a shard is there, of these items as they are now, and whole."""
        if number in self.whole:
            return True
        facts = read_facts(self.file(number))
        try:
            if facts is None or not self._fits(number, facts) or not is_whole(self.file(number)):
                return False
        except FileNotFoundError:  # its items: another process has finished the folder
            return False
        self.whole.add(number)
        return True

    def compute(self, number: int, encode: Encodes, progress: Progress | None = None) -> None:
        """Compute a shard and write it."""
        if is_taken(self.file(number)):
            self.notify(f"{self.file(number)} is not whole, or not of these items: it is computed again")
        items = read_spool(self.folder / WORK, number)
        contents = self._contents(items)
        about: dict[str, Any] = {
            "number": number,
            "shards": self.plan.shards,
            "items": len(items),
            "file": str(self.file(number)),
        }
        self._call_hooks("n2kit_shard_started", about)
        start = time.perf_counter()
        encoded = encode(items, progress)
        facts = ShardFacts(self.order.run.model_dump(), self.order.on_bad_image, total(contents), encoded.skipped)
        write_shard(self.file(number), encoded, dict(zip([i.id for i in items], contents, strict=True)), facts)
        self.whole.add(number)
        took = {"seconds": round(time.perf_counter() - start, 3), "skipped": len(encoded.skipped)}
        self._call_hooks("n2kit_shard_finished", about | took)

    def _call_hooks(self, hook: str, shard: dict[str, Any]) -> None:
        """Call a hook of all plug-ins; one that fails is said, and the work goes on."""
        run = {"folder": str(self.folder), "fingerprint": self.order.run.fingerprint}
        for plugin, error in manager().hooks.call(hook, run=run, shard=shard)[1]:
            self.notify(f"{hook} of {plugin} failed: {failure(plugin, error)}")

    def size(self, number: int) -> int:
        """Return how many items a shard is of."""
        full = self.order.shard_size
        return full if number < self.plan.numbers[-1] else self.plan.items - full * (self.plan.shards - 1)

    def _fits(self, number: int, facts: ShardFacts) -> bool:
        if number not in self.contents:
            self.contents[number] = total(self._contents(read_spool(self.folder / WORK, number)))
        return facts.made_of(self.order.run, self.order.on_bad_image, self.contents[number])

    def _contents(self, items: list[Item]) -> list[bytes]:
        return contents_of(items, self.order.images, reads_images=self.order.reads_images)


def work(shards: Shards, encode: Encodes, place: tuple[int, int] = (0, 1), progress: Progress | None = None) -> None:
    """Compute shards until all of the plan are there: those that no other process holds, and at last those that were let go.

    Args:
        place: this process is number i of n, and begins at its n-th part of the shards; it helps with the others' then.
    """
    numbers = list(shards.plan.numbers)
    start = len(numbers) * place[0] // place[1]
    pending = [*numbers[start:], *numbers[:start]]
    while pending:
        before = len(pending)
        for number in list(pending):
            if ended(shards):
                return
            there = shards.look(number)
            if there or compute_if_free(shards, number, encode, _shifted(shards, pending, progress)):
                pending.remove(number)
            if there and progress:
                progress(_done(shards, pending), shards.plan.items)
        if len(pending) == before:
            time.sleep(POLL)


def compute_if_free(shards: Shards, number: int, encode: Encodes, progress: Progress | None) -> bool:
    """Compute a shard, unless another process does or has just done it."""
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(shards.folder / WORK / f"{number:06d}.lock", str(shards.folder)))
        except InUseError:
            return False
        if not spool_file(shards.folder / WORK, number).is_file():
            if ended(shards):
                return False
            raise Failed(f"the items of shard {number} are no longer in {shards.folder / WORK}", "--force begins anew")
        if not shards.look(number):
            shards.compute(number, encode, progress)
        return True


def ended(shards: Shards) -> bool:
    """Tell whether another process has finished the folder."""
    return base_of(shards.folder) not in ("", shards.plan.key["base"])


def _done(shards: Shards, pending: list[int]) -> int:
    return shards.plan.items - sum(map(shards.size, pending))


def _shifted(shards: Shards, pending: list[int], progress: Progress | None) -> Progress | None:
    if progress is None:
        return None
    start = _done(shards, pending)
    return lambda done, _: progress(start + done, shards.plan.items)


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Say, as long as it lasts, that this process works by the folder's plan."""
    with file_lock(worker_lock(folder, f"{platform.node()}-{os.getpid()}"), str(folder), remove=True):
        yield
