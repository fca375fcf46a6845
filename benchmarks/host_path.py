"""Images a second that are read, decoded and transformed, by number of threads: `python benchmarks/host_path.py --images FOLDER`.

Without a folder, photograph-like JPEG files are made: noise, smoothed, so that they compress as photographs do.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from n2kit.contract.image_transform import CLIP_MEAN, CLIP_STD, ImageTransform
from n2kit.data.images import open_image
from n2kit.data.item import Item


def make_images(folder: Path, count: int, side: int) -> None:
    """Write JPEG files of side × 2/3 side."""
    rng = np.random.default_rng(0)
    for n in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (side // 6, side // 4, 3), np.uint8))
        coarse.resize((side, side * 2 // 3)).save(folder / f"{n}.jpg", quality=90)


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(folder: Path, items: list[Item], transform: ImageTransform, threads: int) -> tuple[float, float]:
    """Read all images by so many threads: images a second, images a CPU second."""

    def one(item: Item) -> torch.Tensor:
        return transform(open_image(item, folder))

    one(items[0])
    begun, used = time.perf_counter(), cpu()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(one, items):
            pass
    return len(items) / (time.perf_counter() - begun), len(items) / (cpu() - used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--side", type=int, default=1200, help="pixels, of images that are made")
    parser.add_argument("--threads", default="1,2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = options.images or Path(made)
        if options.images is None:
            make_images(folder, options.count, options.side)
        names = sorted(f.name for f in folder.iterdir() if f.is_file())[: options.count]
        items = [Item(name, image=name) for name in names]
        quick = ImageTransform(224, CLIP_MEAN, CLIP_STD, resizer="torch")
        print("| resize | threads | images/s | images a CPU s |\n|---|---|---|---|")
        for name, transform in (("Pillow's", replace(quick, resizer="pillow")), ("torch's", quick)):
            for threads in map(int, options.threads.split(",")):
                pace, efficiency = measured(folder, items, transform, threads)
                print(f"| {name} | {threads} | {pace:.0f} | {efficiency:.0f} |", flush=True)


if __name__ == "__main__":
    main()
