"""What a training step costs, against a naive loop, trick by trick: `python benchmarks/train_step.py --llm file:A --vision file:B`.

The naive loop decodes and encodes every image of every batch, pads to the longest row there can be, computes the logits of the
vocabulary as a causal LM's own forward does, encodes an item once for each of its pairs, and computes in float32. Each arm adds
one trick to those before it. A step here is reading, forward and backward; the optimiser's part is the same for all. All arms
run in one process on the same threads, and start from the same weights; loss and gradients are compared on one batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from synthetic import add_model_options, build_model, make_catalogue, make_pairs
from torch import Tensor
from torch.nn import functional as F

import n2kit.model
from n2kit.data.batch import Batch, Reader
from n2kit.data.feature_store import FeatureStore
from n2kit.data.features import FeatureCache
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.device import keep_freed_memory, pick_precision
from n2kit.model import Model
from n2kit.prompts import PAD
from n2kit.train.pairs import PairCollator
from n2kit.train.step import TrainStep


@dataclass(frozen=True)
class Arm:
    """Which tricks are on."""

    name: str
    logits: bool = True
    cached: bool = False
    trimmed: bool = False
    distinct: bool = False
    sorted: bool = False
    bf16: bool = False
    stored: bool = False  # the features are on disk, from the run of the arm before


def arms(bf16: bool) -> list[Arm]:
    """The naive loop, and one trick more at a time."""
    out = [Arm("naive")]
    for name in (
        "no logits",
        "features cached",
        "padding trimmed",
        "items once",
        "sorted by length",
        "bf16",
        "second run",
    ):
        key = {
            "no logits": "logits", "features cached": "cached", "padding trimmed": "trimmed", "items once": "distinct",
            "sorted by length": "sorted", "bf16": "bf16", "second run": "stored",
        }[name]  # fmt: skip
        if name != "bf16" or bf16:
            out.append(replace(out[-1], name=f"+ {name}", **{key: name != "no logits"}))
    return out


@dataclass
class Bench:
    """One model and its data."""

    model: Model
    items: Items
    pairs: Pairs
    images: Path
    longest: int
    store: Path

    def reader(self, arm: Arm, *, disk: bool) -> Reader:
        cache = None
        if arm.cached:
            assert self.model.vision is not None
            dtype = torch.bfloat16 if arm.bf16 else torch.float32
            own = self.store / "".join(map(str, astuple(replace(arm, name="", stored=False))))
            store = FeatureStore(self.model.vision, 10**10, str(dtype), root=own) if disk else None
            cache = FeatureCache(self.model.vision, 10**10, images=self.images, store=store, dtype=dtype)
        return Reader(self.model.prompter, self.model.vision, self.images, cache=cache)

    def read(self, arm: Arm, reader: Reader, pairs: list[tuple[str, str]]) -> dict[str, Any]:
        """A batch as the arm would have it."""
        collator = PairCollator(self.items, self.pairs, reader)
        if arm.distinct:
            inputs = collator(pairs)
        else:
            ids = [a for a, _ in pairs] + [b for _, b in pairs]
            batch, _ = reader([self.items[i] for i in ids])
            inputs = {"batch": batch, "exclude": collator.exclude(ids)}
        if not arm.trimmed:
            inputs["batch"] = widened(inputs["batch"], self.longest)
        return {name: inputs[name] for name in ("batch", "places", "exclude") if name in inputs}

    @contextmanager
    def tricks(self, arm: Arm) -> Iterator[TrainStep]:
        """The step with what the arm leaves out put back."""
        together, hooks, kept = n2kit.model.ROWS_TOGETHER, [], []
        if not arm.sorted:
            n2kit.model.ROWS_TOGETHER = sys.maxsize
        if arm.logits:
            table = self.model.llm.embed(torch.arange(self.model.llm.card.vocab)[None])[0].detach()

            def head(_: Any, __: Any, states: Tensor) -> None:
                kept[:] = [
                    F.linear(states, table)
                ]  # alive until the next step's, as in a loop that has them as an output

            if table.shape[-1] == self.model.llm.card.output_width:
                hooks.append(self.model.llm.register_forward_hook(head))
        try:
            yield TrainStep(self.model, torch.bfloat16 if arm.bf16 else torch.float32)
        finally:
            n2kit.model.ROWS_TOGETHER = together
            for hook in hooks:
                hook.remove()

    def gradient(self, arm: Arm, pairs: list[tuple[str, str]]) -> tuple[float, dict[str, Tensor]]:
        """Loss and gradients of one batch."""
        with self.tricks(arm) as step:
            step.zero_grad()
            loss = step(**self.read(arm, self.reader(arm, disk=False), pairs))["loss"]
            loss.backward()
        return loss.item(), {n: p.grad.clone() for n, p in step.named_parameters() if p.grad is not None}

    def seconds(self, arm: Arm, batch: int, epochs: int) -> list[dict[str, float]]:
        """Wall and CPU seconds a step, epoch by epoch."""
        reader, out = self.reader(arm, disk=True), []
        pairs = list(self.pairs)
        starts = range(0, len(pairs) - batch + 1, batch)
        with self.tricks(arm) as step:
            for _ in range(epochs):
                wall, cpu = time.perf_counter(), time.process_time()
                for start in starts:
                    step.zero_grad()
                    step(**self.read(arm, reader, pairs[start : start + batch]))["loss"].backward()
                spent = time.perf_counter() - wall, time.process_time() - cpu
                out.append({"wall": spent[0] / len(starts), "cpu": spent[1] / len(starts)})
        step.zero_grad()
        return out


def widened(batch: Batch, width: int) -> Batch:
    """Padded to `width` tokens."""
    return replace(batch, ids=F.pad(batch.ids, (0, width - batch.ids.shape[1]), value=PAD))


def longest_row(model: Model) -> int:
    """Tokens of the longest row that the settings allow: what a loop without a look at its data pads to."""
    prompter = model.prompter
    return len(prompter.start) + prompter.body_tokens + len(prompter.suffix) + max(0, prompter.image_tokens - 1)


def differences(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Norm of the difference of two gradients over the norm of the first."""
    assert one.keys() == two.keys()
    off = sum(float((one[n] - two[n]).double().pow(2).sum()) for n in one)
    return float((off / sum(float(g.double().pow(2).sum()) for g in one.values())) ** 0.5)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    keep_freed_memory()
    model = build_model(options)
    images = folder / "images"
    images.mkdir()
    items = make_catalogue(images, options.items)
    bench = Bench(model, items, make_pairs(items, options.pairs), images, longest_row(model), folder / "features")
    fast = pick_precision("auto", torch.device("cpu"))[0] == torch.bfloat16
    first = list(bench.pairs)[: options.batch_size]
    rows, naive = [], bench.gradient(Arm("naive"), first)
    for arm in arms(fast or options.bf16):
        loss, gradient = bench.gradient(arm, first)
        epochs = bench.seconds(arm, options.batch_size, options.epochs)
        facts = {"loss_off": abs(loss - naive[0]), "gradient_off": differences(naive[1], gradient)}
        rows.append({"arm": arm.name, "first": epochs[0], "later": epochs[-1]} | facts)
        if not options.json:
            print(f"{arm.name}: {epochs[0]['wall']:.3f} s, then {epochs[-1]['wall']:.3f} s a step", file=sys.stderr)
    distinct = [len({i for p in list(bench.pairs)[s : s + options.batch_size] for i in p})
                for s in range(0, options.pairs - options.batch_size + 1, options.batch_size)]  # fmt: skip
    return {
        "llm": options.llm, "vision": options.vision, "threads": torch.get_num_threads(), "batch_size": options.batch_size,
        "distinct_items": sum(distinct) / len(distinct), "longest_row": bench.longest, "arms": rows,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    naive = result["arms"][0]
    lines = [
        f"{result['batch_size']} pairs a step, {result['distinct_items']:.1f} distinct items of them, {result['threads']} threads",
        "",
        "| | first epoch, s a step | CPU s | later epochs, s a step | CPU s | times naive | loss off | gradient off |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["arms"]:
        first, later = row["first"], row["later"]
        lines.append(
            f"| {row['arm']} | {first['wall']:.3f} | {first['cpu']:.3f} | {later['wall']:.3f} | {later['cpu']:.3f} "
            f"| {naive['later']['wall'] / later['wall']:.2f} | {row['loss_off']:.1e} | {row['gradient_off']:.1e} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16, help="pairs a step")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="measure bf16 even where it does not pay")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    print(json.dumps(result, indent=1) if options.json else table(result))


if __name__ == "__main__":
    main()
