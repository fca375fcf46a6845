"""What every process of a matrix settles before it computes, so that all compute alike."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from n2kit.utils.device import assume_bf16_gain, bf16_gain

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
        aside = file.with_name(f".{PRECISION}.{os.getpid()}")
        aside.write_text(json.dumps({"bf16_gain": bf16_gain()}))
        try:
            os.link(aside, file)  # unless another process was first
        except FileExistsError:
            pass
        except OSError:
            aside.replace(file)
        aside.unlink(missing_ok=True)
    assume_bf16_gain(json.loads(file.read_text("utf8"))["bf16_gain"])
    if bench.device is None and torch.cuda.is_available():
        return replace(bench, device=f"cuda:{slot % torch.cuda.device_count()}")
    return bench
