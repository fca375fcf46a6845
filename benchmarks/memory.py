"""A step's memory by its pairs, plain and with GradCache: `python benchmarks/memory.py --llm file:A --vision file:B`.

Each measurement is a child process: it loads the model, reads one batch (pictures' features at hand, as from the second epoch
on), takes one step, forward and backward, and reports by how much its resident memory rose above that of the loaded model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from synthetic import add_model_options, build_model, make_catalogue

from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.inputs.feature_cache import FeatureCache
from n2kit.inputs.reader import Reader
from n2kit.train.pairs import PairCollator
from n2kit.train.step import TrainStep
from n2kit.utils.device import keep_freed_memory

MB = 2**20
PICTURES = 32  # files; a large batch shares them


def now() -> int:
    """Bytes of this process that are resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def child(options: argparse.Namespace) -> None:
    """One step; prints what it took as JSON."""
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    model = build_model(options)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)  # part of any training, whatever the batch
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder)
        few = make_catalogue(images, PICTURES)
        items = Items([replace(few.items[n % PICTURES], id=f"i{n}") for n in range(2 * options.child)])
        pairs = Pairs([(f"i{n}", f"i{n + options.child}") for n in range(options.child)])
        assert model.vision is not None
        cache = FeatureCache(model.vision, 10**9, images=images)
        reader = Reader(model.prompt_builder, model.vision, images, cache=cache, lazy_features=options.cached)
        reader(few.items)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # what loading took at its peak is forgotten
        before = now()
        inputs = PairCollator(items, pairs, reader)(list(pairs))
    start = time.process_time()
    step = TrainStep(model, torch.float32, options.chunk if options.cached else None)
    step(inputs["batch"], inputs["exclude"], inputs["item_index"])["loss"].backward()
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    items_read = len(inputs["batch"].ids)
    print(json.dumps({"model": before / MB, "over": (peak - before) / MB, "seconds": seconds, "items": items_read}))


def measured(options: argparse.Namespace, pairs: int, cached: bool) -> dict[str, float] | None:
    """One child's figures; None if it was killed."""
    names = ("llm", "vision", "connector", "variant", "tune", "template", "threads", "chunk")
    own = [word for name in names for word in (f"--{name}", str(getattr(options, name)))] + ["--child", str(pairs)]
    command = [sys.executable, __file__, *own, *(["--cached"] if cached else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        return None
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Plain and cached for each number of pairs; plain no longer, once twice the last would not fit."""
    rows, last = [], 0.0
    for pairs in options.pairs:
        row: dict[str, Any] = {"pairs": pairs, "plain": None}
        if 2.2 * last * MB < options.most_gb * 1e9:
            row["plain"] = measured(options, pairs, cached=False)
            last = row["plain"]["over"] if row["plain"] else float("inf")
        row["grad_cache"] = measured(options, pairs, cached=True)
        rows.append(row)
        if not options.json:
            print(f"{pairs} pairs done", file=sys.stderr)
    return rows


def table(rows: list[dict[str, Any]], chunk: int) -> str:
    lines = [
        f"| pairs | items | plain, MB over the model | CPU s | GradCache({chunk}), MB over the model | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        plain, cached = row["plain"], row["grad_cache"]
        left = f"{plain['over']:,.0f} | {plain['seconds']:.1f}" if plain else "too large | "
        right = f"{cached['over']:,.0f} | {cached['seconds']:.1f}" if cached else "too large | "
        lines.append(f"| {row['pairs']} | {cached['items'] if cached else ''} | {left} | {right} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--pairs", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--chunk", type=int, default=16, help="items at a time")
    parser.add_argument("--most-gb", type=float, default=16.0, help="a plain step that would take more is left out")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cached", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    rows = measure(options)
    print(json.dumps(rows, indent=1) if options.json else table(rows, options.chunk))


if __name__ == "__main__":
    main()
