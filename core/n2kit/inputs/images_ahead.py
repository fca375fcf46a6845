"""Images decoded by threads while the model is at work: Pillow lets other threads run meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from n2kit.data.images import open_image

if TYPE_CHECKING:
    import torch

    from n2kit.contract.interfaces import VisionEncoder
    from n2kit.data.item import Item
    from n2kit.inputs.feature_cache import FeatureCache

MOST_THREADS = 8
BATCHES = 2  # that are decoded ahead: what lies decoded takes memory
LoadImage = Callable[["Item"], Tensor]


def threads_for(device: torch.device) -> int:
    """Choose how many threads decode: all CPUs beside a GPU, a few beside a model on many CPUs, none where the model needs them all."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_THREADS, cpus if device.type != "cpu" else cpus // 4)


class ImagesAhead:
    """The images of batches to come, decoded and transformed: [3, H, W] each. An error is raised where its image is asked for."""

    def __init__(
        self, pool: ThreadPoolExecutor, vision: VisionEncoder, images: Path | None, cache: FeatureCache | None
    ) -> None:
        self.pool, self.vision, self.images, self.cache = pool, vision, images, cache
        self.started: dict[str, Future[Tensor]] = {}

    def start(self, items: Sequence[Item]) -> None:
        """Let the images of a batch be decoded, but for those whose features are known."""
        for item in items:
            path = item.image
            if path and path not in self.started and not (self.cache is not None and path in self.cache):
                self.started[path] = self.pool.submit(self._load, item)

    def load(self, item: Item) -> Tensor:
        """Return an item's image; what nobody started is decoded now."""
        future = self.started.pop(item.image, None)
        return self._load(item) if future is None else future.result()

    def drop(self, items: Sequence[Item]) -> None:
        """Forget the images of a batch that nobody asked for."""
        for item in items:
            self.started.pop(item.image, None)

    def _load(self, item: Item) -> Tensor:
        return self.vision.transform(open_image(item, self.images))


@contextmanager
def images_ahead(
    vision: VisionEncoder | None, images: Path | None, cache: FeatureCache | None, threads: int
) -> Iterator[ImagesAhead | None]:
    """Give the images ahead for as long as it lasts; None where no image is read, or no thread is free."""
    if vision is None or not threads:
        yield None
        return
    pool = ThreadPoolExecutor(threads, "n2kit-images")
    try:
        yield ImagesAhead(pool, vision, images, cache)
    finally:
        pool.shutdown(cancel_futures=True)
