"""The threads, precision and device that every process of a matrix sets first, so that all compute alike."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from n2kit.utils.device import assume_bf16_gain, bf16_gain
from n2kit.utils.files import read_json, write_once

if TYPE_CHECKING:
    from n2kit.bench.runner.context import BenchContext

PRECISION = "precision.json"


def prepare(bench: BenchContext, threads: int, slot: int) -> BenchContext:
    """Set threads and precision of this process, and of several GPUs take one.

    Precision `auto` on a CPU goes by a measurement that another load may turn over: the first process of a matrix makes it.
    """
    torch.set_num_threads(threads)
    file = bench.store.root / PRECISION
    if not file.is_file():
        write_once(file, json.dumps({"bf16_gain": bf16_gain()}))
    assume_bf16_gain(read_json(file)["bf16_gain"])
    if bench.device is None and torch.cuda.is_available():
        return replace(bench, device=f"cuda:{slot % torch.cuda.device_count()}")
    return bench
