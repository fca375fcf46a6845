"""The shards of a plan computed by Ray: an actor holds the model, and writes the shards that it is given as any process does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from n2kit.embed.dataset.plan import Order, Plan
from n2kit.embed.dataset.run import Settings, encoder
from n2kit.embed.dataset.work import Encodes, Shards, at_work, compute_if_free, ended
from n2kit.embed.encoded import Progress
from n2kit.utils.ray_queue import RayOptions, run_queue

Result = tuple[bool, list[str]]  # whether a shard is there, and what was to be said meanwhile


@dataclass(frozen=True)
class RayEngine:
    """A way to compute the shards of a plan; every actor loads the bundle, onto `device` or the best that there is."""

    bundle: Path
    settings: Settings
    device: str | None
    options: RayOptions

    def __call__(self, shards: Shards, progress: Progress | None) -> None:
        plan, done = shards.plan, 0

        def take(number: int, result: Result) -> bool:
            nonlocal done
            there, said = result
            for line in said:
                shards.notify(line)
            done += shards.size(number) if there else 0
            if progress:
                progress(done, plan.items)
            return there

        prepare = _Prepare(self.bundle, self.settings, self.device, shards.folder, plan, shards.order)
        run_queue(self.options, self.bundle, prepare, plan.numbers, take)


@dataclass(frozen=True)
class _Prepare:
    """A message to an actor, where it loads the model and returns the computer of a shard."""

    bundle: Path
    settings: Settings
    device: str | None
    folder: Path
    plan: Plan
    order: Order

    def __call__(self) -> Callable[[int], Result]:
        from n2kit.bundle.io import load
        from n2kit.utils.device import pick_device

        model = load(self.bundle).to(pick_device(self.device))
        return _Computer(self.folder, self.plan, self.order, encoder(model, self.settings, self.order.run))


class _Computer:
    """The model that an actor holds, and, as long as it lives, the lock that says that it works by the plan."""

    def __init__(self, folder: Path, plan: Plan, order: Order, encode: Encodes) -> None:
        self.said: list[str] = []
        self.shards, self.encode = Shards(folder, plan, order, self.said.append), encode
        self.held = ExitStack()
        with suppress(FileNotFoundError):  # another process has finished the folder, as `ended` will tell
            self.held.enter_context(at_work(folder))

    def __call__(self, number: int) -> Result:
        self.said.clear()
        shards = self.shards
        there = ended(shards) or shards.look(number) or compute_if_free(shards, number, self.encode, None)
        return there, [*self.said]
