"""One and two processes; and on a GPU tokens a second and the share of its matmul ceiling: `python benchmarks/scaling.py`.

Processes: the same training, a step's pairs divided among 1, 2, … processes by torchrun (gloo on a CPU), its loss compared.
A GPU, where there is one: models of random weights in the shape of a 0.5 B and a 7 B one, in bf16, with LoRA and in full (the
7 B one with LoRA alone: AdamW's float32 moments take 84 GB). Model FLOPs utilisation is the FLOPs of a step, forward and
backward, counted operation by operation (torch.utils.flop_counter), over what the same seconds of a large product would do.
Without a GPU the second part is left out, unless `--shape tiny` asks to see it work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from synthetic import make_catalogue, make_pairs
from torch.utils.flop_counter import FlopCounterMode

import n2kit
from n2kit.inputs.reader import Reader
from n2kit.modeling.model import Model
from n2kit.train.pairs import PairCollator
from n2kit.train.step import TrainStep
from n2kit.utils.device import pick_device

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 2048},
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
             "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 4096},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 4096},
}  # fmt: skip
RUNS = [("0.5b", "lora:16"), ("0.5b", "full"), ("7b", "lora:16")]


def ceiling(device: torch.device, dtype: torch.dtype, side: int, repeat: int = 5) -> float:
    """FLOP/s of a square product, the best of several."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / fastest(lambda: a @ b, device, repeat)


def fastest(work: Callable[[], Any], device: torch.device, repeat: int) -> float:
    """Seconds, waiting for the device; the first time does not count."""
    best = float("inf")
    for n in range(repeat + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if n:
            best = min(best, time.perf_counter() - start)
    return best


def flops(work: Callable[[], Any]) -> int:
    """Count the operations of `work`, forward and backward: products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@contextmanager
def created_in(device: torch.device, dtype: torch.dtype) -> Any:
    """Random weights are made where and in what they are used: 7 B of float32 in main memory would be 28 GB."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def shaped(shape: str, tune: str, device: torch.device, dtype: torch.dtype) -> Model:
    settings = {
        "llm.config": {"model_type": "qwen2", **SHAPES[shape], "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None},
        "llm.tune": tune, "vision.tune": "frozen", "prompt.body_tokens": 256,
    }  # fmt: skip
    with created_in(device, dtype):
        model = n2kit.build("qwen:tiny", "siglip:tiny", connector="mlp:4", settings=settings)
    for kind, part in model.parts.items():
        if kind != "llm":
            part.float()
    if tune == "full":
        model.llm.float()
    model.special_tokens.float()
    model.head.float()
    return model.to(device).train()


def utilisation(
    shape: str, tune: str, pairs: int, device: torch.device, dtype: torch.dtype, side: int
) -> dict[str, Any]:
    """Tokens a second of a step, and its FLOPs over the ceiling's."""
    model = shaped(shape, tune, device, dtype)
    with tempfile.TemporaryDirectory() as folder:
        items = make_catalogue(Path(folder), 2 * pairs)
        some = make_pairs(items, pairs)
        inputs = PairCollator(items, some, Reader(model.prompt_builder, model.vision, Path(folder)))(list(some))
    batch = inputs["batch"].to(device)
    others = {name: inputs[name].to(device) for name in ("item_index", "exclude")}
    step = TrainStep(model, dtype)

    def work() -> None:
        step.zero_grad()
        step(batch, **others)["loss"].backward()

    work()
    count, seconds = flops(work), fastest(work, device, 3)
    most = ceiling(device, dtype, side)
    tokens = int((batch.pool_pos + 1).sum())
    return {
        "shape": shape, "tune": tune, "items": len(batch.ids), "tokens": tokens, "tokens_per_s": tokens / seconds,
        "tflop": count / 1e12, "seconds": seconds, "ceiling_tflops": most / 1e12, "mfu": count / seconds / most,
    }  # fmt: skip


def processes(counts: list[int], steps: int, pairs: int, llm: str, vision: str, tune: str) -> list[dict[str, Any]]:
    """Wall and CPU seconds of the same training by so many processes, and its last loss. CPU seconds hold the start of each."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = folder / "images"
        images.mkdir()
        items = make_catalogue(images, 16 * pairs)  # an item in both shares of a step is read twice
        keep = ("id", "image", "title", "content")
        (folder / "items.jsonl").write_text("".join(json.dumps({k: getattr(i, k) for k in keep}) + "\n" for i in items))
        (folder / "pairs.csv").write_text("".join(f"{a},{b}\n" for a, b in make_pairs(items, pairs * 4)))
        n2kit.build(llm, vision, connector="mlp:4", settings={"llm.tune": tune}).save(folder / "bundle")
        for count in counts:
            command = [
                sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m", "n2kit_cli.main",
                "train", folder / "bundle", "--items", folder / "items.jsonl", "--pairs", folder / "pairs.csv", "--images", images,
                "--max-steps", steps, "--batch-size", pairs, "--set", "train.precision=fp32", "--set", "train.log_steps=1",
                "--json", "-o", folder / f"run{count}",
            ]  # fmt: skip
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            empty = str(folder / f"cache{count}")  # each computes the features of its pictures
            own = {**os.environ, "OMP_NUM_THREADS": "1", "N2KIT_CACHE": empty}
            done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, env=own)
            if done.returncode:
                sys.exit(done.stderr)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            result = json.loads((folder / f"run{count}" / "result.json").read_text())
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            wall = result["seconds"]
            times = (rows[0]["wall_s"] if rows else wall) / wall
            rows.append({"processes": count, "wall_s": wall, "times": times, "cpu_s": cpu, "loss": result["loss"]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=16, help="pairs a step")
    parser.add_argument("--llm", default="qwen:tiny", help="of the training by processes")
    parser.add_argument("--vision", default="siglip:tiny", help="of the training by processes")
    parser.add_argument("--shape", choices=list(SHAPES), help="this shape alone, on whatever device there is")
    parser.add_argument("--tune", default="lora:16")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = pick_device()
    runs = [(options.shape, options.tune)] if options.shape else RUNS if device.type == "cuda" else []
    side = 8192 if device.type == "cuda" else 512
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    result: dict[str, Any] = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"}
    result["processes"] = processes(
        options.processes, options.steps, options.pairs, options.llm, options.vision, options.tune
    )
    result["utilisation"] = [utilisation(s, t, options.pairs, device, dtype, side) for s, t in runs]
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(f"device: {result['device']}\n")
    for rows in (result["processes"], result["utilisation"]):
        if rows:
            print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
        for row in rows:
            print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()) + " |")
        print()
    if not result["utilisation"]:
        print("no GPU here: tokens a second and utilisation were not measured")


if __name__ == "__main__":
    main()
