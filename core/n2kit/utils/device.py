"""Choice of the device, and of the precision that is fast on it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import platform
import sys
import time
from pathlib import Path
from typing import Literal

import torch

from n2kit.errors import BadInput
from n2kit.utils.cache import cache_folder
from n2kit.utils.files import read_json, write_json

Precision = Literal["auto", "fp32", "bf16"]
CLEARLY_SLOW = (
    0.5  # below this gain a small product settles the question: a large one takes 0.3 s where bf16 is emulated
)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def pick_device(name: str | None = None) -> torch.device:
    """Return the device of that name, else the first there is of CUDA, MPS and CPU.

    Raises:
        Unavailable: there is no such device. BadInput: it is no name of one.
    """
    from n2kit.errors import BadInput, Unavailable

    if name is not None:
        try:
            device = torch.device(name)
        except RuntimeError:
            raise BadInput(f"{name!r} is no device", "cpu, cuda, cuda:1, mps") from None
        if device.type != "cuda" and device.index:
            raise BadInput(f"{name!r}: there is one {device.type}, and it has no number", f"--device {device.type}")
        available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        if not available.get(device.type, False):
            raise Unavailable(f"no {device.type} device here", "n2kit doctor shows what there is")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise Unavailable(f"no {name} here: {torch.cuda.device_count()} GPUs, counted from 0", "n2kit doctor")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_precision(wanted: Precision, device: torch.device) -> tuple[torch.dtype, str]:
    """Return the dtype to compute in, and a line that says why."""
    if wanted != "auto":
        return DTYPES[wanted], f"{wanted}, as asked"
    if device.type == "cuda":
        good = torch.cuda.is_bf16_supported()
        return (torch.bfloat16, "bf16: the GPU has it") if good else (torch.float32, "fp32: the GPU has no bf16")
    if device.type != "cpu":
        return torch.float32, "fp32"
    gain = bf16_gain()
    fast = gain > 1.3
    times = max(gain, 1 / gain)
    ratio = f"{times:.{0 if times >= 10 else 1}f} × as {'fast' if gain >= 1 else 'slow'}"
    return (torch.bfloat16, torch.float32)[not fast], f"{'bf16' if fast else 'fp32'}: bf16 is {ratio} here"


def assume_bf16_gain(gain: float) -> None:
    """Set `bf16_gain` to an earlier measurement: all processes of one comparison must compute in the same precision."""
    _assumed.append(gain)


def bf16_gain() -> float:
    """Return how many times faster a matrix product is in bf16 than in fp32 on this CPU; far below 1 where the CPU has no bf16."""
    return _assumed[-1] if _assumed else _measured_gain()


_assumed: list[float] = []


@functools.cache
def _measured_gain() -> float:
    """Measure `bf16_gain` once for each machine: the cache folder keeps the answer, where it can be written."""
    file, key = cache_folder() / "bf16.json", _cpu()
    try:
        kept = read_json(file)
    except (OSError, BadInput):
        kept = {}
    gain = kept.get(key)
    if not isinstance(gain, float) or gain <= 0:
        gain = _gain(rows=64, width=256)
        if gain > CLEARLY_SLOW:
            gain = _gain(rows=256, width=768)
        with contextlib.suppress(OSError):
            write_json(file, kept | {key: gain}, durable=False)
    return gain


def _gain(rows: int, width: int) -> float:
    """Divide fp32's time for a product [rows, width] × [width, width] by bf16's; the first of each type is warm-up."""

    def seconds(dtype: torch.dtype) -> float:
        a, b = torch.ones(rows, width, dtype=dtype), torch.ones(width, width, dtype=dtype)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        return min(times[1:])

    return seconds(torch.float32) / seconds(torch.bfloat16)


def _cpu() -> str:
    """Identify the CPU with its instructions (virtual ones share a name), torch's version, and its threads: they decide the gain."""
    facts = [platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf8").splitlines()
        facts += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    return f"{digest} torch {torch.__version__}, {torch.get_num_threads()} threads"


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks in place of returning them to the kernel after every operation.

    Each tensor of a step would be mapped anew and its pages faulted in: half of an image encoder's time on a CPU. No effect
    where there is no glibc.
    """
    if sys.platform != "linux":
        return
    trim_threshold, mmap_threshold = -1, -3  # the names of mallopt(3)
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
